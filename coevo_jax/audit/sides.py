"""A pair's sides: trajectories or their beginnings, by the tokens they have."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np

from coevo_jax.audit.reading import Episode

Key = tuple[str, bytes]  # of a side
Turns = tuple[float, ...] | None  # weights; None is 1 each


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """A trajectory, or its beginning, in a pair."""

    source: str  # "expert", or the collection it was played in
    episode: Episode
    length: int  # tokens, after the cut
    mark: str = ""  # that its prompt is under

    @cached_property
    def key(self) -> Key:
        """Sides of a task with the same tokens, of which the same are the agent's, are the same side.

        The task, and a digest of both.
        """
        arrays = (self.episode.tokens, self.episode.agent_mask)
        content = b"".join(array[: self.length].tobytes() for array in arrays)
        return self.episode.task_id, blake2b(content).digest()

    @property
    def turns(self) -> int:
        return int(np.sum(self.episode.run_ends <= self.length))


@dataclass(frozen=True, kw_only=True, eq=False)
class Imitated:
    """A side that is imitated without a pair, and the weight of each of its turns; None is 1 each."""

    side: Side
    turns: Turns = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A chosen and a rejected side, and the kind of pair they are."""

    kind: str
    chosen: Side
    rejected: Side
    chosen_from: int = 0  # the first turn whose tokens count
    rejected_from: int = 0
    rejected_turns: Turns = None  # weights

    @property
    def key(self) -> tuple[Key, Key, int, int, Turns]:
        """Pairs of the same sides that count from the same turns on, and weigh them alike, are the same."""
        return (self.chosen.key, self.rejected.key, self.chosen_from, self.rejected_from, self.rejected_turns)

    @property
    def gap(self) -> float:
        """Rounded, so that 0.8 over 0.5 and 0.5 over 0.2 are the same gap."""
        return round(self.chosen.episode.reward - self.rejected.episode.reward, 9)


def weights_of_turns(turns: Turns, left: int) -> Turns:
    """The weights of the turns that are left after a cut, None where each of them is 1."""
    kept = () if turns is None else tuple(float(weight) for weight in turns[:left])
    return kept if any(weight != 1 for weight in kept) else None


def cut(side: Side, turns: int) -> Side:
    """The side up to the end of its first `turns` turns."""
    ends = side.episode.run_ends
    length = side.length if turns >= len(ends) else int(ends[turns - 1]) if turns else 0
    return replace(side, length=min(length, side.length))


def by_task(sides: Iterable[Side]) -> dict[str, list[Side]]:
    """What can teach, by task and in the order of samples: no fault, no silence, no tokens twice."""
    groups: dict[str, dict[bytes, Side]] = {}
    for side in sorted(sides, key=lambda s: (s.episode.task_id, s.episode.agent, s.episode.sample)):
        if side.episode.finished and len(side.episode.run_ends):
            groups.setdefault(side.key[0], {}).setdefault(side.key[1], side)
    return {task: list(group.values()) for task, group in groups.items()}
