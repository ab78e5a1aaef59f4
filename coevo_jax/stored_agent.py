"""Play an agent of a stored run, without touching the run: what `launch.evaluate` does."""

import json
import re
from pathlib import Path
from typing import Any

import jax

from coevo_jax.checkpoint import Checkpointer, abstract_state
from coevo_jax.config import Config, ConfigError
from coevo_jax.config_io import load_config
from coevo_jax.data.buffer import write_trajectories
from coevo_jax.evaluation import Summary, summarize
from coevo_jax.files import write_whole
from coevo_jax.learning.train_state import init_state
from coevo_jax.manifest import read_manifest, verify_files
from coevo_jax.models.transformer import Params
from coevo_jax.progress import CONSOLE
from coevo_jax.rollout import play
from coevo_jax.run import CONFIG_FILE
from coevo_jax.world import World, build_world, rollout_params, tasks_of


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
    config = load_config(folder / CONFIG_FILE)
    verify_files(folder, manifest)
    if manifest.checkpoint is None or manifest.record("warm_start") is None:
        raise ConfigError(f"{folder}: holds no trained agent yet (its warm start is not finished)")
    world = build_world(config, folder)
    try:
        selected = tasks_of(world.env, split, tasks, "--tasks")
        params = _load_params(folder, manifest.checkpoint, agent, world, config)
        trajectories, _ = play(
            world.engine,
            rollout_params(params),
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
    summary = summarize(trajectories, hard_negative_threshold=threshold, seed=config.seed)
    path = folder / "evaluations" / f"{agent}-{split}.json"
    record: dict[str, Any] = {
        "agent": agent,
        "split": split,
        "tasks": tasks,
        "temperature": temperature,
        "samples": samples,
        "checkpoint": manifest.checkpoint,
        **summary,
    }
    write_trajectories(path.with_suffix(".parquet"), trajectories)
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return summary, path


def _load_params(folder: Path, number: int, agent: str, world: World, config: Config) -> Params:
    checkpoints = Checkpointer(folder / "checkpoints")
    try:
        found = checkpoints.agents(number)
        if agent not in found:
            raise ConfigError(
                f"{folder}: checkpoint {number} holds no {agent} agent, only {', '.join(found)}"
            )
        abstract = jax.eval_shape(
            lambda: init_state(world.model, world.optimizer, world.shardings, config.seed)
        )
        return checkpoints.restore(number, {agent: abstract_state(abstract, world.shardings)})[agent].params
    finally:
        checkpoints.close()
