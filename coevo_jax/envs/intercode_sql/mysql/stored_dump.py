"""A MySQL dump as SQLite files in the cache: converted once, then only read, by any number of processes."""

import hashlib
import os
import shutil
import sqlite3
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pydantic

from coevo_jax.config.strict import ConfigError, StrictModel
from coevo_jax.envs.intercode_sql.mysql.collation import add_collation
from coevo_jax.envs.intercode_sql.mysql.dump import Cell, DumpDatabase, read_dump
from coevo_jax.envs.intercode_sql.mysql.schema import COLLATION, ColumnSchema, DatabaseSchema, TableSchema
from coevo_jax.files import cache_root, write_whole

FORMAT = 3  # of the files in the cache: raise it when they change
AFFINITY = {"int": "INTEGER", "double": "REAL", "float": "REAL"}


class Converted(StrictModel):
    """The list of what a cache folder holds."""

    databases: tuple[DatabaseSchema, ...]
    """Databases in the order of their files 0.sqlite, 1.sqlite, ..."""


@dataclass(frozen=True, kw_only=True)
class ConvertedDump:
    """A converted dump."""

    folder: Path
    databases: tuple[DatabaseSchema, ...]

    def schema(self, name: str) -> DatabaseSchema:
        """What is known of a database."""
        return next(database for database in self.databases if database.name == name)

    def file(self, name: str) -> Path:
        """The SQLite file of a database."""
        number = next(i for i, database in enumerate(self.databases) if database.name == name)
        return self.folder / f"{number}.sqlite"


def convert_dump(path: Path) -> ConvertedDump:
    """The databases of a MySQL dump as SQLite files, converted unless the cache holds them already.

    Several processes may call it at once: each converts for itself and the first one to finish wins.

    Raises:
      ConfigError: the dump is missing or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}, expected the MySQL dump of the Spider databases"
        ) from None
    folder = cache_root() / "intercode_sql" / f"{hashlib.sha256(content).hexdigest()[:32]}-{FORMAT}"
    index = folder / "schemas.json"
    if not index.is_file():
        _convert(content, str(path), folder)
    try:
        read = Converted.model_validate_json(index.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise ConfigError(
            f"{index}: cannot be read, expected a converted dump; delete {folder} to have it converted anew"
        ) from error
    return ConvertedDump(folder=folder, databases=read.databases)


def _convert(content: bytes, source: str, folder: Path) -> None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}:{line}: found bytes that are no UTF-8, expected a MySQL dump") from None
    databases = read_dump(text, source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        for number, database in enumerate(databases):
            _write_database(building / f"{number}.sqlite", database, source)
        index = Converted(databases=tuple(database.schema for database in databases))
        write_whole(building / "schemas.json", index.model_dump_json())
        building.chmod(0o755)
        try:
            os.rename(building, folder)
        except OSError:  # another process was faster
            if not (folder / "schemas.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_database(path: Path, database: DumpDatabase, source: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        add_collation(connection)
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("BEGIN")
        for table in database.schema.tables:
            for statement in _create(table):
                connection.execute(statement)
            rows = [_stored(row, table.columns) for row in database.rows[table.name]]
            marks = ", ".join("?" * len(table.columns))
            connection.executemany(f"INSERT INTO {quote(table.name)} VALUES ({marks})", rows)
        connection.execute("COMMIT")
    except (sqlite3.Error, OverflowError) as error:
        raise ConfigError(f"{source}: database {database.schema.name}: SQLite refuses it: {error}") from error
    finally:
        connection.close()


def quote(name: str) -> str:
    """A name in backticks, which SQLite never takes for a text."""
    return "`" + name.replace("`", "``") + "`"


def _create(table: TableSchema) -> list[str]:
    """Statements for a table that is scanned in InnoDB's order: by its primary key, or as inserted."""
    parts = []
    for column in table.columns:
        kind = AFFINITY.get(column.sql_type.kind, f"TEXT COLLATE {COLLATION}")
        parts.append(f"{quote(column.name)} {kind}")
    by_key = ""
    if len(table.primary_key) == 1 and _is_integer(table, table.primary_key[0]):
        place = next(i for i, column in enumerate(table.columns) if column.name == table.primary_key[0])
        parts[place] += " PRIMARY KEY"
    elif table.primary_key:
        parts.append(f"PRIMARY KEY ({', '.join(map(quote, table.primary_key))})")
        by_key = " WITHOUT ROWID"
    statements = [f"CREATE TABLE {quote(table.name)} ({', '.join(parts)}){by_key}"]
    for index in table.indexes:
        name, columns = quote(f"{table.name}.{index.name}"), ", ".join(map(quote, index.columns))
        statements.append(f"CREATE INDEX {name} ON {quote(table.name)} ({columns})")
    return statements


def _is_integer(table: TableSchema, name: str) -> bool:
    return any(column.name == name and column.sql_type.kind == "int" for column in table.columns)


def _stored(row: tuple[Cell, ...], columns: tuple[ColumnSchema, ...]) -> list[Cell]:
    """A row as SQLite keeps it; a `float` loses what single precision cannot hold, as MySQL's does."""
    stored: list[Cell] = []
    for cell, column in zip(row, columns, strict=True):
        kind = column.sql_type
        if cell is not None and kind.kind == "float":
            cell = struct.unpack("f", struct.pack("f", float(cell)))[0]
        elif cell is not None and kind.real:
            cell = float(cell)
        elif cell is not None and kind.kind != "int":
            cell = str(cell)
        stored.append(cell)
    return stored
