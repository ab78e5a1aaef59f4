"""Imitation of what led to success from the states of experts, without what did harm: EEF."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from coevo_jax.methods.branches import distinct
from coevo_jax.methods.material import Imitation, Material
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Trajectory


class _Solution(NamedTuple):
    """A success that begins with turns of the expert."""

    trajectory: Trajectory
    start: int  # the expert's turns that it begins with


def beneficial_segments(
    material: Material,
    *,
    solutions: Literal["shortest", "all"] = "shortest",
    experts: bool = True,
    beneficial: bool = True,
) -> Iterator[Imitation]:
    """Solutions from the important states of every explored task, without the expert's harmful actions.

    Exploring Expert Failures (EEF, arXiv 2504.13145, its simulation from middle states and its selection of
    important states). The agent was let play from the task's start and from states along its expert. A state
    from which it failed, though it succeeded from the one before, needs recovery: the expert's actions in
    between may do harm. Important are the start and the states that need recovery. What is imitated is a
    success through each of them: the agent's own from there, or from a later state of the expert.

    Turns that the agent played itself weigh 1. The expert's turns that lead into a state that needs recovery
    weigh 0, its other ones before a successful start are beneficial.

    Args:
      solutions: shortest takes of every important state the success with the fewest turns from there on, the
        agent's before the expert's; inferred. all takes every one.
      experts: what an expert played to success is a solution of every state of it, too, where its turns may
        be learned; inferred.
      beneficial: the expert's beneficial turns weigh 1; false leaves them at 0, so that only turns that the
        agent played itself are learned. The exact mask is inferred.
    """
    known: dict[str, list[Trajectory]] = {}
    for played in material.played:
        for one in distinct(played):
            if one.branch is None or one.branch.collection == "expert":
                known.setdefault(one.task_id, []).append(one)
    for task_id in sorted(known):
        tried, expert = known[task_id], material.expert(task_id)
        harmful = _harmful(tried)
        found = [_Solution(one, one.first_own_turn) for one in tried if one.success]
        if experts and beneficial and expert is not None and expert.success:
            found.append(_Solution(expert, len(turn_starts(expert))))
        for state in [0, *(stop for _, stop in harmful)]:
            through = [one for one in found if one.start >= state or state == 0]
            through.sort(key=lambda one: len(one.trajectory.turns))
            for one in through[:1] if solutions == "shortest" else through:
                yield Imitation(one.trajectory, _weights(one, harmful, beneficial))


def _harmful(tried: Sequence[Trajectory]) -> list[tuple[int, int]]:
    """The stretches of an expert's turns that lead from a successful state into one that needs recovery."""
    succeeded: dict[int, bool] = {}
    for one in tried:
        start = one.first_own_turn
        succeeded[start] = succeeded.get(start, False) or one.success
    return [
        (before, state)
        for before, state in pairwise(sorted(succeeded))
        if succeeded[before] and not succeeded[state]
    ]


def _weights(
    solution: _Solution, harmful: Sequence[tuple[int, int]], beneficial: bool
) -> tuple[float, ...] | None:
    def weight(turn: int) -> float:
        if turn >= solution.start:
            return 1.0
        harms = any(start <= turn < stop for start, stop in harmful)
        return float(beneficial and not harms)

    return tuple(weight(turn) for turn in range(len(turn_starts(solution.trajectory))))
