"""Bin packing: which groups share a microbatch, and in which of its rows their parts lie.

Only sizes are known here. A group's parts lie in any rows, but all in one microbatch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from coevo_jax.config.streams import stream

# Groups among which a microbatch chooses: more leave less padding, fewer keep more of the shuffle.
WINDOWS = (32, 64)
ATTEMPTS = 6  # shuffles tried, each with every window and order


@dataclass(frozen=True, kw_only=True)
class Part:
    """The size of what lies in one row: tokens and views."""

    size: int  # tokens
    views: int


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A group that goes into one microbatch, and the ways to cut it into parts, the cheapest first."""

    layouts: tuple[tuple[Part, ...], ...]
    pairs: int

    @property
    def size(self) -> int:
        return sum(part.size for part in self.layouts[0])

    @property
    def whole(self) -> bool:
        """Whether one row can hold it."""
        return len(self.layouts[0]) == 1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a microbatch: its rows, and the tokens, views and pairs it holds."""

    rows: int
    tokens: int  # of a row
    views: int  # of a row
    pairs: int  # of the microbatch


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A bundle in a microbatch."""

    bundle: int
    layout: int
    rows: tuple[int, ...]  # of each part


Order = Callable[[Bundle], int]
# Which bundle of a window is placed first: as they come (a stable sort), or the largest.
ORDERS: dict[str, Order] = {"shuffled": lambda _bundle: 0, "largest": lambda bundle: -bundle.size}


class _Room:
    """What is left of a microbatch while it is filled."""

    def __init__(self, shape: Shape):
        self.tokens = [shape.tokens] * shape.rows
        self.views = [shape.views] * shape.rows
        self.pairs = shape.pairs

    def find(self, parts: Sequence[Part]) -> tuple[int, ...] | None:
        """A row for each part, the largest first, each where it leaves least (best-fit decreasing)."""
        if sum(part.size for part in parts) > sum(self.tokens):
            return None
        tokens, views = list(self.tokens), list(self.views)
        rows = [0] * len(parts)
        for i in sorted(range(len(rows)), key=lambda i: -parts[i].size):
            part = parts[i]
            fitting = [r for r in range(len(tokens)) if tokens[r] >= part.size and views[r] >= part.views]
            if not fitting:
                return None
            rows[i] = min(fitting, key=lambda r: tokens[r])
            tokens[rows[i]] -= part.size
            views[rows[i]] -= part.views
        return tuple(rows)

    def take(self, bundle: Bundle, placed: Placed) -> None:
        for part, row in zip(bundle.layouts[placed.layout], placed.rows, strict=True):
            self.tokens[row] -= part.size
            self.views[row] -= part.views
        self.pairs -= bundle.pairs


def fits(bundle: Bundle, shape: Shape) -> bool:
    """Whether a microbatch holds the bundle."""
    empty = _Room(shape)
    return bundle.pairs <= shape.pairs and any(empty.find(parts) is not None for parts in bundle.layouts)


def assemble(bundles: Sequence[Bundle], shape: Shape, attempts: int = ATTEMPTS) -> list[list[Placed]]:
    """Lay bundles, each of which fits, into microbatches: as few as the best of several attempts needs."""
    least = math.ceil(sum(bundle.size for bundle in bundles) / max(shape.rows * shape.tokens, 1))
    best: list[list[Placed]] | None = None
    for attempt in range(attempts):
        order = stream("bins", attempt).permutation(len(bundles)) if attempt else range(len(bundles))
        for window, key in product(WINDOWS, ORDERS.values()):
            fillings = _assemble(bundles, [int(index) for index in order], shape, window, key)
            if best is None or len(fillings) < len(best):
                best = fillings
            if len(best) <= least:
                return best
    assert best is not None
    return best


def _assemble(
    bundles: Sequence[Bundle], waiting: list[int], shape: Shape, reach: int, key: Order
) -> list[list[Placed]]:
    fillings = []
    while waiting:
        window = sorted(waiting[:reach], key=lambda i: key(bundles[i]))
        filling = _fill(bundles, window, shape)
        fillings.append(filling)
        taken = {placed.bundle for placed in filling}
        waiting = [index for index in waiting if index not in taken]
    return fillings


def _fill(bundles: Sequence[Bundle], window: list[int], shape: Shape) -> list[Placed]:
    """Fill one microbatch: place one bundle, fill its rows as well as the others can, place the next."""
    room, filling, left = _Room(shape), [], list(window)

    def take(placed: Placed) -> None:
        room.take(bundles[placed.bundle], placed)
        filling.append(placed)
        left.remove(placed.bundle)

    while (placed := _next(bundles, left, room)) is not None:
        take(placed)
        for row in sorted(set(placed.rows)):
            for index in _top_up(bundles, left, room, row):
                take(Placed(bundle=index, layout=0, rows=(row,)))
    return filling


def _next(bundles: Sequence[Bundle], left: list[int], room: _Room) -> Placed | None:
    """The first bundle that fits as it is, or else the first that fits cut into more parts."""
    allowed = [index for index in left if bundles[index].pairs <= room.pairs]
    for layouts in (slice(0, 1), slice(1, None)):
        for index in allowed:
            for number, parts in enumerate(bundles[index].layouts[layouts], layouts.start):
                rows = room.find(parts)
                if rows is not None:
                    return Placed(bundle=index, layout=number, rows=rows)
    return None


def _top_up(bundles: Sequence[Bundle], left: list[int], room: _Room, row: int) -> list[int]:
    """Those bundles of one part that fill a row best."""
    small = [i for i in left if bundles[i].whole and bundles[i].size <= room.tokens[row]]
    parts = [bundles[i].layouts[0][0] for i in small]
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
