"""Bin packing: which groups share a microbatch, and in which of its rows their parts lie.

Only sizes are known here. A group's parts lie in any rows, but all in one microbatch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product

from coevo_jax.config.streams import stream

# Groups among which a microbatch chooses: more leave less padding, fewer keep more of the shuffle.
WINDOWS = (32, 64)
ATTEMPTS = 6  # shuffles tried, each with every window and order
# Which bundle of a window is placed first: as they come, or the largest.
ORDERS = ("shuffled", "largest")


@dataclass(frozen=True, kw_only=True)
class Part:
    """The size of what lies in one row: tokens and views."""

    size: int  # tokens
    views: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to cut a group into parts; its sums are asked for again and again, and computed once."""

    parts: tuple[Part, ...]

    @cached_property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @cached_property
    def views(self) -> int:
        return sum(part.views for part in self.parts)

    @cached_property
    def largest(self) -> int:
        return max(part.size for part in self.parts)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The numbers of the parts, the largest first."""
        return tuple(sorted(range(len(self.parts)), key=lambda i: -self.parts[i].size))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A group that goes into one microbatch, and the ways to cut it into parts, the cheapest first."""

    layouts: tuple[Layout, ...]
    pairs: int

    @cached_property
    def whole(self) -> bool:
        """Whether one row can hold it."""
        return len(self.layouts[0].parts) == 1

    @cached_property
    def least_size(self) -> int:
        return min(layout.size for layout in self.layouts)

    @cached_property
    def least_views(self) -> int:
        return min(layout.views for layout in self.layouts)


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


class _Room:
    """What is left of a microbatch while it is filled."""

    def __init__(self, shape: Shape):
        self.tokens = [shape.tokens] * shape.rows
        self.views = [shape.views] * shape.rows
        self.pairs = shape.pairs

    def find(self, layout: Layout) -> tuple[int, ...] | None:
        """A row for each part, the largest first, each where it leaves least (best-fit decreasing)."""
        if layout.size > sum(self.tokens) or layout.largest > max(self.tokens):
            return None
        tokens, views = list(self.tokens), list(self.views)
        rows = [0] * len(layout.parts)
        for i in layout.order:
            part, best = layout.parts[i], -1
            for row, free in enumerate(tokens):
                if free >= part.size and views[row] >= part.views and (best < 0 or free < tokens[best]):
                    best = row
            if best < 0:
                return None
            rows[i] = best
            tokens[best] -= part.size
            views[best] -= part.views
        return tuple(rows)

    def take(self, bundle: Bundle, placed: Placed) -> None:
        for part, row in zip(bundle.layouts[placed.layout].parts, placed.rows, strict=True):
            self.tokens[row] -= part.size
            self.views[row] -= part.views
        self.pairs -= bundle.pairs


def fits(bundle: Bundle, shape: Shape) -> bool:
    """Whether a microbatch holds the bundle."""
    empty = _Room(shape)
    return bundle.pairs <= shape.pairs and any(empty.find(one) is not None for one in bundle.layouts)


def assemble(bundles: Sequence[Bundle], shape: Shape, attempts: int = ATTEMPTS) -> list[list[Placed]]:
    """Lay bundles, each of which fits, into microbatches: as few as the best of several attempts needs."""
    least = _least(bundles, shape)
    best: list[list[Placed]] | None = None
    for attempt in range(attempts):
        order = stream("bins", attempt).permutation(len(bundles)).tolist() if attempt else range(len(bundles))
        for window, first in product(WINDOWS, ORDERS):
            fillings = _assemble(bundles, order, shape, window, first, None if best is None else len(best))
            if fillings is not None and (best is None or len(fillings) < len(best)):
                best = fillings
            assert best is not None
            if len(best) <= least:
                return best
    assert best is not None
    return best


def _least(bundles: Sequence[Bundle], shape: Shape) -> int:
    """A number of microbatches below which no packing goes."""
    tokens, views = shape.rows * shape.tokens, shape.rows * shape.views
    bounds = [
        _full(sum(bundle.least_size for bundle in bundles), tokens),
        _full(sum(bundle.least_views for bundle in bundles), views),
        _full(sum(bundle.pairs for bundle in bundles), shape.pairs),
    ]
    if shape.rows == 1:
        bounds.append(_least_rows([bundle.least_size for bundle in bundles], shape.tokens))
    return max(bounds)


def _full(total: int, room: int) -> int:
    return math.ceil(total / max(room, 1))


def _least_rows(sizes: Sequence[int], room: int) -> int:
    """A number of rows below which no packing goes (Martello and Toth 1990, the bound L2).

    What is larger than half a row lies alone among its like; for every s up to half a row, what is no
    smaller than s finds room only beside what is not larger than the room less s.
    """
    ordered = sorted(sizes)
    above = [0, *accumulate(reversed(ordered))]  # sums of the largest
    large = [size for size in reversed(ordered) if 2 * size > room]
    best, alone = len(large), 0
    for index, small in enumerate(ordered[: len(ordered) - len(large)]):
        while alone < len(large) and large[alone] > room - small:
            alone += 1
        middle = above[len(ordered) - index] - above[len(large)]
        beside = (len(large) - alone) * room - (above[len(large)] - above[alone])
        best = max(best, len(large) + _full(max(middle - beside, 0), room))
    return best


def _assemble(
    bundles: Sequence[Bundle], waiting: Sequence[int], shape: Shape, reach: int, first: str, limit: int | None
) -> list[list[Placed]] | None:
    """One packing; None where it would come to no fewer microbatches than `limit`."""
    fillings: list[list[Placed]] = []
    room = shape.rows * shape.tokens
    left = sum(bundles[index].least_size for index in waiting)
    window, following = list(waiting[:reach]), reach
    while window:
        if limit is not None and len(fillings) + max(_full(left, room), 1) >= limit:
            return None
        ordered = window if first == "shuffled" else sorted(window, key=lambda i: -bundles[i].layouts[0].size)
        filling = _fill(bundles, ordered, shape)
        fillings.append(filling)
        taken = {placed.bundle for placed in filling}
        left -= sum(bundles[index].least_size for index in taken)
        window = [index for index in window if index not in taken]
        more = reach - len(window)
        window += waiting[following : following + more]
        following += more
    return fillings


def _fill(bundles: Sequence[Bundle], window: Sequence[int], shape: Shape) -> list[Placed]:
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


def _next(bundles: Sequence[Bundle], left: Sequence[int], room: _Room) -> Placed | None:
    """The first bundle that fits as it is, or else the first that fits cut into more parts."""
    tokens, views, pairs = sum(room.tokens), sum(room.views), room.pairs
    allowed = [
        index
        for index in left
        if (one := bundles[index]).pairs <= pairs and one.least_size <= tokens and one.least_views <= views
    ]
    for layouts in (slice(0, 1), slice(1, None)):
        for index in allowed:
            for number, layout in enumerate(bundles[index].layouts[layouts], layouts.start):
                rows = room.find(layout)
                if rows is not None:
                    return Placed(bundle=index, layout=number, rows=rows)
    return None


def _top_up(bundles: Sequence[Bundle], left: Sequence[int], room: _Room, row: int) -> list[int]:
    """Those bundles of one part that fill a row best."""
    tokens, views = room.tokens[row], room.views[row]
    small = [i for i in left if bundles[i].whole and bundles[i].layouts[0].size <= tokens]
    parts = [bundles[i].layouts[0].parts[0] for i in small]
    chosen = [small[k] for k in best_subset(parts, tokens, views)]
    while sum(bundles[i].pairs for i in chosen) > room.pairs:
        chosen.pop()
    return chosen


def best_subset(parts: Sequence[Part], room: int, views: int) -> list[int]:
    """Indices of parts with at most `views` views whose sizes add up closest to `room`, never beyond it.

    Subset sum by dynamic programming over one integer: bit v * lane + s of reachable[i] says that some of the
    first i parts have v views and s tokens.
    """
    lane = 2 * room + 1  # a sum and one more part end in it
    within = (1 << (room + 1)) - 1
    inside = sum(within << v * lane for v in range(views + 1))
    reachable = [1]
    for part in parts:
        last = reachable[-1]
        able = part.size <= room and part.views <= views
        reachable.append(last | (last << part.views * lane + part.size & inside) if able else last)
    sums = [(reachable[-1] >> v * lane & within).bit_length() - 1 for v in range(views + 1)]
    total = max(sums)
    place = sums.index(total) * lane + total
    chosen = []
    for i in range(len(parts) - 1, -1, -1):
        if not reachable[i] >> place & 1:
            chosen.append(i)
            place -= parts[i].views * lane + parts[i].size
    return chosen[::-1]
