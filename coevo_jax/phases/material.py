"""What builders are given: the collections that a round's earlier phases played, and the experts."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from coevo_jax.config.check_recipe import source_options
from coevo_jax.config.options import of_round
from coevo_jax.config.recipe import AskOptions, BranchOptions, Source
from coevo_jax.config.recipe_queries import played_of
from coevo_jax.envs.env import Task, error_test, offer_test
from coevo_jax.methods.material import Material
from coevo_jax.methods.table import find_builder
from coevo_jax.methods.turns import turn_starts
from coevo_jax.phases.world import World, tasks_of
from coevo_jax.recipe import Phase, find_phase
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Trajectory

T = TypeVar("T")


def built(
    run: Run,
    world: World,
    phase: Phase,
    source: Source | BranchOptions | AskOptions,
    experts: Mapping[str, Trajectory],
    branches: Sequence[Trajectory] = (),
) -> Iterable[Any]:
    """What a builder makes of the collections that its source names, of the phase's round.

    Args:
      branches: what the phase itself has played, where it branches in iterations.
    """
    played = tuple(read_round(run, phase, name) for name in source.of)
    material = Material(
        played=played,
        experts=experts,
        chat=world.chat,
        is_error=error_test(world.env),
        offered=offer_test(world.env),
        system_prompt=world.env.system_prompt,
        seed=run.config.seed,
        phase=phase.name,
        round=phase.round,
        branches=branches,
    )
    return find_builder(*source.builder)(material, **source_options(source))


def read_round(run: Run, phase: Phase, name: str) -> list[Trajectory]:
    """The round's committed collection of a name: what one agent played in one phase, or what was judged."""
    played = played_of(run.config.recipe)[name]
    filling = find_phase(run.config, f"round-{phase.round:02d}/{played}")
    if filling.judging is not None:
        return _judged(run, filling)
    return read_collection(run.folder, run.manifest, filling, run.config.model.vocab_size)


def judgements_path(phase: Phase) -> Path:
    """Where a phase that judges writes what the discriminator thinks, inside the run's folder."""
    return Path("judgements") / f"round-{phase.round:02d}-{phase.collection}.json"


def _judged(run: Run, phase: Phase) -> list[Trajectory]:
    """The episodes that a phase judged, each with the discriminator's logit of its turns."""
    assert phase.judging is not None
    text = (run.folder / judgements_path(phase)).read_text(encoding="utf-8")
    found: dict[tuple[str, str, int], dict[int, float]] = {}
    for one in json.loads(text)["steps"]:
        own = found.setdefault((one["source"], one["task_id"], one["sample"]), {})
        own[one["turn"]] = one["logit"]
    return [
        replace(one, judged=tuple(logits.get(turn) for turn in range(len(turn_starts(one)))))
        for name in phase.judging.of
        for one in read_round(run, phase, name)
        for logits in [found.get((one.collection, one.task_id, one.sample), {})]
    ]


def built_on_tasks(
    run: Run,
    world: World,
    phase: Phase,
    source: BranchOptions | AskOptions,
    branches: Sequence[Trajectory] = (),
) -> tuple[dict[str, Task], Iterable[Any]]:
    """The tasks that the phase's round explores, by id, and what a builder makes of their experts."""
    tasks = explored_tasks(run, world, phase)
    experts = {task_id: world.experts[task_id] for task_id in tasks if task_id in world.experts}
    return tasks, built(run, world, phase, source, experts, branches)


def explored_tasks(run: Run, world: World, phase: Phase) -> dict[str, Task]:
    """The tasks that the phase's round explores, by id."""
    where = of_round(run.config.explore.tasks, phase.round)
    return {task.id: task for task in tasks_of(world.env, "train", where, "explore.tasks")}


def of_some_tasks(items: Sequence[T], task: Callable[[T], Task], size: int) -> list[list[T]]:
    """Parts that hold all items of `size` tasks, which stand together; an empty one if there is none."""
    groups = [list(own) for _, own in groupby(items, key=lambda item: task(item).id)]
    parts = [groups[start : start + size] for start in range(0, len(groups), size)] or [[]]
    return [[item for own in part for item in own] for part in parts]
