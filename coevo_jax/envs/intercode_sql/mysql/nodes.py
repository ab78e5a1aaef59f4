"""The parts of a parsed MySQL query."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Node:
    """A part of a statement."""


@dataclass(slots=True, eq=False)
class Literal(Node):
    """A constant. `kind`: int, decimal, double, text, bytes, null, date, time, datetime."""

    value: Any
    kind: str
    scale: int = 0


@dataclass(slots=True, eq=False)
class Name(Node):
    """A column, an alias, or with two or three parts a column of a table."""

    parts: tuple[str, ...]

    @property
    def written(self) -> str:
        """The name as errors show it."""
        return ".".join(self.parts)


@dataclass(slots=True, eq=False)
class Star(Node):
    """`*` or `t.*`."""

    parts: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Variable(Node):
    """A user variable @x or a system variable @@x."""

    name: str
    system: bool


@dataclass(slots=True, eq=False)
class Operation(Node):
    """An operator and what it works on; `sign`: "+", "and", "not", "like", "is null", ..."""

    sign: str
    operands: list[Node]


@dataclass(slots=True, eq=False)
class Call(Node):
    """A function. `name` in small letters; `native`: whether the lexer took its name for a function's."""

    name: str
    arguments: list[Node]
    written: str = ""
    distinct: bool = False
    star: bool = False
    order: list["Key"] = field(default_factory=list)
    separator: str | None = None
    window: "Window | str | None" = None


@dataclass(slots=True, eq=False)
class Cast(Node):
    """CAST and CONVERT. `kind`: signed, unsigned, char, binary, decimal, double, float, date, ..."""

    operand: Node
    kind: str
    length: int | None = None
    scale: int | None = None


@dataclass(slots=True, eq=False)
class Interval(Node):
    """INTERVAL 3 DAY, only beside + and - and in date functions."""

    count: Node
    unit: str


@dataclass(slots=True, eq=False)
class Case(Node):
    """CASE [operand] WHEN ... THEN ... [ELSE ...] END."""

    operand: Node | None
    branches: list[tuple[Node, Node]]
    otherwise: Node | None


@dataclass(slots=True, eq=False)
class Subquery(Node):
    """A query in brackets. `role`: scalar, exists, or one side of in, any, all."""

    query: "Query"
    role: str = "scalar"


@dataclass(slots=True, eq=False)
class Row(Node):
    """(a, b)."""

    items: list[Node]


@dataclass(slots=True, eq=False)
class Key(Node):
    """A term of ORDER BY or GROUP BY."""

    term: Node
    descending: bool = False


@dataclass(slots=True, eq=False)
class Window(Node):
    """OVER (...), or a named window."""

    partition: list[Node]
    order: list[Key]
    frame: tuple[str, tuple[str, Node | None], tuple[str, Node | None]] | None = None
    base: str | None = None


@dataclass(slots=True, eq=False)
class Item(Node):
    """An item of a select list."""

    term: Node
    alias: str | None
    text: str


@dataclass(slots=True, eq=False)
class Table(Node):
    """A table in FROM."""

    database: str | None
    name: str
    alias: str
    hints: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Derived(Node):
    """A query in FROM."""

    query: "Query"
    alias: str
    columns: tuple[str, ...] = ()
    lateral: bool = False


@dataclass(slots=True, eq=False)
class Join(Node):
    """Two sides of FROM. `kind`: inner, left, right, straight."""

    kind: str
    left: "Node"
    right: "Node"
    on: Node | None = None
    using: tuple[str, ...] | None = None
    natural: bool = False


@dataclass(slots=True, eq=False)
class Select(Node):
    """One SELECT."""

    items: list[Item]
    distinct: bool = False
    source: Node | None = None
    where: Node | None = None
    group: list[Key] = field(default_factory=list)
    rollup: bool = False
    having: Node | None = None
    windows: dict[str, Window] = field(default_factory=dict)
    into: bool = False
    locking: bool = False


@dataclass(slots=True, eq=False)
class Values(Node):
    """VALUES ROW(...), ROW(...)."""

    rows: list[list[Node]]


@dataclass(slots=True, eq=False)
class SetOperation(Node):
    """UNION, EXCEPT or INTERSECT of two queries."""

    kind: str
    distinct: bool
    left: "Query"
    right: "Query"


@dataclass(slots=True, eq=False)
class CommonTable(Node):
    """A query of WITH."""

    name: str
    columns: tuple[str, ...]
    query: "Query"


@dataclass(slots=True, eq=False)
class Query(Node):
    """A query with what may surround it."""

    body: "Select | Values | SetOperation | Query"
    order: list[Key] = field(default_factory=list)
    limit: Node | None = None
    offset: Node | None = None
    tables: list[CommonTable] = field(default_factory=list)
    recursive: bool = False
