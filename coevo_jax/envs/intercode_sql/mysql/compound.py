"""Whole queries: set operations, VALUES, WITH, and the plan of any of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import nodes
from coevo_jax.envs.intercode_sql.mysql.aggregates import grouped_key
from coevo_jax.envs.intercode_sql.mysql.binding import Binder
from coevo_jax.envs.intercode_sql.mysql.forms import as_type
from coevo_jax.envs.intercode_sql.mysql.names import order_term
from coevo_jax.envs.intercode_sql.mysql.schema import SqlType
from coevo_jax.envs.intercode_sql.mysql.select import SelectPlan
from coevo_jax.envs.intercode_sql.mysql.sorting import sorted_rows
from coevo_jax.envs.intercode_sql.mysql.sources import World
from coevo_jax.envs.intercode_sql.mysql.terms import Row, Scope, Source, Term, merged_type
from coevo_jax.envs.intercode_sql.mysql.work_limit import Budget
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

MOST_ROUNDS = 1000
RECURSION = (
    "Recursive query aborted after 1001 iterations. Try increasing @@cte_max_recursion_depth to a "
    "larger value."
)
WIDTHS = "The used SELECT statements have a different number of columns"


class Builder:
    """Builds the plans of a statement's queries."""

    def __init__(self, world: World, budget: Budget, full_group_by: bool):
        self._world, self._budget, self._full_group_by = world, budget, full_group_by

    def build(self, query: nodes.Query, outer: Scope | None = None) -> Any:
        """The plan of a query inside the scope around it.

        Raises:
          SqlError: MySQL refuses the query; in its words.
        """
        if query.tables:
            outer = self._with(query, outer)
        body = query.body
        if isinstance(body, nodes.Select):
            if body.locking:
                raise SqlError(_locked(body))
            return SelectPlan(body, query, outer, self._world, self.build, self._budget, self._full_group_by)
        if isinstance(body, nodes.Query):
            plan = self.build(body, outer)
        elif isinstance(body, nodes.Values):
            plan = self._values(body, outer)
        else:
            plan = SetPlan(body, self.build(body.left, outer), self.build(body.right, outer), self._budget)
        return OrderedPlan(plan, query, outer, self) if query.order or query.limit is not None else plan

    def binder(self, scope: Scope) -> Binder:
        """A binder of a scope."""
        return Binder(scope, self.build, self._budget, self._world.database.name)

    def _values(self, body: nodes.Values, outer: Scope | None) -> "Plan":
        binder = self.binder(Scope(outer))
        rows = [[binder.bind_scalar(cell) for cell in row] for row in body.rows]
        if len({len(row) for row in rows}) > 1:
            raise SqlError("Column count doesn't match value count at row 2")
        kinds = [merged_type([row[i].type for row in rows]) for i in range(len(rows[0]))]
        columns = [(f"column_{i}", kind) for i, kind in enumerate(kinds)]
        computes = [[as_type(term, kind) for term, kind in zip(row, kinds, strict=True)] for row in rows]
        return Plan(columns, lambda: [tuple(c([]) for c in row) for row in computes], binder.outer_scopes)

    def _with(self, query: nodes.Query, outer: Scope | None) -> Scope:
        scope = Scope(outer)
        for table in query.tables:
            if (
                query.recursive
                and isinstance(table.query.body, nodes.SetOperation)
                and _names(table.query, table.name)
            ):
                plan = self._recursive(table, scope)
                scope.common[table.name.lower()] = lambda plan=plan: plan
            else:
                scope.common[table.name.lower()] = self._common(table, scope)
        return scope

    def _common(self, table: nodes.CommonTable, scope: Scope) -> Callable[[], Any]:
        around = Scope(scope.outer)
        around.common = dict(scope.common)
        made: list[Plan] = []
        kept: list[Sequence[tuple]] = []

        def plan() -> Plan:
            if not made:
                inner = self.build(table.query, around)

                def rows() -> Sequence[tuple]:
                    if not kept:
                        kept.append(inner.rows())
                    return kept[0]

                made.append(
                    Plan(_renamed(inner.columns, table.columns), rows, inner.outer_scopes, inner.keys)
                )
            return made[0]

        return plan

    def _recursive(self, table: nodes.CommonTable, scope: Scope) -> "Plan":
        body = table.query.body
        assert isinstance(body, nodes.SetOperation)
        first = self.build(body.left, scope)
        columns = _renamed(first.columns, table.columns)
        latest: list[Sequence[tuple]] = [[]]
        step = Plan(columns, lambda: latest[0], set())
        inside = Scope(scope)
        inside.common[table.name.lower()] = lambda: step
        again = self.build(body.right, inside)
        if len(again.columns) != len(columns):
            raise SqlError(WIDTHS)
        limit = table.query.limit.value if isinstance(table.query.limit, nodes.Literal) else None
        budget, distinct = self._budget, body.distinct

        def rows() -> list[tuple]:
            found = list(first.rows())
            seen = set(found) if distinct else set()
            latest[0] = found
            for _ in range(MOST_ROUNDS + 1):
                new = again.rows()
                if distinct:
                    new = [row for row in new if not (row in seen or seen.add(row))]
                budget.spend(len(new) + 1)
                if not new or (limit is not None and len(found) >= limit):
                    return found if limit is None else found[:limit]
                found = [*found, *new]
                latest[0] = new
            raise SqlError(RECURSION)

        return Plan(columns, rows, first.outer_scopes | again.outer_scopes)


def _renamed(columns: list[tuple[str, SqlType]], names: Sequence[str]) -> list[tuple[str, SqlType]]:
    if names and len(names) != len(columns):
        raise SqlError(
            "In definition of view, derived table or common table expression, SELECT list and column names "
            "list have different column counts"
        )
    return [(name, kind) for name, (_, kind) in zip(names, columns, strict=True)] if names else columns


def _names(query: nodes.Node, name: str) -> bool:
    """Whether a query reads a table of a name."""
    return any(isinstance(node, nodes.Table) and node.name.lower() == name.lower() for node in walk(query))


def walk(node: Any) -> Iterable[Any]:
    """A node and all below it."""
    if isinstance(node, nodes.Node):
        yield node
        for field in node.__slots__:
            yield from walk(getattr(node, field))
    elif isinstance(node, list | tuple):
        for part in node:
            yield from walk(part)
    elif isinstance(node, dict):
        for part in node.values():
            yield from walk(part)


def _locked(select: nodes.Select) -> str:
    table = next((node for node in walk(select.source) if isinstance(node, nodes.Table)), None)
    return (
        "SELECT with locking clause command denied to user 'agent'@'localhost' for table "
        f"'{table.name.lower() if table else ''}'"
    )


class Plan:
    """Rows and their columns."""

    def __init__(
        self,
        columns: list[tuple[str, SqlType]],
        rows: Callable[[], Sequence[tuple]],
        outer_scopes: set[int],
        keys: list[list[int]] | None = None,
    ):
        self.columns, self.rows, self.outer_scopes, self.keys = columns, rows, outer_scopes, keys or []


class SetPlan:
    """UNION, EXCEPT or INTERSECT: the rows of the left query in their order, then those of the right."""

    def __init__(self, node: nodes.SetOperation, left: Any, right: Any, budget: Budget):
        if len(left.columns) != len(right.columns):
            raise SqlError(WIDTHS)
        self._kind, self._distinct, self._budget = node.kind, node.distinct, budget
        self._left, self._right = left, right
        self.columns = [
            (name, merged_type([kind, other]))
            for (name, kind), (_, other) in zip(left.columns, right.columns, strict=True)
        ]
        self.outer_scopes = left.outer_scopes | right.outer_scopes
        self.keys = [list(range(len(self.columns)))] if node.distinct else []
        self._key = grouped_key([Term(_cell(i), kind) for i, (_, kind) in enumerate(self.columns)])

    def _read(self, plan: Any) -> list[tuple]:
        rows = plan.rows()
        self._budget.spend(len(rows))
        computes = [
            as_type(Term(_cell(i), kind), target)
            for i, ((_, kind), (_, target)) in enumerate(zip(plan.columns, self.columns, strict=True))
        ]
        if all(kind == target for (_, kind), (_, target) in zip(plan.columns, self.columns, strict=True)):
            return list(rows)
        return [tuple([compute([row]) for compute in computes]) for row in rows]

    def rows(self) -> list[tuple]:
        """The rows of the result."""
        left, right = self._read(self._left), self._read(self._right)
        key = self._key
        if self._kind == "union":
            if not self._distinct:
                return [*left, *right]
            return list(_first(key, [*left, *right]).values())
        counts: dict[Any, int] = {}
        for row in right:
            counts[key([row])] = counts.get(key([row]), 0) + 1
        if self._distinct:
            kept = _first(key, left)
            return [row for k, row in kept.items() if (k in counts) == (self._kind == "intersect")]
        found = []
        for row in left:
            k = key([row])
            shared = counts.get(k, 0) > 0
            if shared:
                counts[k] -= 1
            if shared == (self._kind == "intersect"):
                found.append(row)
        return found


def _cell(place: int) -> Callable[[Row], Any]:
    return lambda row: row[0][place]


def _first(key: Callable[[Row], Any], rows: Iterable[tuple]) -> dict[Any, tuple]:
    found: dict[Any, tuple] = {}
    for row in rows:
        found.setdefault(key([row]), row)
    return found


class OrderedPlan:
    """ORDER BY and LIMIT around a set operation or a query in brackets."""

    def __init__(self, plan: Any, query: nodes.Query, outer: Scope | None, builder: Builder):
        self._plan = plan
        self.columns, self.outer_scopes, self.keys = plan.columns, plan.outer_scopes, plan.keys
        scope = Scope(outer)
        scope.sources = [Source("", "", plan.columns)]
        binder = builder.binder(scope)
        scope.place = "order clause"
        scope.items = [(name, binder.column_at((0, i))) for i, (name, _) in enumerate(plan.columns)]
        self._order = [(order_term(binder, key.term, True), key.descending) for key in query.order]
        self._limit = query.limit.value if isinstance(query.limit, nodes.Literal) else None
        self._offset = query.offset.value if isinstance(query.offset, nodes.Literal) else 0

    def rows(self) -> list[tuple]:
        """The rows of the result."""
        rows: list[Row] = [[row] for row in self._plan.rows()]
        if self._order:
            rows = sorted_rows(rows, self._order)
        end = None if self._limit is None else self._offset + self._limit
        return [row[0] for row in rows[self._offset : end]]
