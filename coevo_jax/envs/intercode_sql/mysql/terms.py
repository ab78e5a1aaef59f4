"""Bound expressions: what computes them, their types, and what they use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.nodes import Node
from coevo_jax.envs.intercode_sql.mysql.schema import NULL, SqlType, TableSchema

Row = list[Any]
"""One joined row: for every source a tuple of its values, then the aggregates, then the windows."""
Compute = Callable[[Row], Any]


@dataclass(slots=True, eq=False)
class Term:
    """An expression bound to the columns of its query."""

    compute: Compute
    type: SqlType
    key: Any = None  # equal for terms that mean the same
    children: "Sequence[Term]" = ()
    uses: int = 0  # bits of the sources of its own query that it reads
    outer: bool = False  # whether it reads a row of a query around its own
    constant: bool = False
    column: tuple[int, int] | None = None  # source and place of a plain column of its own query
    aggregate: bool = False  # whether it is itself an aggregate
    aggregated: bool = False  # whether an aggregate stands in it
    windowed: bool = False
    reads: "Sequence[Term]" = ()  # columns of its own query that queries inside it read
    literal: Any = None  # the Literal node of a plain constant
    label: str = ""  # of a column, as errors name it: database.table.column

    @property
    def value(self) -> Any:
        """The value of a constant."""
        return self.compute([])


@dataclass(slots=True, eq=False)
class Source:
    """A table, derived table or common table in FROM."""

    alias: str
    database: str
    columns: list[tuple[str, SqlType]]
    base: TableSchema | None = None
    rows: Callable[[], Sequence[tuple]] | None = None  # of a derived table
    plan: Any = None
    optional: bool = False  # the inner side of an outer join
    used: set[int] = field(default_factory=set)
    hints: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    shown: str = ""  # its name in errors, where it is not the alias
    node: Node | None = None


class Scope:
    """The sources that names of one query mean, inside the scopes of the queries around it."""

    def __init__(self, outer: "Scope | None" = None):
        self.outer = outer
        self.sources: list[Source] = []
        self.frame: list[Any] = [None]  # the row that inner queries look at
        self.hidden: set[tuple[int, int]] = set()  # columns that USING merged into others
        self.merged: list[tuple[int, int]] = []  # those others, which `*` shows first
        self.reads: list[Term] = []  # columns that queries inside read, as terms of this query
        self.items: list[tuple[str, Term]] = []  # the select list: names and terms
        self.grouped: list[Term] = []
        self.windows: dict[str, Any] = {}
        self.aggregates: list[Any] = []
        self.window_calls: list[Any] = []
        self.place = "field list"
        self.aggregates_allowed = False
        self.windows_allowed = False
        self.inside_aggregate = False
        self.visible: set[int] | None = None  # the sources that an ON may name
        self.common: dict[str, Any] = dict(outer.common) if outer is not None else {}

    def find(self, parts: tuple[str, ...]) -> list[tuple[int, int]]:
        """Sources and places of the columns that a name means here."""
        name = parts[-1].lower()
        table = parts[-2].lower() if len(parts) > 1 else None
        database = parts[-3].lower() if len(parts) > 2 else None
        found = []
        for number, source in enumerate(self.sources):
            if self.visible is not None and number not in self.visible:
                continue
            if table is not None and table != source.alias.lower():
                continue
            if database is not None and database != source.database.lower():
                continue
            for place, (column, _) in enumerate(source.columns):
                if column.lower() == name and (table is not None or (number, place) not in self.hidden):
                    found.append((number, place))
        return found

    def has_table(self, parts: tuple[str, ...]) -> bool:
        """Whether `t.*` or `d.t.*` names a source."""
        return any(
            source.alias.lower() == parts[-1].lower()
            and (len(parts) == 1 or source.database.lower() == parts[0].lower())
            for source in self.sources
        )


def constant(value: Any, kind: SqlType, literal: Any = None) -> Term:
    """A term that is always the same value."""
    return Term(
        lambda row: value, kind, ("constant", type(value).__name__, value), constant=True, literal=literal
    )


def combine(compute: Compute, kind: SqlType, name: str, children: Sequence[Term]) -> Term:
    """A term made of others; computed at once where all of them are constants."""
    term = Term(
        compute,
        kind,
        (name, *[child.key for child in children]),
        children,
        constant=bool(children) and all(child.constant for child in children),
    )
    for child in children:
        term.uses |= child.uses
        term.outer = term.outer or child.outer
        term.aggregated = term.aggregated or child.aggregated
        term.windowed = term.windowed or child.windowed
    return term


def fold(term: Term) -> Term:
    """The term, with its value kept where it is a constant."""
    if not term.constant or term.literal is not None:
        return term
    value = term.compute([])
    term.compute = lambda row: value
    return term


def merged_type(kinds: Sequence[SqlType]) -> SqlType:
    """The one type of values that come from several terms: UNION, CASE, COALESCE."""
    present = [kind for kind in kinds if kind.kind != "null"]
    if not present:
        return NULL
    first = present[0]
    if all(kind == first for kind in present):
        return first
    names = {kind.kind for kind in present}
    if names == {"int"}:
        return SqlType(kind="decimal", scale=0)
    if names <= {"int", "decimal"}:
        return SqlType(kind="decimal", scale=max(kind.scale or 0 for kind in present))
    if names <= {"int", "decimal", "double", "float"}:
        fixed = all(kind.scale is not None or kind.kind == "int" for kind in present)
        scale = max(kind.scale or 0 for kind in present) if fixed else None
        return SqlType(kind="float" if names == {"float"} else "double", scale=scale)
    if names <= {"date", "datetime", "time"}:
        return SqlType(kind=first.kind if len(names) == 1 else "datetime")
    return SqlType(kind="bytes" if names == {"bytes"} else "text")
