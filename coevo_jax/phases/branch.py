"""Branching: an agent plays on from the middle of episodes, whose first turns are played again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coevo_jax.config.recipe import BranchOptions
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.envs.env import Task
from coevo_jax.learning.train_state import Agents
from coevo_jax.methods.points import Point
from coevo_jax.methods.turns import turn_starts
from coevo_jax.phases.explore import Share, exploring, roll_out
from coevo_jax.phases.material import built_on_tasks, of_some_tasks
from coevo_jax.phases.world import World
from coevo_jax.recipe import Phase
from coevo_jax.rollout import BranchPoint, BranchSet
from coevo_jax.rollout.replay import Start
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Branch


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


def branch(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Let an agent play on from the points that the recipe's builder chooses in the round's episodes.

    Points are a function of committed collections, so a phase that goes on finds the same ones.
    """
    config, options = run.config.explore, phase.branching
    assert options is not None  # a phase that branches has them
    tasks, chosen = built_on_tasks(run, world, phase, options)
    points = branch_points(chosen, tasks, world.chat, options, phase.name)
    blocks = point_blocks(points, options, config.block_tasks)
    sampling = exploring(run, options.temperature)
    known = {"points": len(points), "points_by_turn": _by_turn(points)}
    roll_out(run, world, agents, [phase], blocks, sampling=sampling, by_server=True, known=known)
    return agents


def branch_points(
    chosen: Iterable[Point], tasks: Mapping[str, Task], chat: ChatFormat, options: BranchOptions, where: str
) -> list[BranchPoint]:
    """The points in the order of tasks, each with the numbers of its samples among its task's.

    Raises:
      ConfigError: a point lies outside of its episode, or in one of a task that the round does not play.
    """
    points: list[BranchPoint] = []
    played: Counter[str] = Counter()
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


def _by_turn(points: Sequence[BranchPoint]) -> dict[str, int]:
    counts = Counter(point.start.branch.turns for point in points)
    return {str(turn): counts[turn] for turn in sorted(counts)}
