"""What MySQL's optimizer knows of one source: indexes, rows that a condition leaves, costs of reading."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.tables import PAGE_BYTES, PRIMARY, StoredTable
from coevo_jax.envs.intercode_sql.mysql.terms import Source, Term

PAGE_COST, ROW_COST = 0.25, 0.1
"""MySQL's costs of a page in memory and of looking at a row."""
FILTERS = {
    "=": 0.1,
    "<=>": 0.1,
    "is null": 0.1,
    "between": 0.1111,
    "like": 0.1111,
    "<>": 0.9,
    "is not null": 0.9,
}
INEQUALITY = 0.3333
LONG_TEXT_BYTES = 65_538  # that a sort keeps room for
RANGES = frozenset({"<", "<=", ">", ">=", "between", "in", "=", "<>", "like"})


@dataclass(slots=True, eq=False)
class Leaf:
    """A source as the optimizer sees it."""

    number: int
    source: Source
    table: StoredTable | None
    rows: float
    pages: float
    filters: list[Term] = field(default_factory=list)  # conditions on it alone

    @property
    def indexes(self) -> list[tuple[str, bool, tuple[int, ...]]]:
        """Name, whether it is unique, and columns of every index; the primary key first."""
        if self.table is None:
            return []
        schema = self.table.schema
        ignored = {name.lower() for kind, names in self.source.hints if kind == "ignore" for name in names}
        found = [(PRIMARY, True, self.table.key_places(PRIMARY))] if schema.primary_key else []
        found += [(index.name, index.unique, self.table.key_places(index.name)) for index in schema.indexes]
        return [index for index in found if index[0].lower() not in ignored]

    def bytes_of(self, place: int) -> int:
        """Length of a column's longest value in a row."""
        if self.source.base is None:
            return 8
        column = self.source.base.columns[place]
        if column.sql_type.kind not in ("text", "bytes"):
            return 8
        digits = re.search(r"\((\d+)\)", column.type)
        return 4 * int(digits[1]) + 2 if digits else LONG_TEXT_BYTES

    def covers(self, index: str, places: Sequence[int]) -> bool:
        """Whether an index, with the primary key that ends it, holds all columns that the query uses."""
        held = set(places)
        if self.table is not None and self.table.schema.primary_key and index != PRIMARY:
            held |= set(self.table.key_places(PRIMARY))
        return self.source.used <= held

    def covering(self) -> str | None:
        """The index that a scan of the whole source reads: the shortest one that covers it."""
        best: tuple[int, str] | None = None
        for name, _, places in self.indexes:
            if name != PRIMARY and self.covers(name, places):
                length = sum(_key_bytes(self.source.columns[place], self.table) for place in places)
                if best is None or length < best[0]:
                    best = (length, name)
        if best is None:
            return None
        places = next(places for name, _, places in self.indexes if name == best[1])
        if (
            self.table is not None
            and self.table.schema.primary_key
            and len(places) >= len(self.source.columns)
        ):
            return None
        return best[1]


def _key_bytes(column: tuple[str, Any], table: StoredTable | None) -> int:
    """Length of a column in an index."""
    if table is None:
        return 8
    schema = next(one for one in table.schema.columns if one.name.lower() == column[0].lower())
    digits = "".join(c for c in schema.type.partition("(")[2].partition(")")[0] if c.isdigit())
    nullable = int(schema.nullable)
    if schema.sql_type.kind == "text":
        return 4 * int(digits or 255) + 2 + nullable
    return {"int": 4, "datetime": 5, "date": 3, "float": 4}.get(schema.sql_type.kind, 8) + nullable


def describe_leaf(number: int, source: Source, table: StoredTable | None) -> Leaf:
    """A source with its size."""
    if table is None:
        rows = 2.0 if source.rows is None else float(max(2, _estimate(source)))
        return Leaf(number, source, None, rows, 1.0)
    count = len(table.rows)
    return Leaf(number, source, table, float(count), table_pages(table))


def _estimate(source: Source) -> int:
    return len(source.plan.rows()) if source.plan is not None and not source.plan.outer_scopes else 2


def table_pages(table: StoredTable) -> float:
    """Pages of a table's rows, as InnoDB would fill them."""
    if not table.rows:
        return 1.0
    sample = table.rows[:200]
    bytes_per_row = sum(_bytes(value) for row in sample for value in row) / len(sample) + 20
    return max(1.0, float(math.ceil(bytes_per_row * len(table.rows) / (PAGE_BYTES * 15 / 16))))


def _bytes(value: Any) -> int:
    if value is None:
        return 0
    return len(value.encode()) + 1 if isinstance(value, str) else 4 if isinstance(value, int) else 8


def selectivity(term: Term, leaf: Leaf) -> float:
    """The share of a source's rows that MySQL expects a condition to leave."""
    sign = term.key[0] if isinstance(term.key, tuple) else ""
    parts = [selectivity(child, leaf) for child in term.children]
    if sign == "and":
        return math.prod(parts)
    if sign == "or":
        return 1 - math.prod(1 - part for part in parts)
    if sign == "not":
        inner = term.children[0].key[0]
        return 1 - parts[0] if inner in ("in", "like", "between", "=") else 1.0
    if sign in ("=", "<=>") and (places := _own_columns(term, leaf)):
        return _by_statistics(places[0], leaf)
    if sign == "in":
        return min(0.5, 0.1 * (len(term.children) - 1)) if len(term.children) > 1 else 1.0
    if sign in ("<", "<=", ">", ">="):
        return INEQUALITY if _own_columns(term, leaf) else 1.0
    return FILTERS.get(sign, 1.0) if sign in FILTERS and _own_columns(term, leaf) else 1.0


def _own_columns(term: Term, leaf: Leaf) -> list[int]:
    return [c.column[1] for c in term.children if c.column is not None and c.column[0] == leaf.number]


def _by_statistics(place: int, leaf: Leaf) -> float:
    for _, _, places in leaf.indexes:
        if places[0] == place and leaf.table is not None and leaf.rows:
            return leaf.table.per_key(places[:1]) / leaf.rows
    return FILTERS["="]


def counted(term: Term, leaf: Leaf) -> float | None:
    """How many rows a range over an index has, for MySQL looks them up; None where there is no such index."""
    place = ranged(term, leaf)
    if place is None or leaf.table is None or not any(places[0] == place for _, _, places in leaf.indexes):
        return None
    row: list[Any] = [None] * (leaf.number + 1)
    total = 0
    for values in leaf.table.rows:
        row[leaf.number] = values
        total += bool(term.compute(row))
    return float(max(1, total))


def ranged(term: Term, leaf: Leaf) -> int | None:
    """The column that a condition bounds by constants; None where it is no range."""
    sign = term.key[0] if isinstance(term.key, tuple) else ""
    if sign == "or":
        found = {ranged(child, leaf) for child in term.children}
        return next(iter(found)) if len(found) == 1 else None
    if sign not in RANGES or leaf.table is None or term.outer or term.reads or not term.children:
        return None
    columns = _own_columns(term, leaf)
    if len(columns) != 1 or term.children[0].column is None or not all(c.constant for c in term.children[1:]):
        return None
    if sign == "like" and str(term.children[1].value or "%")[:1] in "%_":
        return None
    return columns[0]
