"""The tables of information_schema, with what they say of one database."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.access import table_pages
from coevo_jax.envs.intercode_sql.mysql.schema import (
    BYTES,
    COLLATION,
    DATETIME,
    INT,
    TEXT,
    UNSIGNED_INT,
    ColumnSchema,
    SqlType,
    TableSchema,
    split_type,
)
from coevo_jax.envs.intercode_sql.mysql.tables import PAGE_BYTES, PRIMARY, StoredDatabase, StoredTable

Rows = list[tuple]
CREATED = datetime(2023, 6, 26, 12, 0, 0)
PRECISIONS = {"tinyint": 3, "smallint": 5, "mediumint": 7, "int": 10, "bigint": 19, "double": 22, "float": 12}
TYPES: Mapping[str, SqlType] = {"t": TEXT, "i": INT, "u": UNSIGNED_INT, "d": DATETIME, "b": BYTES}
_COLUMNS = """
SCHEMATA: t CATALOG_NAME SCHEMA_NAME DEFAULT_CHARACTER_SET_NAME DEFAULT_COLLATION_NAME b SQL_PATH t
    DEFAULT_ENCRYPTION
TABLES: t TABLE_CATALOG TABLE_SCHEMA TABLE_NAME TABLE_TYPE ENGINE i VERSION t ROW_FORMAT u TABLE_ROWS
    AVG_ROW_LENGTH DATA_LENGTH MAX_DATA_LENGTH INDEX_LENGTH DATA_FREE AUTO_INCREMENT d CREATE_TIME
    UPDATE_TIME CHECK_TIME t TABLE_COLLATION i CHECKSUM t CREATE_OPTIONS TABLE_COMMENT
COLUMNS: t TABLE_CATALOG TABLE_SCHEMA TABLE_NAME COLUMN_NAME u ORDINAL_POSITION t COLUMN_DEFAULT
    IS_NULLABLE DATA_TYPE i CHARACTER_MAXIMUM_LENGTH CHARACTER_OCTET_LENGTH u NUMERIC_PRECISION
    NUMERIC_SCALE DATETIME_PRECISION t CHARACTER_SET_NAME COLLATION_NAME COLUMN_TYPE COLUMN_KEY EXTRA
    PRIVILEGES COLUMN_COMMENT GENERATION_EXPRESSION u SRS_ID
STATISTICS: t TABLE_CATALOG TABLE_SCHEMA TABLE_NAME i NON_UNIQUE t INDEX_SCHEMA INDEX_NAME u
    SEQ_IN_INDEX t COLUMN_NAME COLLATION i CARDINALITY SUB_PART b PACKED t NULLABLE INDEX_TYPE COMMENT
    INDEX_COMMENT IS_VISIBLE EXPRESSION
KEY_COLUMN_USAGE: t CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME TABLE_CATALOG TABLE_SCHEMA
    TABLE_NAME COLUMN_NAME u ORDINAL_POSITION POSITION_IN_UNIQUE_CONSTRAINT t REFERENCED_TABLE_SCHEMA
    REFERENCED_TABLE_NAME REFERENCED_COLUMN_NAME
TABLE_CONSTRAINTS: t CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME TABLE_SCHEMA TABLE_NAME
    CONSTRAINT_TYPE ENFORCED
REFERENTIAL_CONSTRAINTS: t CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME
    UNIQUE_CONSTRAINT_CATALOG UNIQUE_CONSTRAINT_SCHEMA UNIQUE_CONSTRAINT_NAME MATCH_OPTION UPDATE_RULE
    DELETE_RULE TABLE_NAME REFERENCED_TABLE_NAME
VIEWS: t TABLE_CATALOG TABLE_SCHEMA TABLE_NAME VIEW_DEFINITION CHECK_OPTION IS_UPDATABLE DEFINER
    SECURITY_TYPE CHARACTER_SET_CLIENT COLLATION_CONNECTION
ROUTINES: t SPECIFIC_NAME ROUTINE_CATALOG ROUTINE_SCHEMA ROUTINE_NAME ROUTINE_TYPE DATA_TYPE
    ROUTINE_DEFINITION
TRIGGERS: t TRIGGER_CATALOG TRIGGER_SCHEMA TRIGGER_NAME EVENT_MANIPULATION EVENT_OBJECT_TABLE
    ACTION_STATEMENT ACTION_TIMING
EVENTS: t EVENT_CATALOG EVENT_SCHEMA EVENT_NAME
CHECK_CONSTRAINTS: t CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME CHECK_CLAUSE
"""
COLUMNS: dict[str, str] = {
    line.partition(": ")[0]: line.partition(": ")[2]
    for line in _COLUMNS.replace("\n    ", " ").strip().split("\n")
}
"""Tables and their columns; a letter says the type of those that follow."""


def columns_of(table: str) -> list[tuple[str, SqlType]] | None:
    """Names and types of a table's columns; None for a table that is unknown."""
    words = COLUMNS.get(table.upper())
    if words is None:
        return None
    kind, found = TEXT, []
    for word in words.split():
        if len(word) == 1:
            kind = TYPES[word]
        else:
            found.append((word, kind))
    return found


class InformationSchema:
    """What information_schema says, made when first asked."""

    def __init__(self, database: StoredDatabase):
        self._database = database
        self._kept: dict[str, Rows] = {}

    def __call__(self, name: str) -> tuple[list[tuple[str, SqlType]], Callable[[], Sequence[tuple]]] | None:
        """Columns and rows of a table; None for one that is unknown."""
        columns = columns_of(name)
        if columns is None:
            return None
        return columns, lambda: self.rows(name.upper())

    def rows(self, name: str) -> Rows:
        """The rows of a table."""
        if name not in self._kept:
            self._kept[name] = self._MAKERS[name](self) if name in self._MAKERS else []
        return self._kept[name]

    def _tables(self) -> list[StoredTable]:
        return [self._database.tables[name] for name in sorted(self._database.tables)]

    def _schemata(self) -> Rows:
        return [
            ("def", "information_schema", "utf8mb3", "utf8mb3_general_ci", None, "NO"),
            ("def", "performance_schema", "utf8mb4", "utf8mb4_0900_ai_ci", None, "NO"),
            ("def", self._database.name, "utf8mb4", COLLATION, None, "NO"),
        ]

    def _table_rows(self) -> Rows:
        rows = []
        for table in self._tables():
            status = table_status(table)
            rows.append(("def", self._database.name, status[0], "BASE TABLE", *status[1:]))
        return rows

    def _column_rows(self) -> Rows:
        rows = []
        for table in self._tables():
            numbered = list(enumerate(table.schema.columns, start=1))
            for place, column in sorted(numbered, key=lambda pair: pair[1].name.lower()):
                rows.append(("def", self._database.name, table.schema.name, *_column(place, column)))
        return rows

    def _statistics(self) -> Rows:
        rows = []
        for table in self._tables():
            found = index_rows(table)
            for row in sorted(found, key=lambda row: (row[2].lower(), row[3])):
                own = ("def", self._database.name, row[0], row[1], self._database.name)
                rows.append((*own, row[2], *row[3:9], *row[9:]))
        return rows

    def _key_rows(self) -> Rows:
        rows = []
        for table in self._tables():
            own = ("def", self._database.name, table.schema.name)
            for name, _, places in _unique_keys(table):
                for place, column in enumerate(places, start=1):
                    rows.append(
                        ("def", self._database.name, name, *own, column, place, None, None, None, None)
                    )
            for key in sorted(table.schema.foreign_keys, key=lambda key: key.name.lower()):
                for place, (column, target) in enumerate(
                    zip(key.columns, key.references, strict=True), start=1
                ):
                    other = (place, self._database.name, key.table.lower(), target)
                    rows.append(("def", self._database.name, key.name, *own, column, place, *other))
        return rows

    def _constraint_rows(self) -> Rows:
        rows = []
        for table in self._tables():
            own = (self._database.name, table.schema.name)
            for name, primary, _ in _unique_keys(table):
                rows.append(
                    ("def", self._database.name, name, *own, "PRIMARY KEY" if primary else "UNIQUE", "YES")
                )
            for key in sorted(table.schema.foreign_keys, key=lambda key: key.name.lower()):
                rows.append(("def", self._database.name, key.name, *own, "FOREIGN KEY", "YES"))
        return rows

    def _referential_rows(self) -> Rows:
        rows = []
        for table in self._tables():
            for key in sorted(table.schema.foreign_keys, key=lambda key: key.name.lower()):
                target = self._database.tables.get(key.table.lower())
                unique = _referenced(target, key.references) if target is not None else PRIMARY
                rows.append(
                    (
                        *("def", self._database.name, key.name, "def", self._database.name, unique, "NONE"),
                        *("NO ACTION", "NO ACTION", table.schema.name, key.table.lower()),
                    )
                )
        return rows

    _MAKERS: Mapping[str, Callable[[Any], Rows]] = {
        "SCHEMATA": _schemata,
        "TABLES": _table_rows,
        "COLUMNS": _column_rows,
        "STATISTICS": _statistics,
        "KEY_COLUMN_USAGE": _key_rows,
        "TABLE_CONSTRAINTS": _constraint_rows,
        "REFERENTIAL_CONSTRAINTS": _referential_rows,
    }


def _unique_keys(table: StoredTable) -> list[tuple[str, bool, tuple[str, ...]]]:
    schema = table.schema
    found = [(PRIMARY, True, schema.primary_key)] if schema.primary_key else []
    return found + [(index.name, False, index.columns) for index in schema.indexes if index.unique]


def _referenced(table: StoredTable, columns: Sequence[str]) -> str:
    names = {name.lower() for name in columns}
    if {name.lower() for name in table.schema.primary_key} == names:
        return PRIMARY
    return next(
        (index.name for index in table.schema.indexes if {name.lower() for name in index.columns} == names),
        PRIMARY,
    )


def table_status(table: StoredTable) -> tuple:
    """What SHOW TABLE STATUS says of a table."""
    schema, count = table.schema, len(table.rows)
    length = int(table_pages(table)) * PAGE_BYTES
    indexes = len(schema.indexes) * PAGE_BYTES
    number = re.search(r"AUTO_INCREMENT=(\d+)", schema.create)
    counted = any(column.extra for column in schema.columns)
    following = int(number[1]) if number else (1 if counted and not count else None)
    sizes = (count, length // count if count else 0, length, 0, indexes, 0, following)
    return (schema.name, "InnoDB", 10, "Dynamic", *sizes, CREATED, CREATED, None, COLLATION, None, "", "")


def index_rows(table: StoredTable) -> Rows:
    """What SHOW INDEX says of a table: its primary key, unique keys, then the others."""
    schema = table.schema
    never_null = {column.name: not column.nullable for column in schema.columns}
    indexes = [(PRIMARY, True, schema.primary_key)] if schema.primary_key else []
    indexes += [(index.name, True, index.columns) for index in schema.indexes if index.unique]
    indexes += [(index.name, False, index.columns) for index in schema.indexes if not index.unique]
    rows = []
    for name, unique, columns in indexes:
        places = table.key_places(name)
        for place, column in enumerate(columns, start=1):
            counted = table.distinct(places[:place])
            nullable = "" if never_null[column] else "YES"
            own = (schema.name, int(not unique), name, place, column, "A", counted, None, None, nullable)
            rows.append((*own, "BTREE", "", "", "YES", None))
    return rows


def _column(place: int, column: ColumnSchema) -> tuple[Any, ...]:
    """What COLUMNS says of a column behind its table."""
    word, scale = split_type(column.type)
    kind = column.sql_type.kind
    is_text = kind in ("text", "bytes")
    length = re.search(r"\((\d+)", column.type)
    digits = int(length[1]) if length else None
    size = (digits if digits is not None else 65535) if is_text else None
    octets = size if size is None or digits is None else 4 * size
    precision = None if is_text or not column.sql_type.numeric else digits or PRECISIONS.get(word, 10)
    if kind == "int" and word in PRECISIONS:
        precision = PRECISIONS[word]
    places = scale if kind in ("decimal", "double", "float") else 0 if kind == "int" else None
    fraction = 0 if kind in ("datetime", "time") else None
    charset = ("utf8mb4", COLLATION) if kind == "text" else (None, None)
    numbers = (size, octets, precision, places, fraction)
    own = (column.name, place, column.default, "YES" if column.nullable else "NO", word)
    return (*own, *numbers, *charset, column.type, column.key, column.extra, "select", "", "", None)


def describe(table: TableSchema) -> Rows:
    """Field, Type, Null, Key, Default and Extra of the columns, as DESCRIBE gives them."""
    return [
        (
            column.name,
            column.type,
            "YES" if column.nullable else "NO",
            column.key,
            column.default,
            column.extra,
        )
        for column in table.columns
    ]
