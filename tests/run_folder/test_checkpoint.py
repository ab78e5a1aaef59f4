"""Of a checkpoint, what only uses parameters reads only parameters, onto whatever mesh there is."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import Agents, Learner, make_learner
from coevo_jax.models.transformer import Transformer
from coevo_jax.phases.agents import load_agent
from coevo_jax.phases.learn import _reference_params
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.manifest import Manifest, PhaseRecord
from coevo_jax.sharding import make_mesh

MODEL = ModelConfig(hidden_size=128, num_layers=2)
MANIFEST = Manifest(
    config_sha256="", checkpoint=0, done=(PhaseRecord(name="warm_start", records={"checkpoint": 0}),)
)


def learner(model: ModelConfig = MODEL, **mesh: int) -> Learner:
    optimizer = make_optimizer(OptimizerConfig())
    return make_learner(Transformer(model, 1024), optimizer, make_mesh(MeshConfig(**mesh)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder of a run on a mesh of 2 x 2 devices, and its agents: moments of zeros take no bytes."""
    folder = tmp_path_factory.mktemp("run")
    state = learner(fsdp=2, tensor=2).init(0)
    random = np.random.default_rng(0)
    moments = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype, device=leaf.sharding),
        state.opt_state,
    )
    states = {name: state.replace(opt_state=moments) for name in ("failure", "target")}
    checkpoints = Checkpointer(folder / "checkpoints", owner=True)
    checkpoints.begin_save(0, states, {})
    checkpoints.finish_save(0)
    checkpoints.close()
    return folder, states


def bytes_read() -> int:
    """That this process has asked of files so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def by_load_agent(folder: Path, one: Learner) -> Any:
    return load_agent(folder, MANIFEST, "target", one).params


def by_reference(folder: Path, one: Learner) -> Any:
    checkpoints = Checkpointer(folder / "checkpoints")
    run: Any = SimpleNamespace(manifest=MANIFEST, checkpoints=checkpoints)
    world: Any = SimpleNamespace(learner=one)
    phase = Phase(kind="learn", name="round-01/learn_target", round=1, agent="target", index=4)
    try:
        agents = Agents(states={})
        return _reference_params(run, world, agents, phase, AgentConfig(reference="warm_start"))
    finally:
        checkpoints.close()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this platform does not count bytes read")
@pytest.mark.parametrize("read", [by_load_agent, by_reference])
@pytest.mark.parametrize("mesh", [{}, {"fsdp": 2, "tensor": 2}, {"data": 4}])
def test_parameters_are_read_without_the_moments_onto_any_mesh(stored, read, mesh):
    folder, states = stored
    wanted = states["target"].params
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(wanted))
    before = bytes_read()
    found = jax.block_until_ready(read(folder, learner(**mesh)))
    assert 0.8 * size < bytes_read() - before < 1.2 * size
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found)} == {4 if mesh else 1}


@pytest.mark.parametrize(
    ("model", "agent", "number"),
    [
        (MODEL.model_copy(update={"hidden_size": 64}), "target", 0),
        (MODEL.model_copy(update={"tie_embeddings": False}), "target", 0),
        (MODEL.model_copy(update={"qk_norm": False}), "target", 0),
        (MODEL, "nobody", 0),
        (MODEL, "target", 7),
    ],
)
def test_what_does_not_fit_is_refused_and_not_left_out(stored, model, agent, number):
    """Orbax' partial restore leaves out a parameter that the checkpoint or the model lacks."""
    checkpoints = Checkpointer(stored[0] / "checkpoints")
    try:
        with pytest.raises(ConfigError, match=rf"checkpoints/{number}: cannot be restored: "):
            checkpoints.restore_params(number, agent, learner(model).abstract().params)
    finally:
        checkpoints.close()


def test_a_save_that_fails_is_told_as_it_failed_and_keeps_no_process_from_ending(
    tmp_path, stored, monkeypatch
):
    """Orbax' threads wait ten minutes for those that broke; every later question gets the first answer."""
    checkpoints = Checkpointer(tmp_path / "checkpoints", owner=True)
    before = set(threading.enumerate())

    def forbidden(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "array_metadatas")

    monkeypatch.setattr("etils.epath.backend._OsPathBackend.makedirs", forbidden)
    for _ in range(2):
        with pytest.raises(PermissionError, match="Permission denied: 'array_metadatas'"):
            checkpoints.begin_save(0, stored[1], {})
            checkpoints.finish_save(0)
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)
