"""One SELECT: bound to its tables, checked as MySQL checks it, planned and run."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import nodes
from coevo_jax.envs.intercode_sql.mysql.access import PAGE_COST, ROW_COST, Leaf, describe_leaf
from coevo_jax.envs.intercode_sql.mysql.aggregates import grouped_key
from coevo_jax.envs.intercode_sql.mysql.binding import Binder
from coevo_jax.envs.intercode_sql.mysql.filesort import filesort
from coevo_jax.envs.intercode_sql.mysql.grouping import check_distinct, check_groups
from coevo_jax.envs.intercode_sql.mysql.joins import Joiner, Step, all_true
from coevo_jax.envs.intercode_sql.mysql.names import having_column, order_term
from coevo_jax.envs.intercode_sql.mysql.planner import Planner
from coevo_jax.envs.intercode_sql.mysql.schema import SqlType
from coevo_jax.envs.intercode_sql.mysql.sorting import sorted_rows
from coevo_jax.envs.intercode_sql.mysql.sources import (
    SourceBinder,
    Tree,
    World,
    bind_conditions,
    conjuncts,
    items_of,
)
from coevo_jax.envs.intercode_sql.mysql.tables import PRIMARY
from coevo_jax.envs.intercode_sql.mysql.terms import Row, Scope, Term
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

Order = list[tuple[Term, bool]]


class SelectPlan:
    """A bound SELECT with its ORDER BY and LIMIT."""

    def __init__(
        self,
        select: nodes.Select,
        query: nodes.Query,
        outer: Scope | None,
        world: World,
        build: Callable[..., Any],
        budget: Any,
        full_group_by: bool,
    ):
        self._select, self._query, self._budget = select, query, budget
        self._full_group_by = full_group_by
        self.scope = scope = Scope(outer)
        self._binder = Binder(scope, build, budget, world.database.name)
        self._tree = self._bind_from(world, build)
        self._items: list[Term] = []
        self._bind_items()
        self.columns: list[tuple[str, SqlType]] = [(name, term.type) for name, term in scope.items]
        self._where = self._bind_where()
        self._bind_groups()
        self._having = self._bind_having()
        self._order = self._bind_order()
        self.outer_scopes = self._binder.outer_scopes
        self._check()
        self._streamed = False  # whether an index brings the groups one after the other
        self._limit = query.limit.value if isinstance(query.limit, nodes.Literal) else None
        self._offset = query.offset.value if isinstance(query.offset, nodes.Literal) else 0
        self._joiner = self._plan(world)
        self.keys = self._unique_keys()
        self.most_rows: int | None = None  # that whoever asks will read

    def _bind_from(self, world: World, build: Callable[..., Any]) -> Tree | None:
        if self._select.source is None:
            return None
        sources = SourceBinder(world, self.scope, self.scope.common, build)
        tree = sources.tree(self._select.source)
        for source in self.scope.sources:
            if source.plan is not None:
                self._binder.outer_scopes |= source.plan.outer_scopes - {id(self.scope)}
        return tree

    def _bind_items(self) -> None:
        scope = self.scope
        scope.windows = {name.lower(): window for name, window in self._select.windows.items()}
        scope.aggregates_allowed = scope.windows_allowed = True
        found: list[tuple[str, Term]] = []
        for item in self._select.items:
            if isinstance(item.term, nodes.Star):
                found += self._star(item.term)
                continue
            term = self._binder.bind_scalar(item.term)
            name = item.alias or (item.term.parts[-1] if isinstance(item.term, nodes.Name) else item.text)
            if item.alias is None and term.column is not None:
                name = scope.sources[term.column[0]].columns[term.column[1]][0]
            found.append((name, term))
        scope.items = found
        self._items = [term for _, term in found]

    def _star(self, star: nodes.Star) -> list[tuple[str, Term]]:
        scope = self.scope
        if not star.parts:
            if not scope.sources:
                raise SqlError("No tables used")
            places = list(scope.merged)
            for number, source in enumerate(scope.sources):
                places += [(number, i) for i in range(len(source.columns))]
            places = [p for i, p in enumerate(places) if p not in scope.hidden and p not in places[:i]]
        elif not scope.has_table(star.parts):
            raise SqlError(f"Unknown table '{star.parts[-1]}'")
        else:
            number = next(i for i, s in enumerate(scope.sources) if s.alias.lower() == star.parts[-1].lower())
            places = [(number, i) for i in range(len(scope.sources[number].columns))]
        return [
            (scope.sources[number].columns[place][0], self._binder.column_at((number, place)))
            for number, place in places
        ]

    def _bind_where(self) -> list[Term]:
        scope = self.scope
        scope.aggregates_allowed = scope.windows_allowed = False
        scope.place = "where clause"
        terms = [self._binder.bind_scalar(node) for node in conjuncts(self._select.where)]
        if self._tree is not None:
            bind_conditions(self._tree, self._binder, scope)
        return terms

    def _bind_groups(self) -> None:
        scope = self.scope
        scope.place = "group statement"
        for key in self._select.group:
            term = order_term(self._binder, key.term, False)
            if term.aggregated:
                name = next((name for name, item in scope.items if item is term), "?")
                raise SqlError(f"Can't group on '{name}'")
            scope.grouped.append(term)

    def _bind_having(self) -> Term | None:
        if self._select.having is None:
            return None
        scope = self.scope
        scope.place, scope.aggregates_allowed = "having clause", True
        self._binder.having = having_column
        try:
            return self._binder.bind_scalar(self._select.having)
        finally:
            self._binder.having = None

    def _bind_order(self) -> Order:
        scope = self.scope
        scope.place = "order clause"
        scope.aggregates_allowed = scope.windows_allowed = True
        return [(order_term(self._binder, key.term, True), key.descending) for key in self._query.order]

    @property
    def _aggregated(self) -> bool:
        return bool(self.scope.aggregates) or bool(self._select.group)

    @property
    def _distinct_matters(self) -> bool:
        """Whether DISTINCT can drop a row: not where all that is grouped by is shown."""
        if not self._select.distinct or not self.scope.grouped or self._select.rollup:
            return self._select.distinct
        shown = {term.key for term in self._items}
        return not all(term.key in shown for term in self.scope.grouped)

    def _check(self) -> None:
        """What MySQL refuses once all names are known."""
        order = [term for term, _ in self._order]
        plain = not self._select.group and not any(term.aggregated for term in self._items)
        plain = plain and not (self._having is not None and self._having.aggregated)
        if plain:
            for number, term in enumerate(order, start=1):
                if term.aggregated:
                    raise SqlError(
                        f"Expression #{number} of ORDER BY contains aggregate function and applies to the "
                        "result of a non-aggregated query"
                    )
        if not self._full_group_by:
            return
        if self._aggregated:
            conditions = [*self._where, *_inner_conditions(self._tree)]
            check_groups(
                self.scope, self._items, order if self._select.group else [], conditions, self._having
            )
        if self._distinct_matters and (self._select.group or not self._aggregated):
            check_distinct(self._items, order)

    def _plan(self, world: World) -> Joiner:
        scope = self.scope
        self._loose: list[Term] = []
        if self._tree is None:
            self._loose, self._steps, self._leaves = self._where, [], []
            return Joiner([], 0, self._budget)
        leaves: list[Leaf] = []
        for number, source in enumerate(scope.sources):
            table = world.database.tables.get(source.base.name.lower()) if source.base is not None else None
            leaves.append(describe_leaf(number, source, table))
        items, on = items_of(self._tree, self._where)
        straight = any(source.plan is not None and source.plan.outer_scopes for source in scope.sources)
        straight = straight or _has_straight(self._tree)
        steps = Planner(leaves, items, [*self._where, *on], straight).steps()
        self._steps, self._leaves = steps, leaves
        self._index_for_groups(leaves, steps)
        return Joiner(steps, len(scope.sources), self._budget)

    def _index_for_groups(self, leaves: Sequence[Leaf], steps: list[Step]) -> None:
        """The first table, grouped by the first columns of an index, is read in the index's order."""
        wanted = self.scope.grouped or (self._items if self._select.distinct and not self._aggregated else [])
        places = [term.column[1] if term.column is not None else -1 for term in wanted]
        if not steps or steps[0].keys or not places or -1 in places or steps[0].table is None:
            return
        leaf = leaves[steps[0].leaves[0]]
        if any(term.column is None or term.column[0] != leaf.number for term in wanted) or (
            len(steps) > 1 and (not self.scope.grouped or any(step.hashes for step in steps))
        ):
            return
        unique = leaf.indexes and leaf.indexes[0][0] == PRIMARY and set(leaf.indexes[0][2]) <= set(places)
        if unique and not self.scope.aggregates:  # every row is a group: MySQL groups nothing
            return
        for name, _, columns in sorted(leaf.indexes, key=lambda index: index[0] != PRIMARY):
            if set(columns[: len(places)]) == set(places) or (
                name == steps[0].index and set(places) <= set(columns)
            ):
                steps[0].index, self._streamed = name, True
                return

    def scanned(self) -> tuple[str, str | None, bool, str, int] | None:
        """Alias, index, whether it covers, cost and rows of a query that only scans one table; else None."""
        step = self._steps[0] if len(self._steps) == 1 else None
        plain = not (self._where or self._order or self._aggregated or self._select.distinct or self._having)
        if step is None or step.table is None or not plain or self._limit is not None:
            return None
        leaf = self._leaves[0]
        cost = PAGE_COST * leaf.pages + ROW_COST * leaf.rows
        return leaf.source.alias, step.index, True, f"{cost:.3g}", int(leaf.rows)

    def _unique_keys(self) -> list[list[int]]:
        """Columns of the result that are different in every row, as far as ONLY_FULL_GROUP_BY knows."""
        if self._select.distinct:
            return [list(range(len(self._items)))]
        if self.scope.grouped:
            keys = [term.key for term in self._items]
            if all(term.key in keys for term in self.scope.grouped):
                return [[keys.index(term.key) for term in self.scope.grouped]]
            return []
        if self._aggregated:
            return [[]]
        return []

    def rows(self) -> list[tuple]:
        """The rows of the result."""
        if self._limit == 0:
            return []
        flow: Iterable[Row] = self._joiner.rows()
        if self._loose:
            tests = [term.compute for term in self._loose]
            flow = (row for row in flow if all_true(tests, row))
        if self._aggregated:
            flow = self._grouped(flow)
        if self._having is not None:
            having = [self._having.compute]
            flow = [row for row in flow if all_true(having, row)]
        if self.scope.window_calls:
            flow = self._windowed(list(flow))
        if not self._distinct_matters:
            return self._finished(flow)
        if self._aggregated:  # MySQL drops the duplicates of groups by sorting them
            flow = sorted_rows(list(flow), [(term, False) for term in self._items])
        return self._distinct(flow)

    def _finished(self, flow: Iterable[Row]) -> list[tuple]:
        if self._order and (self._aggregated is False or self._select.group):
            flow = self._sorted(list(flow))
        computes = [term.compute for term in self._items]
        wanted = self._limit if self.most_rows is None else min(self._limit or self.most_rows, self.most_rows)
        end = None if wanted is None else self._offset + wanted
        return [tuple([compute(row) for compute in computes]) for row in islice(flow, self._offset, end)]

    def _sorted(self, rows: list[Row]) -> list[Row]:
        """The rows by ORDER BY: read from an index that has that order, else sorted by MySQL's filesort."""
        keys = [(term, descending) for term, descending in self._order if not term.constant]
        backward = None if self._aggregated or self._select.distinct else self._index_order(keys)
        if backward is not None:
            rows = sorted_rows(rows, [(term, False) for term, _ in keys])
            return rows[::-1] if backward else rows
        if (
            self._select.distinct and not self._aggregated
        ):  # one sort orders the rows and drops the duplicates
            keys += [(term, False) for term in self._items if not any(term.key == one.key for one, _ in keys)]
        limit = None if self._limit is None else self._offset + self._limit
        return filesort(rows, keys, limit, self._row_bytes(), self._streamed or not self._aggregated)

    def _index_order(self, keys: Order) -> bool | None:
        """Whether an index of the first table is read backward for an order; None where none has it."""
        if not self._steps or not keys or self._steps[0].table is None:
            return None
        leaf, directions = self._leaves[self._steps[0].leaves[0]], {descending for _, descending in keys}
        places = [term.column[1] if term.column and term.column[0] == leaf.number else -1 for term, _ in keys]
        alone = len(self._steps) == 1
        if len(directions) > 1 or -1 in places or (not alone and True in directions):
            return None
        for name, _, columns in leaf.indexes:
            read = name == (self._steps[0].index or PRIMARY) or (alone and name == PRIMARY and self._limit)
            read = read or (alone and self._limit is not None and self._offset + self._limit <= leaf.pages)
            if read and columns[: len(places)] == tuple(places):
                return True in directions
        return None

    def _row_bytes(self) -> int:
        """Length of a row in the sort's buffer: everything of it that the query uses."""
        if self._aggregated:
            terms = [term.children[0] if term.aggregate and term.children else term for term in self._items]
            columns = [term.column for term in terms if term.column is not None]
            return 8 * len(self._items) + sum(self._leaves[leaf].bytes_of(place) for leaf, place in columns)
        return sum(leaf.bytes_of(place) for leaf in self._leaves for place in leaf.source.used)

    def _distinct(self, flow: Iterable[Row]) -> list[tuple]:
        key = grouped_key(self._items)
        first: dict[Any, Row] = {}
        end = None if self._limit is None or self._order else self._offset + self._limit
        for row in flow:
            first.setdefault(key(row), row)
            if end is not None and len(first) >= end:
                break
        return self._finished(first.values())

    def _grouped(self, flow: Iterable[Row]) -> list[Row]:
        scope = self.scope
        rows = list(flow)
        self._budget.spend(len(rows))
        if not scope.grouped:
            first = rows[0].copy() if rows else self._nothing()
            first[-2] = [made.over(rows) for made in scope.aggregates]
            return [first]
        if self._select.rollup or any(made.sorts for made in scope.aggregates):
            rows = filesort(rows, [(term, False) for term in scope.grouped])
            if self._select.rollup and not rows:
                empty = self._nothing()
                empty[-2] = [made.over([]) for made in scope.aggregates]
                return [empty]
        groups = _gathered(rows, scope.grouped)
        found = []
        for members in groups:
            row = members[0].copy()
            row[-3], row[-2] = len(scope.grouped), [made.over(members) for made in scope.aggregates]
            found.append(row)
        return self._rolled_up(rows, found) if self._select.rollup else found

    def _nothing(self) -> Row:
        return [*((None,) * len(source.columns) for source in self.scope.sources), 0, None, None]

    def _rolled_up(self, rows: list[Row], found: list[Row]) -> list[Row]:
        """The groups, and behind every run of equal first keys a row for all of it."""
        scope, depth = self.scope, len(self.scope.grouped)
        result: list[Row] = []
        keys = [[grouped_key(scope.grouped[:n])(row) if n else () for n in range(depth)] for row in found]
        for place, row in enumerate(found):
            result.append(row)
            for n in range(depth - 1, -1, -1):
                if place + 1 < len(found) and keys[place + 1][n] == keys[place][n]:
                    break
                key = grouped_key(scope.grouped[:n]) if n else (lambda row: ())
                members = [one for one in rows if key(one) == keys[place][n]]
                result.append(self._super_row(row, members, n))
        return result

    def _super_row(self, row: Row, members: list[Row], depth: int) -> Row:
        super_row = row.copy()
        for term in self.scope.grouped[depth:]:
            if term.column is not None:
                leaf, place = term.column
                values = list(super_row[leaf])
                values[place] = None
                super_row[leaf] = tuple(values)
        super_row[-3], super_row[-2] = depth, [made.over(members) for made in self.scope.aggregates]
        return super_row

    def _windowed(self, rows: list[Row]) -> list[Row]:
        for row in rows:
            row[-1] = [None] * len(self.scope.window_calls)
        for number, made in enumerate(self.scope.window_calls):
            rows = made.apply(rows, number)
        self._budget.spend(len(rows))
        return rows


def _gathered(rows: list[Row], terms: Sequence[Term]) -> Iterable[list[Row]]:
    key = grouped_key(terms)
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups.values()


def _inner_conditions(tree: Tree | None) -> list[Term]:
    """The conditions of joins, whose equalities let one column determine another."""
    if tree is None or tree.left is None or tree.right is None:
        return []
    return [*_inner_conditions(tree.left), *_inner_conditions(tree.right), *tree.on]


def _has_straight(tree: Tree) -> bool:
    if tree.left is None or tree.right is None:
        return False
    return tree.kind == "straight" or _has_straight(tree.left) or _has_straight(tree.right)
