"""The rows of a converted database in memory, in the orders that MySQL's indexes give them."""

import functools
import sqlite3
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

from coevo_jax.envs.intercode_sql.mysql.collation import add_collation, collation_key
from coevo_jax.envs.intercode_sql.mysql.moments import moment_of, time_of
from coevo_jax.envs.intercode_sql.mysql.schema import ColumnSchema, DatabaseSchema, TableSchema

PRIMARY = "PRIMARY"
PAGE_BYTES = 16384


class StoredTable:
    """The rows of one table, read when first needed and never changed."""

    def __init__(self, path: Path, schema: TableSchema):
        self.schema = schema
        self._path = path
        self._places = {column.name.lower(): i for i, column in enumerate(schema.columns)}
        self._orders: dict[str, list[tuple]] = {}
        self._hashes: dict[Any, dict[Any, list[tuple]]] = {}
        self._counts: dict[tuple[int, ...], float] = {}

    @functools.cached_property
    def rows(self) -> list[tuple]:
        """All rows by primary key, or as inserted."""
        connection = sqlite3.connect(f"file:{url_quote(str(self._path))}?mode=ro&immutable=1", uri=True)
        try:
            add_collation(connection)
            found = connection.execute(f"SELECT * FROM `{self.schema.name.replace('`', '``')}`").fetchall()
        finally:
            connection.close()
        readers = [_reader(column) for column in self.schema.columns]
        changing = [(i, read) for i, read in enumerate(readers) if read is not None]
        if changing:
            found = [_read(row, changing) for row in found]
        if self.schema.primary_key:
            found.sort(key=self._sort_key(self.key_places(PRIMARY)))
        return found

    def key_places(self, index: str) -> tuple[int, ...]:
        """Places of the columns of an index."""
        names = self.schema.primary_key
        if index != PRIMARY:
            names = next(one.columns for one in self.schema.indexes if one.name == index)
        return tuple(self._places[name.lower()] for name in names)

    def _sort_key(self, places: Sequence[int]) -> Callable[[tuple], Any]:
        def key(row: tuple) -> list:
            return [
                (0,)
                if (value := row[place]) is None
                else (1, collation_key(value) if isinstance(value, str) else value)
                for place in places
            ]

        return key

    def ordered(self, index: str | None) -> list[tuple]:
        """The rows in the order of an index; None: as the table keeps them."""
        if index is None or index == PRIMARY:
            return self.rows
        if index not in self._orders:
            self._orders[index] = sorted(self.rows, key=self._sort_key(self.key_places(index)))
        return self._orders[index]

    def lookup(
        self, index: str | None, keys: tuple, readers: Sequence[Callable | None]
    ) -> dict[Any, list[tuple]]:
        """Rows by their values in some columns as `readers` read them, in the order of an index."""
        name = (index, keys, tuple(readers))
        if name not in self._hashes:
            self._hashes[name] = hashed(self.ordered(index), keys, readers)
        return self._hashes[name]

    def per_key(self, places: tuple[int, ...]) -> float:
        """How many rows share their values in some columns, on average."""
        if places not in self._counts:
            different = {tuple(_plain(row[place]) for place in places) for row in self.rows}
            self._counts[places] = len(self.rows) / len(different) if different else 1.0
        return self._counts[places]

    def distinct(self, places: tuple[int, ...]) -> int:
        """How many different values stand in some columns."""
        return round(len(self.rows) / self.per_key(places)) if self.rows else 0


def _plain(value: Any) -> Any:
    return collation_key(value) if isinstance(value, str) else value


def hashed(rows: Sequence[tuple], keys: tuple, readers: Sequence[Callable | None]) -> dict[Any, list[tuple]]:
    """Rows by their values in some columns; rows with NULL in one are left out."""
    found: dict[Any, list[tuple]] = {}
    if len(keys) == 1:
        place, read = keys[0], readers[0]
        for row in rows:
            value = row[place]
            if value is not None:
                found.setdefault(value if read is None else read(value), []).append(row)
        return found
    for row in rows:
        values = [row[place] for place in keys]
        if None not in values:
            key = tuple(v if read is None else read(v) for v, read in zip(values, readers, strict=True))
            found.setdefault(key, []).append(row)
    return found


def _read(row: tuple, changing: Sequence[tuple[int, Callable[[Any], Any]]]) -> tuple:
    values = list(row)
    for place, read in changing:
        if values[place] is not None:
            values[place] = read(values[place])
    return tuple(values)


def _reader(column: ColumnSchema) -> Callable[[Any], Any] | None:
    kind = column.sql_type
    if kind.kind == "decimal":
        return Decimal
    if kind.kind == "date":
        return lambda text: _moment(text, datetime.date)
    if kind.kind == "datetime":
        return lambda text: _moment(text, lambda moment: moment)
    if kind.kind == "time":
        return time_of
    if kind.kind == "bytes":
        return lambda value: value.encode() if isinstance(value, str) else value
    return float if kind.real else None


def _moment(text: str, change: Callable[[datetime], datetime | date]) -> Any:
    moment = moment_of(text)
    return text if moment is None else change(moment)


class StoredDatabase:
    """One converted database; shared by all that read it."""

    def __init__(self, path: Path, schema: DatabaseSchema):
        self.schema = schema
        self.tables = {table.name.lower(): StoredTable(path, table) for table in schema.tables}

    @property
    def name(self) -> str:
        """Its name as MySQL shows it under lower_case_table_names=1."""
        return self.schema.name.lower()


@functools.lru_cache(maxsize=64)
def open_stored(path: Path, schema_json: str) -> StoredDatabase:
    """The database of a file, once for a process."""
    return StoredDatabase(path, DatabaseSchema.model_validate_json(schema_json))
