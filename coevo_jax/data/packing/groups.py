"""Groups: the pairs of a task that are packed together, and the parts of rows their trajectories take."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from operator import sub

from coevo_jax.data.packing.bins import Bundle, Layout, Part, Shape, fits
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Units of one task in one microbatch."""

    units: tuple[Unit, ...]
    tree: "_Tree"

    @cached_property
    def links(self) -> tuple[Link, ...]:
        return tuple(unit.link for unit in self.units if unit.link is not None)

    @cached_property
    def layouts(self) -> tuple[tuple[TreePart, ...], ...]:
        """Ways to lay its views into rows, the cheapest first."""
        return self.tree.layouts()

    @cached_property
    def bundle(self) -> Bundle:
        layouts = tuple(
            Layout(parts=tuple(Part(size=part.size, views=len(part.views)) for part in parts))
            for parts in self.layouts
        )
        return Bundle(layouts=layouts, pairs=len(self.links))


class TreeBuilder:
    """Builds prefix trees from views; the trajectories' order and common prefixes are found once for a plan.

    `preamble` is the number of first tokens that all of them share, such as a system prompt: a row encodes
    it once, whatever tasks it holds.
    """

    def __init__(self, trajectories: Sequence[Trajectory], used: Iterable[int], shape: Shape, share: bool):
        self._codes = {index: token_codes(trajectories[index]) for index in used}
        keys = {index: codes.tobytes() for index, codes in self._codes.items()}
        ordered = sorted(keys, key=lambda index: (keys[index], index))
        self.rank = {index: rank for rank, index in enumerate(ordered)}
        self._common: dict[tuple[int, int], int] = {}
        self._grouped: dict[tuple[int, ...], tuple[Sequence[Unit], list[Group]]] = {}
        self.share = share
        self.preamble = 0
        if share and ordered:
            self.preamble = common_prefix(self._codes[ordered[0]], self._codes[ordered[-1]])
        self.shape = Shape(
            rows=shape.rows, tokens=shape.tokens - self.preamble, views=shape.views, pairs=shape.pairs
        )

    def groups(self, units: Sequence[Unit]) -> list[Group]:
        """Join a task's units into few groups that fit a microbatch each; one that fits none is left out.

        They are joined in their order, or where that makes several groups so that these have few tokens,
        whichever encodes less. Equal units, the very same objects, are joined once.
        """
        key = tuple(map(id, units))
        if key not in self._grouped:
            groups = self._join(units)
            if len(groups) > 1:
                groups = min(groups, self._cluster(units), key=self._tokens)
            self._grouped[key] = units, groups  # the units are kept, so their ids stay theirs
        return self._grouped[key][1]

    def _tokens(self, groups: Sequence[Group]) -> int:
        return sum(group.tree.size + self.preamble for group in groups)

    def _join(self, units: Sequence[Unit]) -> list[Group]:
        groups: list[Group] = []
        for unit in units:
            if groups:
                joined = Group(units=(*groups[-1].units, unit), tree=groups[-1].tree.grown(unit.views))
                if self._fits(joined):
                    groups[-1] = joined
                    continue
            alone = Group(units=(unit,), tree=_Tree(self).grown(unit.views))
            if self._fits(alone):
                groups.append(alone)
        return groups

    def _cluster(self, units: Sequence[Unit]) -> list[Group]:
        """Join units around trajectories: each is the one that adds most units to a group for its tokens."""
        groups: list[Group] = []
        waiting = dict(enumerate(units))
        while waiting:
            number, unit = next(iter(waiting.items()))
            del waiting[number]
            group = Group(units=(unit,), tree=_Tree(self).grown(unit.views))
            if self._fits(group):
                groups.append(self._filled(group, waiting))
        return groups

    def _filled(self, group: Group, waiting: dict[int, Unit]) -> Group:
        """The group with those waiting units that it takes, which then wait no more."""
        lacking = {number: {view.trajectory for view in unit.views} for number, unit in waiting.items()}
        needed: dict[int, list[int]] = {}  # by trajectory: the units that lack it
        for number, trajectories in lacking.items():
            for trajectory in trajectories:
                needed.setdefault(trajectory, []).append(number)
        added = {one: self.length(one) for one in needed}  # tokens by which each lengthens the group
        gains = Counter(one for own in lacking.values() if len(own) == 1 for one in own)
        ready: list[int] = []  # units that lack nothing

        def have(trajectory: int) -> None:
            for number in needed.pop(trajectory, ()):
                lacking[number].discard(trajectory)
                if not lacking[number]:
                    ready.append(number)
                elif len(lacking[number]) == 1:
                    gains.update(lacking[number])
            gains.pop(trajectory, None)
            for one in needed if self.share else ():
                added[one] = min(added[one], self.length(one) - self.shared(one, trajectory))

        for trajectory in sorted({view.trajectory for view in group.tree.views}):
            have(trajectory)
        group = self._with_ready(group, ready, waiting)
        most = self.shape.rows * self.shape.tokens
        while able := [one for one in gains if group.tree.size + added[one] <= most]:
            have(max(able, key=lambda one: (gains[one] / (1 + added[one]), -self.rank[one])))
            group = self._with_ready(group, ready, waiting)
        return group

    def _with_ready(self, group: Group, ready: list[int], waiting: dict[int, Unit]) -> Group:
        """The group with those of the units that fit; the others wait on."""
        most = self.shape.rows * self.shape.views
        for number in ready:
            unit = waiting[number]
            full = unit.link is not None and len(group.links) == self.shape.pairs
            if full or group.tree.count_with(unit.views) > most:
                continue
            joined = Group(units=(*group.units, unit), tree=group.tree.grown(unit.views))
            if self._fits(joined):
                group = joined
                del waiting[number]
        ready.clear()
        return group

    def holds(self, unit: Unit) -> bool:
        """Whether a microbatch holds the unit."""
        return self._fits(Group(units=(unit,), tree=_Tree(self).grown(unit.views)))

    def _fits(self, group: Group) -> bool:
        shape, tree, rows = self.shape, group.tree, self.shape.rows
        if (
            len(group.links) > shape.pairs
            or tree.size > rows * shape.tokens
            or len(tree.views) > rows * shape.views
        ):
            return False
        one_row = len(tree.starts) == 1 and tree.size <= shape.tokens  # as most are
        return one_row or fits(group.bundle, shape)

    def length(self, trajectory: int) -> int:
        return len(self._codes[trajectory])

    def shared(self, first: int, second: int) -> int:
        """First tokens that two trajectories of a part share: all, where they are one."""
        if first == second:
            return len(self._codes[first])
        key = (first, second) if first < second else (second, first)
        if key not in self._common:
            self._common[key] = common_prefix(self._codes[first], self._codes[second])
        return self._common[key]


class _Tree:
    """Distinct views in the order of their trajectories' tokens, and where a row's length cuts them."""

    def __init__(self, builder: TreeBuilder, views: tuple[View, ...] = ()):
        self._builder, self.views, self._known = builder, views, frozenset(views)
        indices = [view.trajectory for view in views]
        self._lengths = [builder.length(index) for index in indices]
        # Of each view, the tokens it shares with the one before it, were they in one part.
        self._shared = [builder.preamble, *(builder.shared(*two) for two in pairwise(indices))]
        self._sums = [0, *accumulate(map(sub, self._lengths, self._shared))]
        self.starts = self._starts()

    @property
    def size(self) -> int:
        """Tokens of all views as one part."""
        return self._size(0, len(self.views))

    def count_with(self, views: Iterable[View]) -> int:
        """The number of views with these."""
        return len(self._known.union(views))

    def grown(self, views: Iterable[View]) -> "_Tree":
        """The tree with more views."""
        new = [view for view in dict.fromkeys(views) if view not in self._known]
        if not new:
            return self
        rank, own = self._builder.rank, list(self.views)
        for view in new:
            own.insert(bisect_right(own, rank[view.trajectory], key=lambda one: rank[one.trajectory]), view)
        return _Tree(self._builder, tuple(own))

    def layouts(self) -> tuple[tuple[TreePart, ...], ...]:
        """Ways to cut it into parts, the cheapest first."""
        count, share = len(self.views), self._builder.share
        ways = [self._parts(self.starts)]
        if share and len(self.starts) == 1:
            halves = sorted(range(1, count), key=lambda i: self._size(0, i) + self._size(i, count))
            ways += [self._parts([0, i]) for i in halves]
        if share and count > 2:
            ways.append(self._parts(range(count)))
        return tuple(ways)

    def _starts(self) -> list[int]:
        """Where parts begin when each takes as many views as its row holds."""
        starts, shape = [0], self._builder.shape
        for i in range(1, len(self.views)):
            start = starts[-1]
            joins = (
                (self._builder.share or self.views[start].trajectory == self.views[i].trajectory)
                and i + 1 - start <= shape.views
                and self._size(start, i + 1) <= shape.tokens
            )
            if not joins:
                starts.append(i)
        return starts

    def _size(self, start: int, end: int) -> int:
        """Tokens of a part, without the preamble; the first view of a part shares nothing else."""
        return self._sums[end] - self._sums[start] + self._shared[start] - self._builder.preamble

    def _parts(self, starts: Sequence[int]) -> tuple[TreePart, ...]:
        return tuple(
            TreePart(
                views=self.views[start:end],
                shared=(self._builder.preamble, *self._shared[start + 1 : end]),
                size=self._size(start, end),
            )
            for start, end in pairwise([*starts, len(self.views)])
        )
