"""Branching: an agent plays on from the middle of episodes, whose first turns are played again."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from coevo_jax.config.recipe import BranchOptions
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs.env import Task
from coevo_jax.learning.train_state import Agents
from coevo_jax.methods.material import Material
from coevo_jax.methods.points import Point
from coevo_jax.methods.tree import search_trees, tree_counts
from coevo_jax.methods.turns import turn_starts
from coevo_jax.phases.explore import Finish, Share, block_paths, exploring, finish_roll_out, roll_out
from coevo_jax.phases.material import built_on_tasks, explored_tasks, of_some_tasks, read_round
from coevo_jax.phases.world import World
from coevo_jax.recipe import Phase
from coevo_jax.rollout import BranchPoint, BranchSet
from coevo_jax.rollout.replay import Start
from coevo_jax.run_folder.budget import Budget
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Branch, Trajectory


@dataclass(frozen=True, kw_only=True)
class PointBlock:
    """The branches played between two commits: all samples from the points of some tasks."""

    points: Sequence[BranchPoint]
    samples: int
    turns: int | None

    def cast(self, share: Share, phase: Phase, weights: Any, adapter: int) -> BranchSet:
        """The episodes of a process by an agent; all samples of a point are one process's."""
        return BranchSet(
            agent=phase.agent,
            weights=weights,
            adapter=adapter,
            points=share(self.points),
            samples=self.samples,
            turns=self.turns,
            phase=phase.index,
        )


@dataclass(frozen=True, kw_only=True)
class SearchBlock:
    """Branches of some tasks in one iteration; where they begin is known once the one before is played."""

    iteration: int
    tasks: frozenset[str]
    points: Callable[[int], Sequence[BranchPoint]]  # of an iteration, those of all tasks
    samples: int
    turns: int | None

    def cast(self, share: Share, phase: Phase, weights: Any, adapter: int) -> BranchSet:
        """The episodes of a process by an agent; all samples of a point are one process's."""
        points = [point for point in self.points(self.iteration) if point.task.id in self.tasks]
        block = PointBlock(points=points, samples=self.samples, turns=self.turns)
        return block.cast(share, phase, weights, adapter)


def branch(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Let an agent play on from the points that the recipe's builder chooses in the round's episodes.

    Points are a function of committed collections, and in later iterations of the committed blocks of the
    earlier ones, so a phase that goes on finds the same ones.
    """
    options = phase.branching
    assert options is not None  # a phase that branches has them
    sampling = exploring(run, options.temperature)
    if options.iterations > 1:
        blocks = search_blocks(run, world, phase, options)
        finish = _finish_search(options)
        roll_out(run, world, agents, [phase], blocks, sampling=sampling, by_server=True, finish=finish)
        return agents
    tasks, chosen = built_on_tasks(run, world, phase, options)
    points = branch_points(chosen, tasks, world.chat, options, phase.name)
    known = {"points": len(points), "points_by_turn": _by_turn(point.start.branch.turns for point in points)}
    roll_out(
        run,
        world,
        agents,
        [phase],
        point_blocks(points, options, run.config.explore.block_tasks),
        sampling=sampling,
        by_server=True,
        known=known,
    )
    return agents


def search_blocks(run: Run, world: World, phase: Phase, options: BranchOptions) -> list[SearchBlock]:
    """Blocks of all tasks in one iteration, then of the next one: as many as tasks give, whatever the points.

    The points of an iteration are chosen for all tasks at once, of what was committed in those before it.
    """
    ids = sorted(explored_tasks(run, world, phase))
    size = run.config.explore.block_tasks
    parts = [frozenset(ids[start : start + size]) for start in range(0, len(ids), size)] or [frozenset()]
    paths = block_paths(run, phase, options.iterations * len(parts))

    @lru_cache(maxsize=1)  # the blocks of an iteration follow each other
    def points(iteration: int) -> list[BranchPoint]:
        branches = read_branches(paths[: iteration * len(parts)], phase)
        tasks, chosen = built_on_tasks(run, world, phase, options, branches)
        played = Counter(branch.task_id for branch in branches)
        return branch_points(chosen, tasks, world.chat, options, phase.name, played)

    return [
        SearchBlock(
            iteration=iteration, tasks=part, points=points, samples=options.samples, turns=options.turns
        )
        for iteration in range(options.iterations)
        for part in parts
    ]


def read_branches(paths: Sequence[Path], phase: Phase) -> list[Trajectory]:
    """What a phase that is not finished has played so far, under the name of its collection."""
    return [replace(one, collection=phase.collection) for one in read_trajectories(list(paths))]


def branch_points(
    chosen: Iterable[Point],
    tasks: Mapping[str, Task],
    chat: ChatFormat,
    options: BranchOptions,
    where: str,
    before: Mapping[str, int] | None = None,
) -> list[BranchPoint]:
    """The points in the order of tasks, each with the numbers of its samples among its task's.

    Args:
      before: how many of each task earlier iterations have played.

    Raises:
      ConfigError: a point lies outside of its episode, or in one of a task that the round does not play.
    """
    points: list[BranchPoint] = []
    played: Counter[str] = Counter(before)
    for point in sorted(chosen, key=lambda point: point.trajectory.task_id):
        one = point.trajectory
        name = f"{one.collection or one.agent}/{one.task_id}/{one.sample}"
        starts = turn_starts(one)
        if not 0 <= point.turn < len(starts):
            raise ConfigError(
                f"{where}: {options.at}: found a point before turn {point.turn} of {name}, expected one of "
                f"its {len(starts)} turns, counted from 0"
            )
        if one.task_id not in tasks:
            raise ConfigError(f"{where}: {options.at}: {name} is of no task that the round explores")
        branch = Branch(
            collection=one.collection or one.agent,
            sample=one.sample,
            turns=point.turn,
            tokens=int(starts[point.turn]),
        )
        response = None if point.response is None else tuple(chat.response_ids(point.response))
        start = Start(trajectory=one, branch=branch, response=response)
        points.append(BranchPoint(task=tasks[one.task_id], start=start, first_sample=played[one.task_id]))
        played[one.task_id] += options.samples
    return points


def point_blocks(points: Sequence[BranchPoint], options: BranchOptions, size: int) -> list[PointBlock]:
    """Blocks that hold all points of `size` tasks; one without any where there are no points."""
    parts = of_some_tasks(points, lambda point: point.task, size)
    return [PointBlock(points=part, samples=options.samples, turns=options.turns) for part in parts]


def _finish_search(options: BranchOptions) -> Finish:
    """The end of a search: what it played is counted, points and trees too."""

    def finish(
        run: Run,
        world: World,
        agents: Agents,
        phase: Phase,
        record: PhaseRecord,
        shards: Sequence[Path],
        others: Sequence[Path],
        budget: Budget,
    ) -> None:
        counts = run.processes.once("searched", lambda: _searched(run, phase, options, shards))
        record = replace(record, records=record.records | counts)
        finish_roll_out(run, world, agents, phase, record, shards, others, budget)

    return finish


def _searched(run: Run, phase: Phase, options: BranchOptions, shards: Sequence[Path]) -> dict[str, Any]:
    """The points, by the turn before which they lie, and the size of the trees."""
    branches = read_branches(shards, phase)
    turns = [branch.first_own_turn for branch in branches[:: options.samples]]  # a point's samples are alike
    played = tuple(read_round(run, phase, name) for name in options.of)
    trees = search_trees(Material(played=played, experts={}, branches=branches))
    return {"points": len(turns), "points_by_turn": _by_turn(turns), "trees": tree_counts(trees)}


def _by_turn(turns: Iterable[int]) -> dict[str, int]:
    counts = Counter(turns)
    return {str(turn): counts[turn] for turn in sorted(counts)}
