"""Play an agent of a stored run, without touching the run: what `launch.evaluate` does."""

import json
import re
from pathlib import Path
from typing import Any

from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.envs.env import error_test
from coevo_jax.episode_stats.summary import Summary, summarize
from coevo_jax.files import write_whole
from coevo_jax.phases.agents import load_agent, newest_agents
from coevo_jax.phases.world import build_world, tasks_of
from coevo_jax.progress import CONSOLE
from coevo_jax.rollout import play
from coevo_jax.rollout.placement import rollout_params
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import read_manifest, verify_files


def evaluate_stored(
    folder: Path, *, agent: str, split: str, tasks: str, temperature: float, samples: int
) -> tuple[Summary, Path]:
    """Play an agent's newest checkpoint on a split; greedy at temperature 0.

    Writes `evaluations/AGENT-SPLIT.json` and the trajectories beside it into the run's folder.

    Raises:
      ConfigError: not a run, a damaged one, no trained agent of that name, or an empty slice of tasks.
    """
    if not re.fullmatch(r"\d*:\d*", tasks):
        raise ConfigError(f"--tasks: found {tasks!r}, expected a slice START:STOP such as :100")
    manifest = read_manifest(folder)
    config = load_resolved(folder / CONFIG_FILE)
    verify_files(folder, manifest)
    newest_agents(folder, manifest)
    world = build_world(config, folder)
    try:
        selected = tasks_of(world.env, split, tasks, "--tasks")
        stored = load_agent(folder, manifest, agent, world.learner)
        trajectories, _ = play(
            world.engine,
            rollout_params(world.rollouts, stored.params, stored.frozen),
            world.pool,
            world.chat,
            selected,
            agent=agent,
            samples=samples,
            temperature=temperature,
            top_p=1.0,
            seed=config.seed,
            phase=0,
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
    path = folder / "evaluations" / f"{agent}-{split}.json"
    record: dict[str, Any] = {
        "agent": agent,
        "split": split,
        "slice": tasks,
        "temperature": temperature,
        "samples": samples,
        "checkpoint": stored.checkpoint,
        **summary,
    }
    write_trajectories(path.with_suffix(".parquet"), trajectories)
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return summary, path
