"""Points in the middle of episodes, from which an agent plays on: where a branching phase leaves an episode.

A point before turn k (counted from 0) replays the turns before k; the agent plays turn k itself.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coevo_jax.methods.branches import distinct
from coevo_jax.methods.material import Material
from coevo_jax.methods.ranges import Count, Turn
from coevo_jax.trajectory import Trajectory


class Point(NamedTuple):
    """A state of an episode, named by the turn that was played there."""

    trajectory: Trajectory
    turn: int  # the first one that is not played again; at most the number of turns
    response: str | None = None  # written at that turn instead of what the agent would write


def expert_turns(material: Material, *, count: Count | None = None, first: Turn = 0) -> Iterator[Point]:
    """The states along the experts of the round's tasks.

    With `count` M these are the M equally spaced ones of Exploring Expert Failures (arXiv 2504.13145): turns
    l, 2l, ..., Ml with l = floor(turns / (M + 1)), each once; without, all of them, as in IPR
    (arXiv 2406.11176, section 3.2), StepAgent (arXiv 2411.03817) and Early Experience (arXiv 2510.08558).

    Args:
      count: number of states of each expert; null takes every one.
      first: states before this turn are left out; 1 leaves out the task's start.
    """
    for task_id in sorted(material.experts):
        expert = material.expert(task_id)
        if expert is not None:
            for turn in _spaced(len(expert.turns), count):
                if turn >= first:
                    yield Point(expert, turn)


def failed_turns(material: Material, *, count: Count | None = None, first: Turn = 0) -> Iterator[Point]:
    """The states along what agents played and failed, where another action might have led to success.

    Candidate steps of Verified Critical Step Optimization (arXiv 2602.03412). Which steps are tried is ours:
    all, or `count` equally spaced ones.

    Args:
      count: number of states of each failure; null takes every one.
      first: states before this turn are left out.
    """
    for failure in _played(material):
        if failure.failure:
            for turn in _spaced(len(failure.turns), count):
                if turn >= max(first, failure.first_own_turn):
                    yield Point(failure, turn)


def turn_ends(material: Material, *, experts: bool = True, first: Turn = 0) -> Iterator[Point]:
    """The states after each turn that does not end its episode, and after the first own turn of a branch.

    What a scorer that plays on from there reaches is the turn's value (IPR, arXiv 2406.11176, section 3.2):
    of every turn of the experts, and of the turn by which a branch of them differs.

    Args:
      experts: the turns of the experts, too.
      first: the ends of turns before this one are left out.
    """
    for task_id in sorted(material.experts) if experts else ():
        expert = material.expert(task_id)
        if expert is not None:
            for turn in range(first + 1, len(expert.turns)):
                yield Point(expert, turn)
    for branch in _played(material):
        after = branch.first_own_turn + 1
        if first < after < len(branch.turns):
            yield Point(branch, after)


def _spaced(turns: int, count: int | None) -> Sequence[int]:
    """Turns l, 2l, ..., of which there are `count`; all turns without a count."""
    if count is None:
        return range(turns)
    step = turns // (count + 1)
    return tuple(range(step, step * count + 1, step)) if step else tuple(range(1, turns))[:count]


def _played(material: Material) -> Iterator[Trajectory]:
    """Every trajectory of the collections once, in the order of tasks.

    A branch whose tokens another branch has as well stands for a state of its own.
    """
    for played in material.played:
        yield from distinct(played)
