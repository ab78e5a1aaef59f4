"""Which runs a study makes, and what is refused before any of them starts."""

import json
from functools import cache
from pathlib import Path

import pytest
import yaml

from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.run_folder.folder import create_folder
from coevo_jax.study.page import configured
from coevo_jax.study.plan import config_digest, plan_study
from coevo_jax.study.room import ceiling_of
from tests.study.small import configs

ROOT = Path(__file__).resolve().parents[2]


def test_a_study_has_a_run_for_every_seed_and_config_and_those_needed_first(tmp_path):
    read = configs(tmp_path, "sft", "eto-compute", "coevo")
    cells = plan_study(read, (0, 3), tmp_path / "runs")
    assert [cell.folder.name for cell in cells] == [
        f"small-{method}-{seed}" for seed in (0, 3) for method in ("coevo", "sft", "eto-compute")
    ]
    assert {cell.study for cell in cells} == {"small"} and {cell.base for cell in cells} == {None}
    for cell in cells:
        assert (cell.config.seed, cell.config.runs_dir) == (cell.seed, str(tmp_path / "runs"))
    matched = {cell.after for cell in cells} - {None}
    assert matched == {tmp_path / "runs" / f"small-coevo-{seed}" for seed in (0, 3)}
    compute = cells[2]
    assert compute.config.budget.run == str(compute.after)


def test_the_digest_is_that_of_all_seeds_and_folders_and_no_other_config(tmp_path):
    read = configs(tmp_path, "eto", "eto-compute", "coevo")
    cells = plan_study(read, (0, 1), tmp_path / "runs")
    digests = {cell.method: cell.digest for cell in cells}
    assert {(cell.method, cell.digest) for cell in cells} == set(digests.items())
    assert len(set(digests.values())) == 3
    elsewhere = plan_study(read, (7,), tmp_path / "others")
    assert {cell.method: cell.digest for cell in elsewhere} == digests
    eto = next(cell.config for cell in cells if cell.method == "eto")
    assert config_digest(eto.model_copy(update={"rounds": 5})) != digests["eto"]
    learns_longer = eto.agents["target"].model_copy(update={"epochs": 9})
    assert config_digest(eto.model_copy(update={"agents": {"target": learns_longer}})) != digests["eto"]


def test_an_option_that_a_version_adds_changes_no_digest(tmp_path):
    """An option at its default is not told from one that was never there."""
    (cell,) = plan_study(configs(tmp_path, "eto"), (0,), tmp_path / "runs")
    default = cell.config.env.max_fault_share
    env = cell.config.env.model_copy(update={"max_fault_share": default})
    assert config_digest(cell.config.model_copy(update={"env": env})) == cell.digest
    other = cell.config.env.model_copy(update={"max_fault_share": default / 2})
    assert config_digest(cell.config.model_copy(update={"env": other})) != cell.digest


@pytest.mark.parametrize(
    ("line", "key", "found", "expected"),
    [
        ("warm_start: {epochs: 4}", "warm_start.epochs", "4", "3"),
        ("evaluate: {split: test}", "evaluate.split", "'test'", "'dev'"),
        ("evaluate: {tasks: '0:5'}", "evaluate.tasks", "'0:5'", "':'"),
        ("env: {options: {seed: 4}}", "env.options.seed", "4", "None"),
        ("explore: {tasks: ['40:50']}", "explore.tasks", "('40:50',)", "('40:60',)"),
        ("rounds: 2", "rounds", "2", "1"),
        ("model: {num_layers: 1}", "model.num_layers", "1", "2"),
        ("tokenizer: {vocab_size: 320}", "tokenizer.vocab_size", "320", "300"),
    ],
)
def test_configs_that_differ_in_what_must_be_equal_are_refused(line, key, found, expected, tmp_path):
    read = configs(tmp_path, "eto", "sft-more", sft_more=line + "\n")
    with pytest.raises(ConfigError) as caught:
        plan_study(read, (0,), tmp_path / "runs")
    words = str(caught.value)
    assert words.startswith(
        f"{tmp_path}/small-sft-more.yaml: {key}: found {found}, expected {expected} as in "
    )
    assert f"{tmp_path}/small-eto.yaml" in words
    assert not (tmp_path / "runs").exists()


def test_a_config_without_rounds_has_no_tasks_or_rounds_to_compare(tmp_path):
    read = configs(tmp_path, "sft", "eto", eto="rounds: 3\nexplore: {tasks: ['40:44']}\n")
    assert len(plan_study(read, (0,), tmp_path / "runs")) == 2


def base(folder: Path, weights: bytes) -> Path:
    """A checkpoint as far as its digest and its config go."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    shape = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "vocab_size": 300,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
    }
    (folder / "config.json").write_text(json.dumps(shape))
    return folder


@pytest.fixture(scope="module")
def shipped_configs(tmp_path_factory):
    """Reads shipped configs by a pattern, each once.

    With a base of another shape, so that they are read where the study's own is not.
    """
    stand_in = base(tmp_path_factory.mktemp("stand-in") / "base", b"weights")

    @cache
    def read(pattern: str):
        paths = sorted((ROOT / "configs" / "study").glob(pattern))
        return {str(path): load_config(path, [f"model.path={stand_in}"]) for path in paths}

    return read


@pytest.fixture
def worlds_unchecked(monkeypatch):
    """Worlds that nothing is built of: the stand-in has no tokenizer."""
    monkeypatch.setattr("coevo_jax.study.plan.check_world", lambda config: None)


@pytest.mark.parametrize(
    ("study", "matched"), [("sql", {"eto-compute", "eto-pairs"}), ("webshop", {"eto-compute"})]
)
@pytest.mark.usefixtures("worlds_unchecked")
def test_the_shipped_configs_are_one_study(study, matched, shipped_configs, tmp_path):
    read = shipped_configs(f"{study}-*.yaml")
    cells = plan_study(read, range(5), tmp_path / "runs")
    assert len(cells) == 5 * len(read) and {cell.study for cell in cells} == {study}
    assert [f"{study}-{method}" for method in configured(study)] == [Path(name).stem for name in read]
    assert all(Path(name).stem == config.name for name, config in read.items())
    assert {cell.method for cell in cells if cell.after} == matched
    coevo = next(cell for cell in cells if cell.method == "coevo").config
    assert coevo.evaluate.split == "dev" and coevo.explore.tasks == (coevo.warm_start.tasks,)


def test_every_method_of_the_webshop_study_is_one_of_the_sql_study(shipped_configs):
    """The two differ in what their parts say alone: a method means the same in both."""
    sql = {config.method: config for config in shipped_configs("sql-*.yaml").values()}
    for config in shipped_configs("webshop-*.yaml").values():
        other = sql[config.method]
        assert (config.recipe, config.rounds) == (other.recipe, other.rounds), config.name
        assert config.explore.samples == other.explore.samples
        learned = [
            {name: (agent.sft_reduction, agent.max_pairs_per_kind) for name, agent in one.agents.items()}
            for one in (config, other)
        ]
        assert learned[0] == learned[1], config.name


@pytest.mark.parametrize("study", ["sql", "webshop"])
@pytest.mark.usefixtures("worlds_unchecked")
def test_a_ceiling_is_a_study_of_its_own_with_its_studys_base_and_tasks(study, shipped_configs, tmp_path):
    configs_of = shipped_configs(f"{study}-*.yaml")
    floor, more = ({n: one for n, one in configs_of.items() if one.method == m} for m in ("sft", "sft-more"))
    ceiling = shipped_configs(f"ceiling-{study}-*.yaml")
    (cell,) = plan_study(ceiling, (0,), tmp_path / "runs")
    (below,) = plan_study(floor, (0,), tmp_path / "runs")
    assert (cell.study, cell.method, cell.base) == (ceiling_of(study), "sft", below.base)
    alone = [
        one.config.model_copy(update={"warm_start": None, "name": ""}).model_dump(warnings=False)
        for one in (cell, below)
    ]
    assert alone[0] == alone[1]
    with pytest.raises(ConfigError, match="found a config of the study"):
        plan_study(more | ceiling, (0,), tmp_path / "runs")


def test_two_bases_are_refused_by_their_weights(tmp_path):
    common = (tmp_path / "common.yaml", configs(tmp_path, "eto"))[0]
    text = yaml.safe_load(common.read_text())
    first, second = base(tmp_path / "a", b"one"), base(tmp_path / "b", b"two")
    read = configs(tmp_path, "eto", "sft-more")
    text["model"] = {"path": str(first)}
    del text["tokenizer"]
    common.write_text(yaml.safe_dump(text))
    read = {name: load_config(name) for name in read}
    other = {name: load_config(name, [f"model.path={second}"]) for name in list(read)[1:]}
    with pytest.raises(
        ConfigError, match=r"small-sft-more\.yaml: model\.path \(sha256 of its weights\): found "
    ):
        plan_study(read | other, (0,), tmp_path / "runs")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("name: other-eto\n", "found a config of the study 'other', expected 'small'"),
        ("name: eto\n", "expected STUDY-METHOD, where method is 'eto'"),
        ("name: small-coevo\nmethod: coevo\n", "method: found 'coevo', which"),
    ],
)
def test_names_that_are_not_a_studys_are_refused(lines, words, tmp_path):
    with pytest.raises(ConfigError) as caught:
        plan_study(renamed(tmp_path, lines), (0,), tmp_path / "runs")
    assert words in str(caught.value)


def renamed(folder: Path, lines: str):
    """Two configs, the second of which is called otherwise."""
    read = configs(folder, "coevo", "eto")
    name = str(folder / "small-eto.yaml")
    return read | {name: read[name].model_copy(update=yaml.safe_load(lines))}


def test_a_budget_of_a_run_that_nothing_makes_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"small-eto-compute\.yaml: budget\.run: .*small-coevo-0 is no finished"
    ):
        plan_study(configs(tmp_path, "eto", "eto-compute"), (0,), tmp_path / "runs")


def test_a_folder_with_a_run_of_another_config_is_refused(tmp_path):
    read = configs(tmp_path, "eto")
    [cell] = plan_study(read, (0,), tmp_path / "runs")
    create_folder(cell.config)
    assert plan_study(read, (0,), tmp_path / "runs") == [cell]
    changed = configs(tmp_path, "eto", eto="agents: {target: {epochs: 2}}\n")
    with pytest.raises(ConfigError) as caught:
        plan_study(changed, (0,), tmp_path / "runs")
    assert "agents.target.epochs: found 1" in str(caught.value) and "has 2" in str(caught.value)


def test_a_folder_whose_budget_was_resolved_is_the_same_run(tmp_path):
    read = configs(tmp_path, "coevo", "eto-compute")
    cells = plan_study(read, (0,), tmp_path / "runs")
    totals = {"run": None, "match": (), "explored_tokens": (100,), "learned_tokens": (200,)}
    resolved = cells[1].config.budget.model_copy(update=totals)
    create_folder(cells[1].config.model_copy(update={"budget": resolved}))
    assert len(plan_study(read, (0,), tmp_path / "runs")) == 2
    name = str(tmp_path / "small-eto-compute.yaml")
    less = read[name].budget.model_copy(update={"match": ("learned_tokens",)})
    with pytest.raises(ConfigError, match=r"budget\.explored_tokens: found True, .* has False"):
        plan_study(read | {name: read[name].model_copy(update={"budget": less})}, (0,), tmp_path / "runs")
