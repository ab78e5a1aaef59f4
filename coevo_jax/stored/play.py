"""Play one episode of a stored agent, and let somebody watch."""

from collections.abc import Callable
from pathlib import Path

from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError, closest
from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.envs.env import Env, Task
from coevo_jax.phases.agents import load_agent, newest_checkpoint
from coevo_jax.phases.world import build_world
from coevo_jax.rollout import play
from coevo_jax.rollout.lane import Episode
from coevo_jax.rollout.placement import rollout_weights
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import read_manifest, verify_files
from coevo_jax.stored.evaluate import on_this_machine
from coevo_jax.stored.marks import used_mark
from coevo_jax.trajectory import Trajectory


def play_stored(
    folder: Path,
    *,
    agent: str,
    split: str,
    task: str,
    temperature: float,
    seed: int | None,
    mark: str | None = None,
    watch: Callable[[Episode, ChatFormat], None],
) -> Trajectory:
    """Play one task with an agent's newest checkpoint; writes nothing.

    Args:
      agent: by the recipe's name.
      task: its number in the split, or its id.
      mark: that the task is played under; "" plays without, None takes the recipe's.
      watch: as in `rollout.play`, and the format that the agent's tokens are of.

    Raises:
      ConfigError: not a run, a damaged one, no trained agent of that name, no such task, or a mark that the
        chat format cannot hold.
    """
    manifest = read_manifest(folder)
    config = load_resolved(folder / CONFIG_FILE)
    verify_files(folder, manifest)
    newest_checkpoint(folder, manifest, agent)
    mark = used_mark(folder, config, agent, mark)
    config = on_this_machine(config)
    alone = config.rollout.model_copy(update={"slots": 1})
    world = build_world(config.model_copy(update={"rollout": alone}), folder)
    try:
        selected = find_task(world.env, split, task)
        stored = load_agent(folder, manifest, agent, world.learner)
        copy, adapters = rollout_weights(world.rollouts, stored.frozen, [stored.params])
        [trajectory], _ = play(
            world.engine,
            copy,
            world.pool,
            world.chat,
            [selected],
            adapters=adapters,
            agent=agent,
            samples=1,
            temperature=temperature,
            seed=config.seed if seed is None else seed,
            phase=0,
            mark=mark,
            watch=lambda episode: watch(episode, world.chat),
        )
    finally:
        world.close()
    return trajectory


def find_task(env: Env, split: str, task: str) -> Task:
    """The task of a number or an id.

    Raises:
      ConfigError: the split has none.
    """
    tasks = env.tasks(split)
    if task.isdecimal():
        if int(task) < len(tasks):
            return tasks[int(task)]
        many = f"{env.name}'s {split} split has {len(tasks)} tasks"
        raise ConfigError(f"--task: found {task}, but {many}, counted from 0")
    found = next((one for one in tasks if one.id == task), None)
    if found is None:
        near = closest(task, [one.id for one in tasks])
        raise ConfigError(f"--task: {env.name}'s {split} split has no task {task!r}{near}")
    return found
