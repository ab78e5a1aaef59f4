"""Play an agent of a stored run, without touching the run: what `launch.evaluate` does."""

import json
import math
import re
from pathlib import Path
from typing import Any

import jax

from coevo_jax.config.options import Config, MeshConfig
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.envs.env import error_test
from coevo_jax.episode_stats.summary import Summary, summarize
from coevo_jax.files import require_writable, write_whole
from coevo_jax.phases.agents import load_agent, newest_checkpoint
from coevo_jax.phases.world import build_world, tasks_of
from coevo_jax.progress import CONSOLE
from coevo_jax.rollout import play
from coevo_jax.rollout.placement import rollout_weights
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import read_manifest, verify_files
from coevo_jax.stored.marks import mark_suffix, used_mark


def on_this_machine(config: Config) -> Config:
    """The config of a run with a mesh for the devices here, where these are fewer than its own has.

    Parameters are then split over the devices that a roll-out copy is split over, and no more.
    """
    mesh, here = config.mesh, jax.device_count()
    needed = mesh.data * mesh.fsdp * mesh.tensor
    if needed <= here:
        return config
    shared = math.gcd(config.rollout.tensor, here)
    CONSOLE.print(f"the run's mesh has {needed} devices, this machine {here}: played on {shared}")
    rollout = config.rollout.model_copy(update={"tensor": shared})
    return config.model_copy(update={"mesh": MeshConfig(tensor=shared), "rollout": rollout})


def evaluate_stored(
    folder: Path,
    *,
    agent: str,
    split: str,
    tasks: str,
    temperature: float,
    samples: int,
    mark: str | None = None,
) -> tuple[Summary, Path]:
    """Play an agent's newest checkpoint on a split; greedy at temperature 0.

    Writes `evaluations/AGENT-SPLIT.json` and the trajectories beside it into the run's folder; under another
    mark than the recipe's, AGENT-SPLIT-NAME by the recipe's evaluation under it, else by the mark.

    Args:
      mark: that the tasks are played under; "" plays without, None takes the recipe's.

    Raises:
      ConfigError: not a run, a damaged one, no trained agent of that name, an empty slice of tasks, or a mark
        that the chat format cannot hold.
    """
    if not re.fullmatch(r"\d*:\d*", tasks):
        raise ConfigError(f"--tasks: found {tasks!r}, expected a slice START:STOP such as :100")
    manifest = read_manifest(folder)
    config = load_resolved(folder / CONFIG_FILE)
    verify_files(folder, manifest)
    newest_checkpoint(folder, manifest, agent)
    mark = used_mark(folder, config, agent, mark)
    path = folder / "evaluations" / f"{agent}-{split}{mark_suffix(config, agent, mark)}.json"
    require_writable(path)
    config = on_this_machine(config)
    world = build_world(config, folder)
    try:
        selected = tasks_of(world.env, split, tasks, "--tasks")
        stored = load_agent(folder, manifest, agent, world.learner)
        copy, adapters = rollout_weights(world.rollouts, stored.frozen, [stored.params])
        trajectories, _ = play(
            world.engine,
            copy,
            world.pool,
            world.chat,
            selected,
            adapters=adapters,
            agent=agent,
            samples=samples,
            temperature=temperature,
            top_p=1.0,
            seed=config.seed,
            phase=0,
            mark=mark,
            progress=CONSOLE,
            label=f"{agent} agent, {split} split",
        )
    finally:
        world.close()
    threshold = config.evaluate.hard_negative_threshold
    summary = summarize(
        trajectories,
        hard_negative_threshold=threshold,
        seed=config.seed,
        is_error=error_test(world.env),
    )
    record: dict[str, Any] = {
        "agent": agent,
        "split": split,
        "slice": tasks,
        "temperature": temperature,
        "samples": samples,
        "mark": mark,
        "checkpoint": stored.checkpoint,
        **summary,
    }
    write_trajectories(path.with_suffix(".parquet"), trajectories)
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return summary, path
