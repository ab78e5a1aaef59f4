"""Groups: the pairs of a task that stay together, and the parts of rows that their trajectories take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coevo_jax.data.bins import Bundle, Part, Shape, fits
from coevo_jax.data.prefix_tree import common_prefix, token_codes
from coevo_jax.data.views import Link, View
from coevo_jax.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is never torn apart: a pair with its views, or the view of a trajectory learned from alone."""

    task_id: str
    views: tuple[View, ...]
    link: Link | None = None


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
    parts: tuple[TreePart, ...]

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(unit.link for unit in self.units if unit.link is not None)

    @property
    def bundle(self) -> Bundle:
        parts = tuple(Part(size=part.size, views=len(part.views)) for part in self.parts)
        return Bundle(parts=parts, pairs=len(self.links))


class Planter:
    """Grows prefix trees from views: knows the trajectories' order and common prefixes, once for a plan.

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
            alone = self._group((unit,))
            if fits(alone.bundle, self.shape):
                groups.append(alone)
        return groups

    def _group(self, units: tuple[Unit, ...]) -> Group:
        """Lay the units' views into parts in the order of the tree, a new one where a row would be full."""
        views = dict.fromkeys(view for unit in units for view in unit.views)
        parts: list[TreePart] = []
        for view in sorted(views, key=lambda view: (self._keys[view.trajectory], view.trajectory)):
            length = len(self._codes[view.trajectory])
            last = parts[-1] if parts else None
            if last is not None:
                common = self._shared(last.views[-1].trajectory, view.trajectory)
                size = last.size + length - max(common, self.preamble)
                same_tree = self._share or common > 0
                if same_tree and size <= self.shape.tokens and len(last.views) < self.shape.views:
                    parts[-1] = TreePart(views=(*last.views, view), shared=(*last.shared, common), size=size)
                    continue
            parts.append(TreePart(views=(view,), shared=(self.preamble,), size=length - self.preamble))
        return Group(units=units, parts=tuple(parts))

    def _shared(self, first: int, second: int) -> int:
        """First tokens that two trajectories share; without sharing only one's own views share any."""
        if first == second:
            return len(self._codes[first])
        if not self._share:
            return 0
        if (first, second) not in self._common:
            self._common[first, second] = common_prefix(self._codes[first], self._codes[second])
        return self._common[first, second]
