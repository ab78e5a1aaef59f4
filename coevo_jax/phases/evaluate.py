"""The evaluation of an agent: it plays held-out tasks greedily."""

import jax

from coevo_jax.learning.train_state import Agents
from coevo_jax.phases.adapt import adapt
from coevo_jax.phases.explore import roll_out, task_blocks
from coevo_jax.phases.world import (
    World,
    tasks_of,
)
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.run import Run
from coevo_jax.sampling.engine import Sampling


def evaluate(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Play an agent greedily on held-out tasks; its weights follow them where the recipe says so."""
    if phase.adapting is not None:
        return adapt(run, world, agents, phase)
    config, size = run.config.evaluate, run.config.explore.block_tasks
    tasks = tasks_of(world.env, config.split, config.tasks, "evaluate.tasks")
    sampling = Sampling(root=jax.random.key(run.config.seed), temperature=0.0)
    roll_out(run, world, agents, [phase], task_blocks(tasks, 1, size), sampling=sampling)
    return agents
