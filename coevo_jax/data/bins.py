"""Bin packing: which groups share a microbatch, and in which of its rows their parts lie.

Only sizes are known here. A group's parts lie in any rows, but all in one microbatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Groups among which a microbatch chooses: more leave less padding, fewer keep more of the shuffle.
WINDOW = 256


@dataclass(frozen=True, kw_only=True)
class Part:
    """What lies in one row."""

    size: int  # tokens
    views: int


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What lies in one microbatch."""

    parts: tuple[Part, ...]
    pairs: int

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a microbatch holds."""

    rows: int
    tokens: int  # of a row
    views: int  # of a row
    pairs: int  # of the microbatch


# Bundles of a microbatch by their index, each with the row of each of its parts.
Filling = list[tuple[int, tuple[int, ...]]]


class _Room:
    """What is left of a microbatch while it is filled."""

    def __init__(self, shape: Shape):
        self.tokens = [shape.tokens] * shape.rows
        self.views = [shape.views] * shape.rows
        self.pairs = shape.pairs

    def find(self, bundle: Bundle) -> tuple[int, ...] | None:
        """A row for each part, the largest first, each where it leaves least (best-fit decreasing)."""
        if bundle.pairs > self.pairs or bundle.size > sum(self.tokens):
            return None
        tokens, views = list(self.tokens), list(self.views)
        rows = [0] * len(bundle.parts)
        for i in sorted(range(len(rows)), key=lambda i: -bundle.parts[i].size):
            part = bundle.parts[i]
            fitting = [r for r in range(len(tokens)) if tokens[r] >= part.size and views[r] >= part.views]
            if not fitting:
                return None
            rows[i] = min(fitting, key=lambda r: tokens[r])
            tokens[rows[i]] -= part.size
            views[rows[i]] -= part.views
        return tuple(rows)

    def take(self, bundle: Bundle, rows: tuple[int, ...]) -> None:
        for part, row in zip(bundle.parts, rows, strict=True):
            self.tokens[row] -= part.size
            self.views[row] -= part.views
        self.pairs -= bundle.pairs


def fits(bundle: Bundle, shape: Shape) -> bool:
    """Whether a microbatch holds the bundle."""
    return _Room(shape).find(bundle) is not None


def assemble(bundles: Sequence[Bundle], shape: Shape) -> list[Filling]:
    """Lay bundles, each of which fits, into microbatches; the first of the rest begins the next one."""
    waiting = list(range(len(bundles)))
    fillings = []
    while waiting:
        filling = _fill(bundles, waiting[:WINDOW], shape)
        fillings.append(filling)
        taken = {index for index, _ in filling}
        waiting = [index for index in waiting if index not in taken]
    return fillings


def _fill(bundles: Sequence[Bundle], window: list[int], shape: Shape) -> Filling:
    """Fill one microbatch: place one bundle, fill its rows as well as the others can, place the next."""
    room, filling, left = _Room(shape), Filling(), list(window)
    while True:
        found = next(((i, rows) for i in left if (rows := room.find(bundles[i])) is not None), None)
        if found is None:
            return filling
        room.take(bundles[found[0]], found[1])
        filling.append(found)
        left.remove(found[0])
        for row in sorted(set(found[1])):
            for index in _top_up(bundles, left, room, row):
                room.take(bundles[index], (row,))
                filling.append((index, (row,)))
                left.remove(index)


def _top_up(bundles: Sequence[Bundle], left: list[int], room: _Room, row: int) -> list[int]:
    """Those bundles of one part that fill a row best."""
    small = [i for i in left if len(bundles[i].parts) == 1 and bundles[i].size <= room.tokens[row]]
    parts = [bundles[i].parts[0] for i in small]
    chosen = [small[k] for k in best_subset(parts, room.tokens[row], room.views[row])]
    while sum(bundles[i].pairs for i in chosen) > room.pairs:
        chosen.pop()
    return chosen


def best_subset(parts: Sequence[Part], room: int, views: int) -> list[int]:
    """Indices of parts with at most `views` views whose sizes add up closest to `room`, never beyond it.

    Subset sum by dynamic programming; bit s of reachable[i][v] says that some of the first i parts have v
    views and s tokens.
    """
    within = (1 << (room + 1)) - 1
    reachable = [[1] + [0] * views]
    for part in parts:
        last = reachable[-1]
        added = [0] * part.views + [sums << part.size & within for sums in last]
        reachable.append([sums | more for sums, more in zip(last, added, strict=False)])
    total, count = max((sums.bit_length() - 1, -v) for v, sums in enumerate(reachable[-1]))
    count = -count
    chosen = []
    for i in range(len(parts) - 1, -1, -1):
        if not reachable[i][count] >> total & 1:
            chosen.append(i)
            total -= parts[i].size
            count -= parts[i].views
    return chosen[::-1]
