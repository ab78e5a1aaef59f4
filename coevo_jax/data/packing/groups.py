"""Groups: the pairs of a task that are packed together, and the parts of rows their trajectories take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from coevo_jax.data.packing.bins import Bundle, Part, Shape, fits
from coevo_jax.data.packing.prefix_tree import common_prefix, token_codes
from coevo_jax.data.packing.views import Link, View
from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest thing packed whole: a pair with its views, or a trajectory's view without a pair."""

    task_id: str
    views: tuple[View, ...]
    link: Link | None = None
    counts: bool = True  # among the units of a step of an exact number; the others are riders


@dataclass(frozen=True, kw_only=True)
class TreePart:
    """Views that lie in one row, as a prefix tree or a branch of one."""

    views: tuple[View, ...]
    shared: tuple[int, ...]  # tokens each shares with the one before it; of the first: the plan's preamble
    size: int  # tokens, without the preamble


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units of one task in one microbatch."""

    units: tuple[Unit, ...]
    layouts: tuple[tuple[TreePart, ...], ...]  # ways to lay its views into rows, the cheapest first

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(unit.link for unit in self.units if unit.link is not None)

    @property
    def bundle(self) -> Bundle:
        layouts = tuple(
            tuple(Part(size=part.size, views=len(part.views)) for part in parts) for parts in self.layouts
        )
        return Bundle(layouts=layouts, pairs=len(self.links))


class TreeBuilder:
    """Builds prefix trees from views; the trajectories' order and common prefixes are found once for a plan.

    `preamble` is the number of first tokens that all of them share, such as a system prompt: a row encodes
    it once, whatever tasks it holds.
    """

    def __init__(self, trajectories: Sequence[Trajectory], used: Iterable[int], shape: Shape, share: bool):
        self._codes = {index: token_codes(trajectories[index]) for index in used}
        self._keys = {index: codes.tobytes() for index, codes in self._codes.items()}
        self._common: dict[tuple[int, int], int] = {}
        self._share = share
        self.preamble = 0
        if share and self._keys:
            ordered = sorted(self._keys, key=self._keys.__getitem__)
            self.preamble = common_prefix(self._codes[ordered[0]], self._codes[ordered[-1]])
        self.shape = Shape(
            rows=shape.rows, tokens=shape.tokens - self.preamble, views=shape.views, pairs=shape.pairs
        )

    def groups(self, units: Sequence[Unit]) -> list[Group]:
        """Join a task's units into as few groups as fit a microbatch each; one that fits none is left out."""
        groups: list[Group] = []
        for unit in units:
            if groups:
                joined = self._group((*groups[-1].units, unit))
                if fits(joined.bundle, self.shape):
                    groups[-1] = joined
                    continue
            if self.holds(unit):
                groups.append(self._group((unit,)))
        return groups

    def holds(self, unit: Unit) -> bool:
        """Whether a microbatch holds the unit."""
        return fits(self._group((unit,)).bundle, self.shape)

    def _group(self, units: tuple[Unit, ...]) -> Group:
        views = dict.fromkeys(view for unit in units for view in unit.views)
        ordered = sorted(views, key=lambda view: (self._keys[view.trajectory], view.trajectory))
        starts = [0]  # of the parts
        for i in range(1, len(ordered)):
            if not self._joins(ordered[starts[-1] : i + 1]):
                starts.append(i)
        layouts = [self._parts(ordered, starts)]
        if self._share and len(starts) == 1:
            halves = [self._parts(ordered, [0, i]) for i in range(1, len(ordered))]
            layouts += sorted(halves, key=lambda parts: sum(part.size for part in parts))
        if self._share and len(ordered) > 2:
            layouts.append(self._parts(ordered, range(len(ordered))))
        return Group(units=units, layouts=tuple(layouts))

    def _joins(self, views: Sequence[View]) -> bool:
        """Whether views that follow each other in the order of the tree can be one part."""
        if not self._share and views[0].trajectory != views[-1].trajectory:
            return False
        return self._part(views).size <= self.shape.tokens and len(views) <= self.shape.views

    def _parts(self, views: Sequence[View], starts: Sequence[int]) -> tuple[TreePart, ...]:
        return tuple(self._part(views[start:end]) for start, end in pairwise([*starts, len(views)]))

    def _part(self, views: Sequence[View]) -> TreePart:
        indices = [view.trajectory for view in views]
        shared = [self.preamble, *(self._shared(one, other) for one, other in pairwise(indices))]
        size = sum(len(self._codes[i]) - common for i, common in zip(indices, shared, strict=True))
        return TreePart(views=tuple(views), shared=tuple(shared), size=size)

    def _shared(self, first: int, second: int) -> int:
        """First tokens that two trajectories of a part share: all, where they are one."""
        if first == second:
            return len(self._codes[first])
        if (first, second) not in self._common:
            self._common[first, second] = common_prefix(self._codes[first], self._codes[second])
        return self._common[first, second]
