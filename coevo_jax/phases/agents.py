"""Where the agents' states come from: a random start, the end of the warm start, or a checkpoint.

Random weights come from the run's seed; with `model.path` all begins with a Hugging Face checkpoint. Where
the agents are adapters, the base they share is held once. A full warm start makes it; otherwise it is the
initial model, which is made again until the warm start's checkpoint holds it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp

from coevo_jax.config.options import Config
from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.judge import Judging
from coevo_jax.learning.train_state import Agents, Learner, TrainState
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.transformer import Params
from coevo_jax.phases.world import World
from coevo_jax.run_folder.checkpoint import BASE, JUDGE, WEAK, Checkpointer, stored_agents
from coevo_jax.run_folder.intact import require_checkpoint
from coevo_jax.run_folder.manifest import Manifest, checkpoint_root
from coevo_jax.run_folder.run import Run


def restore_agents(run: Run, world: World) -> Agents:
    """All agents as of the last commit, or the one that the warm start trains."""
    number, warm_started = run.manifest.checkpoint, run.manifest.record("warm_start") is not None
    learner = world.learner if warm_started else world.warm_learner
    frozen: Params = {}
    if run.manifest.base is not None:
        frozen = restore_base(run.checkpoints, run.manifest.base, learner)
    elif learner.frozen_shardings:
        frozen = _initial_base(run.config, learner)
    names = agents_of(run.config.recipe)
    if number is None:
        return Agents(states={names[0]: initial_agent(run.config, learner)}, frozen=frozen)
    if not warm_started:
        names = names[:1]
    found = run.checkpoints.agents(number)
    # A run that was forked may begin with the checkpoint of a run of another recipe, whose agents all agree.
    stored = [name for name in names if name in found] or [found[0]]
    beside = [WEAK] if run.checkpoints.has_weak(number) else []  # a learning under way trains it
    abstract = dict.fromkeys([*stored, *beside], learner.abstract())
    if world.judging is not None and run.checkpoints.has_judge(number):
        abstract[JUDGE] = world.judging.learner.abstract()
    states = run.checkpoints.restore(number, abstract)
    if names[0] not in states:
        states = {names[0]: states[stored[0]]}
    for name in names:
        if name not in states:
            states[name] = _copy_of(states[names[0]], learner)
    if world.judging is not None and JUDGE not in states and warm_started:
        states[JUDGE] = _new_judge(world.judging, states[names[0]])  # the warm start is another recipe's
    judge = [JUDGE] if JUDGE in states else []
    return Agents(states={name: states[name] for name in (*names, *beside, *judge)}, frozen=frozen)


def _initial_base(config: Config, learner: Learner) -> Params:
    """What adapters adapt: a checkpoint, or random weights."""
    if config.model.path is None:
        return learner.init_frozen(config.seed)
    return load_params(Path(config.model.path), config.model, learner.abstract_frozen(), kept=True)


def initial_agent(config: Config, learner: Learner) -> TrainState:
    """Fresh adapters, a checkpoint, or random weights: what the warm start begins with."""
    if config.model.path is None or learner.frozen_shardings:
        return learner.init(config.seed)
    params = load_params(Path(config.model.path), config.model, learner.abstract().params)
    return learner.fresh(params, 0)


def restore_base(checkpoints: Checkpointer, number: int, learner: Learner) -> Params:
    """The frozen parameters that a checkpoint holds."""
    return checkpoints.restore(number, {BASE: learner.abstract_frozen()})[BASE]


def leave_warm_start(run: Run, world: World, agents: Agents) -> Agents:
    """The agents that the rounds begin with: fresh adapters on a full warm start, and all agents equal."""
    lead, *others = agents_of(run.config.recipe)
    trained, frozen = agents[lead], agents.frozen
    if world.learner.frozen_shardings and not world.warm_learner.frozen_shardings:
        frozen = trained.params
        trained = replace(world.learner.init(run.config.seed), step=trained.step)
    copies = {name: _copy_of(trained, world.learner) for name in others}
    if world.judging is not None and run.config.rounds:
        copies[JUDGE] = _new_judge(world.judging, trained)
    return Agents(states={lead: trained, **copies}, frozen=frozen)


def _new_judge(judging: Judging, state: TrainState) -> TrainState:
    """The discriminator as it begins: around a copy of what the warm start trained."""
    return judging.learner.around(state.params, int(state.step))


def _copy_of(state: TrainState, learner: Learner) -> TrainState:
    """A fresh state around a copy of the parameters: donated buffers are never shared between agents."""
    return learner.fresh(jax.tree.map(jnp.copy, state.params), int(state.step))


@dataclass(frozen=True, kw_only=True)
class StoredAgent:
    """An agent as the newest checkpoint of a run holds it."""

    checkpoint: int
    params: Params
    frozen: Params  # the base under its adapters; empty where `params` is all there is


def newest_checkpoint(folder: Path, manifest: Manifest, agent: str) -> int:
    """The checkpoint of an agent as it stands after a run's last commit.

    Raises:
      ConfigError: no warm start is finished, or there is no agent of that name.
    """
    number = manifest.checkpoint
    if number is None or manifest.record("warm_start") is None:
        raise ConfigError(f"{folder}: holds no trained agent yet (its warm start is not finished)")
    found = stored_agents(checkpoint_root(folder, manifest) / str(number))
    if agent not in found:
        raise ConfigError(f"{folder}: checkpoint {number} holds no {agent} agent, only {', '.join(found)}")
    return number


def load_agent(folder: Path, manifest: Manifest, agent: str, learner: Learner) -> StoredAgent:
    """Read an agent of a stored run without touching the run.

    Raises:
      ConfigError: no warm start is finished, or there is no agent of that name.
    """
    number = newest_checkpoint(folder, manifest, agent)
    checkpoints = Checkpointer(
        checkpoint_root(folder, manifest), check=lambda number: require_checkpoint(folder, manifest, number)
    )
    try:
        params = checkpoints.restore_params(number, agent, learner.abstract().params)
        frozen = {} if manifest.base is None else restore_base(checkpoints, manifest.base, learner)
        return StoredAgent(checkpoint=number, params=params, frozen=frozen)
    finally:
        checkpoints.close()
