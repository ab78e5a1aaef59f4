"""Chooses the order of a join as MySQL's optimizer does, for rows without ORDER BY come in it.

The costs are those of MySQL 8's optimizer for tables that lie in memory: a page 0.25, a row 0.1, non-indexed
conditions by its fixed guesses. What it does not follow: histograms, index merges, loose scans, semijoins
other than in the outer query's order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coevo_jax.envs.intercode_sql.mysql.access import (
    PAGE_COST,
    ROW_COST,
    Leaf,
    counted,
    ranged,
    selectivity,
)
from coevo_jax.envs.intercode_sql.mysql.comparisons import readers
from coevo_jax.envs.intercode_sql.mysql.joins import Step
from coevo_jax.envs.intercode_sql.mysql.tables import PRIMARY
from coevo_jax.envs.intercode_sql.mysql.terms import Term

MOST_PERMUTED = 7


@dataclass(slots=True, eq=False)
class PlanItem:
    """What a join puts together: a source, or the inner side of an outer join with its own conditions."""

    leaves: tuple[int, ...]
    needs: int = 0  # bits of the sources that must come before
    on: list[Term] = field(default_factory=list)
    inside: "list[PlanItem]" = field(default_factory=list)
    inner_conditions: list[Term] = field(default_factory=list)
    outer: bool = False

    @property
    def mask(self) -> int:
        """Bits of its sources."""
        return sum(1 << leaf for leaf in self.leaves)


@dataclass(slots=True)
class _Access:
    cost: float
    rows: float  # after its own conditions
    method: str  # const, eq_ref, ref, scan, hash
    index: str | None = None


class Planner:
    """Plans one join."""

    def __init__(self, leaves: Sequence[Leaf], items: list[PlanItem], conditions: list[Term], straight: bool):
        self._leaves = leaves
        self._items = items
        self._conditions = conditions
        self._straight = straight
        self._equal = _equalities(conditions)

    def steps(self) -> list[Step]:
        """The steps of the join in order, every condition at the first step that can test it."""
        self._give_filters()
        order = self._order()
        done, left = 0, list(self._conditions)
        steps = []
        for place, item in enumerate(order):
            step = self._step(item, done, place == 0)
            done |= item.mask
            now = [term for term in left if _needs(term) & ~done == 0]
            left = [term for term in left if _needs(term) & ~done]
            self._attach(step, item, now, done)
            steps.append(step)
        if left and steps:
            steps[-1].conditions += left
        return steps

    def _give_filters(self) -> None:
        for term in self._conditions:
            needs = _needs(term)
            for leaf in self._leaves:
                if needs == 1 << leaf.number:
                    leaf.filters.append(term)

    def _order(self) -> list[PlanItem]:
        items = self._items
        if self._straight or len(items) < 2 or len(items) > MOST_PERMUTED:
            return items
        items = sorted(items, key=lambda item: self._found_rows(item))
        constant = [item for item in items if not item.outer and self._is_constant(item)]
        rest = [item for item in items if item not in constant]
        best: list[tuple[float, list[PlanItem]]] = []
        start = sum(item.mask for item in constant)
        self._search(constant, rest, start, 1.0, 0.0, best)
        return best[0][1] if best else self._items

    def _search(
        self,
        prefix: list[PlanItem],
        rest: list[PlanItem],
        done: int,
        rows: float,
        cost: float,
        best: list[tuple[float, list[PlanItem]]],
    ) -> None:
        if not rest:
            if not best or cost < best[0][0] - 1e-9:
                best[:] = [(cost, prefix)]
            return
        for item in rest:
            if item.needs & ~done:
                continue
            access = self._access(item, done, rows, not prefix)
            total = cost + access.cost
            if best and total >= best[0][0]:
                continue
            others = [other for other in rest if other is not item]
            more = max(access.rows, 1.0) if item.outer else access.rows
            self._search([*prefix, item], others, done | item.mask, rows * more, total, best)

    def _found_rows(self, item: PlanItem) -> float:
        leaf = self._leaves[item.leaves[0]]
        counts = [found for term in leaf.filters if (found := counted(term, leaf)) is not None]
        return min([leaf.rows, *counts])

    def _is_constant(self, item: PlanItem) -> bool:
        leaf = self._leaves[item.leaves[0]]
        return any(
            unique and places and all(self._source_of(leaf.number, place, 0, ()) for place in places)
            for _, unique, places in leaf.indexes
        )

    def _source_of(self, leaf: int, place: int, done: int, on: Sequence[Term]) -> str | None:
        """How a column is known before its source is read: "constant", "before", or not at all."""
        found: str | None = None
        for term in on:
            for own, other in _sides(term):
                if own.column == (leaf, place) and other.uses & ~done == 0 and not other.uses & 1 << leaf:
                    found = "constant" if other.constant else found or "before"
        for members, constants in self._equal:
            if (leaf, place) in members:
                if constants:
                    return "constant"
                if any(1 << other & done for other, _ in members if other != leaf):
                    found = found or "before"
        return found

    def _access(self, item: PlanItem, done: int, prefix: float, first: bool) -> _Access:
        leaf = self._leaves[item.leaves[0]]
        if len(item.leaves) > 1:
            size = 1.0
            for one in item.leaves:
                size *= self._leaves[one].rows
            return _Access(prefix * size * ROW_COST, max(1.0, size * 0.1), "scan")
        best = self._by_index(item, leaf, done, prefix)
        scan = self._by_scan(item, leaf, done, prefix, first)
        if best is not None and (best.method in ("const", "eq_ref") or best.cost <= scan.cost):
            return best
        return scan

    def _by_index(self, item: PlanItem, leaf: Leaf, done: int, prefix: float) -> _Access | None:
        best: _Access | None = None
        for name, unique, places in leaf.indexes:
            known = []
            for place in places:
                how = self._source_of(leaf.number, place, done, item.on)
                if how is None:
                    break
                known.append(place)
            if not known or leaf.table is None:
                continue
            if unique and len(known) == len(places):
                cost = prefix * (PAGE_COST + ROW_COST)
                return _Access(cost, self._filtered(item, leaf, done, 1.0, known), "eq_ref", name)
            rows = leaf.table.per_key(tuple(known))
            covered = leaf.covers(name, places)
            read = PAGE_COST if covered else max(1.0, rows // 1) * PAGE_COST
            access = _Access(
                prefix * (read + rows * ROW_COST), self._filtered(item, leaf, done, rows, known), "ref", name
            )
            if best is None or access.cost < best.cost:
                best = access
        return best

    def _by_scan(self, item: PlanItem, leaf: Leaf, done: int, prefix: float, first: bool) -> _Access:
        own = [term for term in (*leaf.filters, *item.on) if _needs(term) == 1 << leaf.number]
        share = 1.0
        rows = leaf.rows
        for term in own:
            found = counted(term, leaf)
            if found is not None and leaf.rows:
                share *= found / leaf.rows
            else:
                share *= selectivity(term, leaf)
        after = rows * share
        ranged = [found for term in own if (found := counted(term, leaf)) is not None]
        read = PAGE_COST * leaf.pages + ROW_COST * (rows - after)
        if (
            ranged
            and min(ranged) * (PAGE_COST + ROW_COST) + ROW_COST < PAGE_COST * leaf.pages + ROW_COST * rows
        ):
            read = min(ranged) * PAGE_COST + ROW_COST * (min(ranged) - min(after, min(ranged)))
        cost = read + prefix * after * ROW_COST
        return _Access(cost, self._filtered(item, leaf, done, after, [], own), "scan" if first else "hash")

    def _filtered(
        self,
        item: PlanItem,
        leaf: Leaf,
        done: int,
        rows: float,
        used: Sequence[int],
        counted_terms: Sequence[Term] = (),
    ) -> float:
        """Rows that the conditions leave which become testable with this source."""
        bit = 1 << leaf.number
        for term in (*self._conditions, *item.on):
            needs = _needs(term)
            if not needs & bit or needs & ~(done | bit) or term in counted_terms:
                continue
            if any(
                own.column is not None and own.column[0] == leaf.number and own.column[1] in used
                for own, _ in _sides(term)
            ):
                continue
            rows *= selectivity(term, leaf)
        return rows

    def _step(self, item: PlanItem, done: int, first: bool) -> Step:
        widths = tuple(len(self._leaves[leaf].source.columns) for leaf in item.leaves)
        step = Step(item.leaves, outer=item.outer, widths=widths)
        if len(item.leaves) != 1:
            step.nest = Planner(self._leaves, item.inside, item.inner_conditions, False).steps()
            return step
        leaf = self._leaves[item.leaves[0]]
        step.table, step.rows = leaf.table, leaf.source.rows
        access = self._access(item, done, 1.0, first)
        if access.method in ("scan", "hash"):
            step.index = self._scan_index(leaf, item)
        else:
            step.index = access.index if access.method == "ref" else None
        step.hashes = access.method == "hash" and not first
        return step

    def _scan_index(self, leaf: Leaf, item: PlanItem) -> str | None:
        """The index in whose order a scan reads: of a range where that is cheaper, else one that covers."""
        if leaf.table is None:
            return None
        scan = PAGE_COST * leaf.pages + ROW_COST * leaf.rows
        best: tuple[float, str] | None = None
        for term in leaf.filters if not item.outer else item.on:
            found = counted(term, leaf)
            if found is None or term.key[0] == "=":
                continue
            place = ranged(term, leaf)
            for name, _, places in leaf.indexes:
                if place is None or places[0] != place:
                    continue
                covered = name == PRIMARY or leaf.covers(name, places)
                cost = found * ROW_COST + (PAGE_COST if covered else found * PAGE_COST) + 0.1
                if cost < scan and (best is None or cost < best[0]):
                    best = (cost, name)
        return best[1] if best is not None else leaf.covering()

    def _attach(self, step: Step, item: PlanItem, now: list[Term], done: int) -> None:
        conditions = [*now] if not item.outer else [*item.on]
        after = now if item.outer else []
        for term in conditions:
            found = _lookup(term, step, done) if not step.nest else None
            if found is not None:
                step.keys.append(found)
            elif _needs(term) == item.mask and not step.nest:
                step.filters.append(term)
            else:
                step.conditions.append(term)
                if isinstance(term.key, tuple) and term.key[0] == "or" and not step.nest:
                    lookups = [_lookup(child, step, done) for child in term.children]
                    step.either = step.either or [one for one in lookups if one] * (None not in lookups)
        if after:
            step.after = after


def _needs(term: Term) -> int:
    return term.uses


def _sides(term: Term) -> list[tuple[Term, Term]]:
    """Both ways to look at an equality; nothing for other terms."""
    if not isinstance(term.key, tuple) or term.key[0] != "=" or len(term.children) != 2:
        return []
    left, right = term.children
    return [(left, right), (right, left)]


def _lookup(term: Term, step: Step, done: int) -> tuple[int, Callable | None, Term, Callable | None] | None:
    """An equality of a step's column with something known before, which a hash can look up."""
    leaf = step.leaves[0]
    for own, other in _sides(term):
        if own.column is None or own.column[0] != leaf or other.uses & 1 << leaf or other.uses & ~done:
            continue
        if own.type.real or other.type.real or other.aggregated:
            continue
        read_own, read_other = readers(own.type, other.type)
        return own.column[1], read_own, other, read_other
    return None


def _equalities(conditions: Sequence[Term]) -> list[tuple[set[tuple[int, int]], bool]]:
    """Columns that are equal to one another, and whether to a constant too."""
    groups: list[tuple[set[tuple[int, int]], bool]] = []
    for term in conditions:
        for own, other in _sides(term)[:1] or []:
            members = {side.column for side in (own, other) if side.column is not None}
            fixed = any(side.constant or (side.outer and not side.uses) for side in (own, other))
            if not members or (len(members) < 2 and not fixed):
                continue
            merged, rest = set(members), []
            for group, constant in groups:
                if group & merged:
                    merged |= group
                    fixed = fixed or constant
                else:
                    rest.append((group, constant))
            groups = [*rest, (merged, fixed)]
    return groups
