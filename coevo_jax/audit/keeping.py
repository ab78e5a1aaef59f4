"""Which of too many pairs are kept: by the gap of their rewards, by a lot, and under a budget evenly.

The lot of a pair is the SHA-256 of "seed/kind/task/chosen/rejected" in hexadecimal digits, with the run's
seed and "agent-sample" for a side, "agent-sample-from-turn" where it counts from a later turn than the first;
the smallest lots are kept. Pairs that come alike stay in their order.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from coevo_jax.audit.sides import Pair, Side

Order = Callable[[Iterable[Pair]], list[Pair]]


def rank(by: str, seed: int) -> Callable[[Pair], Any]:
    """What pairs are sorted by, those that are kept first.

    Args:
      by: largest_gap, smallest_gap or drawn.
      seed: of the run.
    """
    if by == "drawn":
        return lambda pair: lot(seed, pair)
    sign = {"largest_gap": -1, "smallest_gap": 1}[by]
    return lambda pair: sign * pair.gap


def lot(seed: int, pair: Pair) -> str:
    """The number that is drawn for a pair."""

    def name(side: Side, first: int) -> str:
        return f"{side.episode.agent}-{side.episode.sample}{f'-from-{first}' * bool(first)}"

    sides = name(pair.chosen, pair.chosen_from), name(pair.rejected, pair.rejected_from)
    words = f"{seed}/{pair.kind}/{pair.chosen.episode.task_id}/{'/'.join(sides)}"
    return hashlib.sha256(words.encode()).hexdigest()


def order(by: str, seed: int) -> Order:
    """The order in which pairs of a task are kept."""
    return lambda pairs: sorted(pairs, key=rank(by, seed))


def spread(pairs: Sequence[Pair], usable: Sequence[int], count: int, by: str, seed: int) -> list[Pair]:
    """So many of the usable pairs: the first of every task, then the second ones, until there are enough.

    Of the last ones some are left out: those behind the others in the order of all pairs. Pairs stay in their
    places.
    """
    key = rank(by, seed)
    tasks: dict[str, list[int]] = defaultdict(list)
    for number in sorted(usable, key=lambda number: (key(pairs[number]), number)):
        tasks[pairs[number].chosen.episode.task_id].append(number)
    kept: list[int] = []
    for turn in range(max(map(len, tasks.values()), default=0)):
        own = [numbers[turn] for numbers in tasks.values() if turn < len(numbers)]
        own.sort(key=lambda number: (key(pairs[number]), number))
        kept += own[: count - len(kept)]
    return [pairs[number] for number in sorted(kept)]
