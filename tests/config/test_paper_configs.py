"""The paper-scale configs: that all load, are METHOD's, and fill the machine that their header names."""

import math
from pathlib import Path

import pytest

from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe_queries import learnings_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.machine.chips import GPU_COUNTS, TPU_SHAPES
from coevo_jax.preflight.table import header_topology

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs" / "paper"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))


def test_each_backbone_has_each_benchmark_with_all_parameters_and_with_adapters():
    names = {path.stem for path in SHIPPED}
    for model in ("llama2-7b", "llama31-8b", "qwen3-4b"):
        for benchmark in ("webshop", "scienceworld", "intercode-sql"):
            assert {f"{model}-{benchmark}", f"{model}-{benchmark}-lora"} <= names
    assert len(names) == 22


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_config_is_the_papers_and_its_mesh_is_its_headers_machine(path):
    config = load_config(path)
    assert config.name == path.stem
    assert (config.model.lora is not None) == path.stem.endswith("-lora")
    chip, _, shape = header_topology(path).partition(":")
    chips = math.prod(map(int, shape.split("x")))
    assert shape in TPU_SHAPES.get(chip, GPU_COUNTS)
    mesh = config.mesh
    assert mesh.data * mesh.fsdp * mesh.tensor == chips
    assert f"{chips} chips" in path.read_text() or chips == 1
    assert (config.rounds, config.batch.step_pairs, config.batch.step_demonstrations) == (3, 32, 64)
    assert config.batch.row_length == config.rollout.max_tokens == 4096
    assert (config.warm_start.learning_rate, config.warm_start.warmup_fraction) == (2e-5, 0.03)
    assert sorted(config.agents) == ["failure", "target"]
    for agent in config.agents.values():
        assert (agent.learning_rate, agent.beta) == ((1e-6, 5e-7), (0.1, 0.5))
        assert (agent.warmup_fraction, agent.epochs) == (0.1, 3)
    sources = [source for learning in learnings_of(config.recipe) for source in learning.pairs]
    across = [source.options["across"] for source in sources if source.pairs == "better_over_worse"]
    assert across == [True, True]
    assert config.optimizer.weight_decay == 0 and config.model.dtype == "bfloat16"
    assert f"configs/paper/{path.name} " in path.read_text()  # the command at its head


def test_a_header_without_a_topology_is_refused(tmp_path):
    path = tmp_path / "bare.yaml"
    path.write_text("# Needs:     2 cores\n\nname: bare # v5e:4x4\n")
    with pytest.raises(ConfigError, match="names no topology such as v5e:4x4"):
        header_topology(path)
