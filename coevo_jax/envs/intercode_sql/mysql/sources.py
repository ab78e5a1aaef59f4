"""Binds FROM: its tables, derived tables and joins, and which columns USING and NATURAL make one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.binding import Binder
from coevo_jax.envs.intercode_sql.mysql.nodes import Node, Operation
from coevo_jax.envs.intercode_sql.mysql.planner import PlanItem
from coevo_jax.envs.intercode_sql.mysql.schema import SqlType
from coevo_jax.envs.intercode_sql.mysql.tables import StoredDatabase
from coevo_jax.envs.intercode_sql.mysql.terms import Scope, Source, Term
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

Information = Callable[[str], "tuple[list[tuple[str, SqlType]], Callable[[], Sequence[tuple]]] | None"]
NULL_REJECTING = frozenset(
    {"=", "<>", "<", "<=", ">", ">=", "like", "between", "in", "is not null", "regexp"}
)


@dataclass(slots=True, eq=False)
class Tree:
    """A part of FROM: a source, or a join of two parts."""

    leaves: tuple[int, ...]
    kind: str = "leaf"
    left: "Tree | None" = None
    right: "Tree | None" = None
    node: nodes.Join | None = None
    equal: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    on: list[Term] = field(default_factory=list)
    names: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # columns that NATURAL may join


@dataclass(frozen=True, kw_only=True)
class World:
    """What tables there are for a statement."""

    database: StoredDatabase
    others: frozenset[str]  # databases that exist and are not to be read
    information: Information


class SourceBinder:
    """Binds the FROM of one query into its scope."""

    def __init__(self, world: World, scope: Scope, common: Mapping[str, Any], build: Callable[..., Any]):
        self._world = world
        self._scope = scope
        self._common = common
        self._build = build

    def tree(self, node: Node) -> Tree:
        """Adds the sources of a part of FROM to the scope."""
        if isinstance(node, nodes.Join):
            return self._join(node)
        source = self._derived(node) if isinstance(node, nodes.Derived) else self._table(node)
        for other in self._scope.sources:
            if other.alias.lower() == source.alias.lower() and other.database == source.database:
                raise SqlError(f"Not unique table/alias: '{source.alias}'")
        number = len(self._scope.sources)
        self._scope.sources.append(source)
        names: dict[str, list[tuple[int, int]]] = {}
        for place, (name, _) in enumerate(source.columns):
            names.setdefault(name.lower(), []).append((number, place))
        return Tree((number,), names=names)

    def _table(self, node: Node) -> Source:
        assert isinstance(node, nodes.Table)
        if node.database is None and (plan := self._common.get(node.name.lower())) is not None:
            plan = plan()
            return Source(node.alias, "", plan.columns, rows=plan.rows, plan=plan, hints=node.hints)
        if (node.database or "").lower() == "information_schema":
            found = self._world.information(node.name)
            if found is None:
                raise SqlError(f"Unknown table '{node.name.upper()}' in information_schema")
            columns, rows = found
            return Source(node.alias, "information_schema", columns, rows=rows)
        table = self._world.database.tables.get(node.name.lower())
        if table is None:
            raise errors.no_such_table(self._world.database.name, node.name.lower())
        columns = [(column.name, column.sql_type) for column in table.schema.columns]
        return Source(
            node.alias, self._world.database.name, columns, base=table.schema, hints=node.hints, node=node
        )

    def _derived(self, node: nodes.Derived) -> Source:
        plan = self._build(node.query, self._scope if node.lateral else self._scope.outer)
        columns = plan.columns
        if node.columns:
            if len(node.columns) != len(columns):
                raise SqlError(
                    "In definition of view, derived table or common table expression, SELECT list and column "
                    "names list have different column counts"
                )
            columns = [(name, kind) for name, (_, kind) in zip(node.columns, columns, strict=True)]
        seen: set[str] = set()
        for name, _ in columns:
            if name.lower() in seen:
                raise SqlError(f"Duplicate column name '{name}'")
            seen.add(name.lower())
        return Source(node.alias, "", list(columns), rows=_once(plan), plan=plan)

    def _join(self, node: nodes.Join) -> Tree:
        first, second = self.tree(node.left), self.tree(node.right)
        left, right = (second, first) if node.kind == "right" else (first, second)
        kind = "left" if node.kind in ("left", "right") else node.kind
        tree = Tree((*first.leaves, *second.leaves), kind, left, right, node)
        if kind == "left":
            for leaf in right.leaves:
                self._scope.sources[leaf].optional = True
        shared = self._shared(node, left, right)
        tree.names = {
            name: [*first.names.get(name, []), *second.names.get(name, [])]
            for name in {**first.names, **second.names}
        }
        for name in shared:
            mine, theirs = left.names[name][0], right.names[name][0]
            tree.equal.append((mine, theirs))
            self._scope.hidden.add(theirs)
            tree.names[name] = [mine]
            self._scope.merged = [*[place for place in self._scope.merged if place != mine], mine]
        return tree

    def _shared(self, node: nodes.Join, left: Tree, right: Tree) -> list[str]:
        if node.natural:
            order = [name for name in left.names if name in right.names]
            return order
        names = [name.lower() for name in node.using or ()]
        for name, written in zip(names, node.using or (), strict=True):
            for side in (left, right):
                found = side.names.get(name, [])
                if not found:
                    raise errors.unknown_column(written, "from clause")
                if len(found) > 1:
                    raise SqlError(f"Column '{written}' in from clause is ambiguous")
        return names


def _once(plan: Any) -> Callable[[], Sequence[tuple]]:
    if plan.outer_scopes:
        return plan.rows
    kept: list[Sequence[tuple]] = []

    def rows() -> Sequence[tuple]:
        if not kept:
            kept.append(plan.rows())
        return kept[0]

    return rows


def conjuncts(node: Node | None) -> list[Node]:
    """The parts of a condition that must all hold."""
    if node is None:
        return []
    if isinstance(node, Operation) and node.sign == "and":
        return [*conjuncts(node.operands[0]), *conjuncts(node.operands[1])]
    return [node]


def bind_conditions(tree: Tree, binder: Binder, scope: Scope) -> None:
    """Binds the ON of every join; each sees the sources of its own two sides only."""
    if tree.left is None or tree.right is None or tree.node is None:
        return
    bind_conditions(tree.left, binder, scope)
    bind_conditions(tree.right, binder, scope)
    scope.place, scope.visible = "on clause", set(tree.leaves)
    for node in conjuncts(tree.node.on):
        tree.on.append(binder.bind_scalar(node))
    for mine, theirs in tree.equal:
        tree.on.append(binder.equal_columns(mine, theirs))
    scope.visible = None


def items_of(tree: Tree, conditions: list[Term]) -> tuple[list[PlanItem], list[Term]]:
    """What a planner puts together, and the conditions of inner joins.

    Outer joins that a condition makes inner, for it is never true on NULLs, are inner ones.
    """
    if tree.left is None or tree.right is None:
        return [PlanItem(tree.leaves)], []
    if tree.kind != "left":
        inner = [*conditions, *tree.on]
        left_items, left_on = items_of(tree.left, inner)
        right_items, right_on = items_of(tree.right, inner)
        return [*left_items, *right_items], [*left_on, *right_on, *tree.on]
    mask = sum(1 << leaf for leaf in tree.right.leaves)
    if any(_rejects_null(term, mask) for term in conditions):
        inner = [*conditions, *tree.on]
        left_items, left_on = items_of(tree.left, inner)
        right_items, right_on = items_of(tree.right, inner)
        return [*left_items, *right_items], [*left_on, *right_on, *tree.on]
    left_items, left_on = items_of(tree.left, conditions)
    inside, inner_conditions = items_of(tree.right, tree.on)
    needs = sum(1 << leaf for leaf in tree.left.leaves)
    item = PlanItem(tree.right.leaves, needs, tree.on, inside, inner_conditions, True)
    return [*left_items, item], left_on


def _rejects_null(term: Term, mask: int) -> bool:
    sign = term.key[0] if isinstance(term.key, tuple) else ""
    if sign == "and":
        return any(_rejects_null(child, mask) for child in term.children)
    if sign == "or":
        return all(_rejects_null(child, mask) for child in term.children)
    if sign == "not":
        return term.children[0].key[0] in ("like", "between", "in", "=") and _rejects_null(
            term.children[0], mask
        )
    sides = term.children[:1] if sign in ("in", "between", "like") else term.children
    return sign in NULL_REJECTING and any(child.column is not None and child.uses & mask for child in sides)
