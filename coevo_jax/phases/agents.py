"""Where both agents' states come from: a random start, the end of the warm start, or a checkpoint.

Random weights come from the run's seed; with `model.path` all begins with a Hugging Face checkpoint. Where
the agents are adapters, the base they share is held once. A full warm start makes it; otherwise it is the
initial model, which is made again until the warm start's checkpoint holds it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.train_state import Learner, TrainState
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.transformer import Params
from coevo_jax.phases.world import World
from coevo_jax.run_folder.checkpoint import BASE, Checkpointer
from coevo_jax.run_folder.manifest import Manifest, checkpoint_root
from coevo_jax.run_folder.run import Run


def restore_agents(run: Run, world: World) -> None:
    """Fill `run.agents` and `run.frozen` from the last commit, or with the target agent a run begins with."""
    number, warm_started = run.manifest.checkpoint, run.manifest.record("warm_start") is not None
    learner = world.learner if warm_started else world.warm_learner
    if run.manifest.base is not None:
        run.frozen = restore_base(run.checkpoints, run.manifest.base, learner)
    elif learner.frozen_shardings:
        run.frozen = _initial_base(run.config, learner)
    if number is None:
        run.agents["target"] = _initial_agent(run.config, learner)
    else:
        both = warm_started and run.config.failure.explore
        # A run that was forked may begin with the checkpoint of a run that has another number of agents.
        agents = [name for name in run.checkpoints.agents(number) if both or name == "target"]
        run.agents |= run.checkpoints.restore(number, dict.fromkeys(agents, learner.abstract()))
        if both and "failure" not in agents:
            run.agents["failure"] = _copy_of(run.agents["target"], learner)


def _initial_base(config: Config, learner: Learner) -> Params:
    """What adapters adapt: a checkpoint, or random weights."""
    if config.model.path is None:
        return learner.init_frozen(config.seed)
    return load_params(Path(config.model.path), config.model, learner.abstract_frozen())


def _initial_agent(config: Config, learner: Learner) -> TrainState:
    """Fresh adapters, a checkpoint, or random weights."""
    if config.model.path is None or learner.frozen_shardings:
        return learner.init(config.seed)
    params = load_params(Path(config.model.path), config.model, learner.abstract().params)
    return learner.fresh(params, 0)


def restore_base(checkpoints: Checkpointer, number: int, learner: Learner) -> Params:
    """The frozen parameters that a checkpoint holds."""
    return checkpoints.restore(number, {BASE: learner.abstract_frozen()})[BASE]


def leave_warm_start(run: Run, world: World) -> None:
    """What the rounds begin with: a full warm start becomes the base of fresh adapters; both agents agree."""
    trained = run.agents["target"]
    if world.learner.frozen_shardings and not world.warm_learner.frozen_shardings:
        run.frozen = trained.params
        run.agents["target"] = replace(world.learner.init(run.config.seed), step=trained.step)
    if run.config.failure.explore:
        run.agents["failure"] = _copy_of(run.agents["target"], world.learner)


def _copy_of(state: TrainState, learner: Learner) -> TrainState:
    """A fresh state around a copy of the parameters: donated buffers are never shared between agents."""
    return learner.fresh(jax.tree.map(jnp.copy, state.params), int(state.step))


@dataclass(frozen=True, kw_only=True)
class StoredAgent:
    """An agent as the newest checkpoint of a run holds it."""

    checkpoint: int
    params: Params
    frozen: Params  # the base under its adapters; empty where `params` is all there is


def newest_agents(folder: Path, manifest: Manifest) -> int:
    """The checkpoint of a run's agents as they stand after its last commit.

    Raises:
      ConfigError: the warm start is not finished.
    """
    if manifest.checkpoint is None or manifest.record("warm_start") is None:
        raise ConfigError(f"{folder}: holds no trained agent yet (its warm start is not finished)")
    return manifest.checkpoint


def load_agent(folder: Path, manifest: Manifest, agent: str, learner: Learner) -> StoredAgent:
    """Read an agent of a stored run without touching the run.

    Raises:
      ConfigError: no warm start is finished, or there is no agent of that name.
    """
    number = newest_agents(folder, manifest)
    checkpoints = Checkpointer(checkpoint_root(folder, manifest))
    try:
        found = checkpoints.agents(number)
        if agent not in found:
            raise ConfigError(
                f"{folder}: checkpoint {number} holds no {agent} agent, only {', '.join(found)}"
            )
        state = checkpoints.restore(number, {agent: learner.abstract()})[agent]
        frozen = {} if manifest.base is None else restore_base(checkpoints, manifest.base, learner)
        return StoredAgent(checkpoint=number, params=state.params, frozen=frozen)
    finally:
        checkpoints.close()
