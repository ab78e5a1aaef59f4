"""Generated databases: the same words everywhere, but which tables and columns carry them differs."""

from dataclasses import dataclass

import numpy as np

from coevo_jax.envs.intercode_sql.lexicon import INTEGER_CONCEPTS, INTEGER_RANGE, NAMES, TEXT_CONCEPTS, Domain
from coevo_jax.envs.intercode_sql.sqlite_sandbox import Database

VALUES_PER_COLUMN = 5
"""Different values of a text column: few, so that a filter on one leaves several rows."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that questions ask about."""

    word: str  # in a question
    name: str  # in the database
    values: tuple[str, ...] = ()  # of a text column; empty for an integer


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table that questions ask about: columns `id`, `name`, perhaps `<parent>_id`, and concepts."""

    word: str
    name: str
    columns: tuple[Column, ...]
    parent: "TableSpec | None" = None

    @property
    def texts(self) -> list[Column]:
        return [column for column in self.columns if column.values]

    @property
    def integers(self) -> list[Column]:
        return [column for column in self.columns if not column.values]

    def has(self, word: str) -> bool:
        return any(column.word == word for column in self.columns)


@dataclass(frozen=True, kw_only=True)
class GeneratedDatabase:
    """The meaning of a generated database beside its data."""

    database: Database
    tables: tuple[TableSpec, ...]  # the parent first


def generate_database(
    rng: np.random.Generator,
    domain: Domain,
    number: int,
    *,
    synonym_share: float,
    min_rows: int,
    max_rows: int,
) -> GeneratedDatabase:
    """Draws a database of a domain: its tables, their columns and `min_rows` to `max_rows` rows of each."""
    parent = _draw_table(rng, domain.parent, None, synonym_share)
    children = domain.children[: 1 + int(rng.integers(2))]
    tables = (parent, *(_draw_table(rng, names, parent, synonym_share) for names in children))
    statements, rows = [], []
    parent_rows = 0
    for table in tables:
        count = int(rng.integers(min_rows, max_rows + 1))
        layout = _layout(rng, table)
        statements.append(_create_table(table, layout))
        rows.append((table.name, _draw_rows(rng, layout, count, parent_rows)))
        parent_rows = parent_rows or count
    data = Database(name=f"{domain.name}_{number}", tables=tuple(statements), rows=tuple(rows))
    return GeneratedDatabase(database=data, tables=tables)


def _draw_table(
    rng: np.random.Generator, names: tuple[str, str], parent: TableSpec | None, synonym_share: float
) -> TableSpec:
    def named(concept: tuple[str, str]) -> str:
        return concept[int(rng.random() < synonym_share)]

    text_concepts, integer_concepts = list(TEXT_CONCEPTS), list(INTEGER_CONCEPTS)
    columns = []
    for i in rng.permutation(len(text_concepts))[: rng.integers(1, 3)]:
        concept = text_concepts[i]
        values = tuple(TEXT_CONCEPTS[concept][j] for j in rng.permutation(8)[:VALUES_PER_COLUMN])
        columns.append(Column(word=concept[0], name=named(concept), values=values))
    for i in rng.permutation(len(integer_concepts))[: rng.integers(2, 4)]:
        concept = integer_concepts[i]
        columns.append(Column(word=concept[0], name=named(concept)))
    return TableSpec(word=names[0], name=named(names), columns=tuple(columns), parent=parent)


def _layout(rng: np.random.Generator, table: TableSpec) -> list[Column | None]:
    """Order of the columns behind `id` and `name`; None is the reference to the parent."""
    columns: list[Column | None] = [*table.columns, *([None] if table.parent else [])]
    return [columns[i] for i in rng.permutation(len(columns))]


def _create_table(table: TableSpec, layout: list[Column | None]) -> str:
    parts = ["id INT PRIMARY KEY", "name TEXT"]
    for column in layout:
        if column is not None:
            parts.append(f"{column.name} {'TEXT' if column.values else 'INT'}")
        elif table.parent is not None:
            parts.append(f"{table.parent.name}_id INT")
    return f"CREATE TABLE {table.name} ({', '.join(parts)})"


def _draw_rows(
    rng: np.random.Generator, layout: list[Column | None], count: int, parent_rows: int
) -> tuple[tuple, ...]:
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:count]]
    cells: list[list] = [list(range(1, count + 1)), names]
    for column in layout:
        if column is None:
            cells.append((rng.integers(parent_rows, size=count) + 1).tolist())
        elif column.values:
            cells.append([column.values[i] for i in rng.integers(len(column.values), size=count)])
        else:  # all different, so that an order has no ties
            cells.append(
                (rng.permutation(INTEGER_RANGE[1] - INTEGER_RANGE[0])[:count] + INTEGER_RANGE[0]).tolist()
            )
    return tuple(zip(*cells, strict=True))
