"""Bad paths of a task beside better ones that were played of it, too."""

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from coevo_jax.methods.material import Material
from coevo_jax.trajectory import SOLVED_REWARD, Trajectory

Alpha = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)]
ALPHA = (0.5, 0.7, 1.0)
BETA = 0.2


class BadPath(NamedTuple):
    """An episode, and the good ones of its task that are better by more than a gap, the best first."""

    path: Trajectory
    better: tuple[Trajectory, ...]


def bad_paths(material: Material, alpha: Sequence[float], beta: float) -> Iterator[BadPath]:
    """Every episode of a task beside which a good one was played, task by task."""
    for paths in paths_by_task(material).values():
        good = good_ones(paths, alpha, material.round)
        for bad in paths:
            better = [one for one in good if round(one.reward - bad.reward, 9) > beta]
            if better:
                yield BadPath(bad, tuple(sorted(better, key=lambda one: -one.reward)))


def good_ones(paths: Sequence[Trajectory], alpha: Sequence[float], round_number: int) -> list[Trajectory]:
    """Those with a reward above the round's threshold; a success always is good: 1 cannot be exceeded."""
    least = alpha[min(round_number, len(alpha)) - 1]
    return [one for one in paths if one.reward > least or one.reward >= SOLVED_REWARD]


def paths_by_task(material: Material) -> dict[str, list[Trajectory]]:
    """The finished episodes of all collections, by task, in their order; the same tokens stand once."""
    tasks: dict[str, dict[tuple[bytes, bytes], Trajectory]] = {}
    for played in material.played:
        for one in sorted(played, key=lambda one: (one.task_id, one.sample)):
            if one.finished and one.agent_mask.any():
                key = one.tokens.tobytes(), one.agent_mask.tobytes()
                tasks.setdefault(one.task_id, {}).setdefault(key, one)
    return {task_id: list(paths.values()) for task_id, paths in sorted(tasks.items())}


def shared_turns(one: Trajectory, other: Trajectory) -> int:
    """How many turns both begin with: the same text of the agent, with the same answer."""
    pairs = list(zip(one.turns, other.turns, strict=False))
    return next((turn for turn, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
