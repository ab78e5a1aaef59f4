"""MySQL's statements about the schema: SHOW, DESCRIBE, USE, and the tables of information_schema."""

import re
import sqlite3
from collections.abc import Callable, Mapping

from coevo_jax.envs.intercode_sql.mysql import errors
from coevo_jax.envs.intercode_sql.mysql.collation import collation_key
from coevo_jax.envs.intercode_sql.mysql.schema import COLLATION, DatabaseSchema, TableSchema, split_type

Rows = list[tuple]

NAME = r"(?:`([^`]+)`|([\w$]+))"
OF = rf"(?:\s+(?:from|in)\s+{NAME})"
LIKE = r"(?:\s+like\s+(?:'([^']*)'|\"([^\"]*)\"))?"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"{text}\s*;?", re.IGNORECASE)


SHOW_TABLES = _pattern(rf"show\s+(full\s+)?tables{OF}?{LIKE}")
SHOW_DATABASES = _pattern(rf"show\s+(?:databases|schemas){LIKE}")
SHOW_COLUMNS = _pattern(rf"show\s+(full\s+)?(?:columns|fields){OF}{OF}?{LIKE}")
SHOW_CREATE = _pattern(rf"show\s+create\s+table\s+(?:{NAME}\.)?{NAME}")
SHOW_INDEX = _pattern(rf"show\s+(?:index|indexes|keys){OF}{OF}?")
DESCRIBE = _pattern(
    rf"(?:desc|describe|explain)\s+(?:{NAME}\.)?{NAME}(?:\s+(?:`([^`]+)`|'([^']*)'|([\w%]+)))?"
)
USE = _pattern(rf"use\s+{NAME}")
STATEMENT = re.compile(r"(show|desc|describe|explain|use)\b", re.IGNORECASE)
COMMENTS = re.compile(r"/\*.*?\*/|--\s[^\n]*|#[^\n]*", re.DOTALL)
QUERY_WORDS = re.compile(
    r"(?:desc|describe|explain)\s+(?:analyze\b|format\b|select\b|with\b|\(|update\b|delete\b|insert\b)",
    re.IGNORECASE,
)


def answer(sql: str, schema: DatabaseSchema) -> Rows | None:
    """Rows of a statement about the schema; None where the text is none of these.

    Raises SqlError for an unknown table or database, and for a statement that is not emulated.
    """
    if not STATEMENT.match(sql) and not sql.startswith(("/*", "--", "#")):
        return None
    sql = COMMENTS.sub(" ", sql).strip() if not re.search(r"['\"`]", sql) else sql
    if not STATEMENT.match(sql):
        return None
    if QUERY_WORDS.match(sql):
        raise errors.not_supported("EXPLAIN of a query")
    for pattern, reply in REPLIES.items():
        if found := pattern.fullmatch(sql):
            return reply(list(found.groups()), schema)
    if re.match(
        r"show\s+(?:variables|status|processlist|grants|engines|warnings|errors|triggers|events|table)",
        sql,
        re.IGNORECASE,
    ):
        raise errors.not_supported(" ".join(sql.upper().split()[:2]))
    words = sql.split(None, 1)
    raise errors.syntax_error(words[1] if len(words) > 1 else "")


def _own(database: str | None, schema: DatabaseSchema) -> None:
    if database and database.lower() not in (schema.name.lower(), "information_schema"):
        raise errors.database_denied(database)


def _table(name: str, schema: DatabaseSchema) -> TableSchema:
    if (table := schema.table(name)) is None:
        raise errors.no_such_table(schema.name, name)
    return table


def _matches(name: str, like: str | None) -> bool:
    if like is None:
        return True
    pattern = re.escape(collation_key(like)).replace("%", ".*").replace(r"\_", "_").replace("_", ".")
    return re.fullmatch(pattern.replace(r"\\.", "_"), collation_key(name), re.DOTALL) is not None


def _show_tables(groups: list, schema: DatabaseSchema) -> Rows:
    full, quoted, plain, like, other_like = groups
    _own(quoted or plain, schema)
    names = [
        table.name
        for table in schema.tables
        if _matches(table.name, like if like is not None else other_like)
    ]
    return [(name, "BASE TABLE") if full else (name,) for name in names]


def _show_databases(groups: list, schema: DatabaseSchema) -> Rows:
    like = groups[0] if groups[0] is not None else groups[1]
    return [(name,) for name in sorted((schema.name, "information_schema")) if _matches(name, like)]


def _show_columns(groups: list, schema: DatabaseSchema) -> Rows:
    full, quoted, plain, database, other, like, other_like = groups
    _own(database or other, schema)
    table = _table(quoted or plain, schema)
    rows = describe(table, like if like is not None else other_like)
    if not full:
        return rows
    collations = {
        column.name: COLLATION if column.sql_type.kind == "text" else None for column in table.columns
    }
    return [(*row[:2], collations[row[0]], *row[2:], "select", "") for row in rows]


def _show_create(groups: list, schema: DatabaseSchema) -> Rows:
    _own(groups[0] or groups[1], schema)
    table = _table(groups[2] or groups[3], schema)
    return [(table.name, table.create)]


def _show_index(groups: list, schema: DatabaseSchema) -> Rows:
    _own(groups[2] or groups[3], schema)
    table = _table(groups[0] or groups[1], schema)
    indexes = [("PRIMARY", True, table.primary_key)] if table.primary_key else []
    indexes += [(index.name, index.unique, index.columns) for index in table.indexes]
    return [
        (
            table.name,
            int(not unique),
            name,
            place,
            column,
            "A",
            None,
            None,
            None,
            "",
            "BTREE",
            "",
            "",
            "YES",
            None,
        )
        for name, unique, columns in indexes
        for place, column in enumerate(columns, start=1)
    ]


def _describe(groups: list, schema: DatabaseSchema) -> Rows:
    _own(groups[0] or groups[1], schema)
    return describe(_table(groups[2] or groups[3], schema), next((like for like in groups[4:] if like), None))


def _use(groups: list, schema: DatabaseSchema) -> Rows:
    _own(groups[0] or groups[1], schema)
    return []


def describe(table: TableSchema, like: str | None = None) -> Rows:
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
        if _matches(column.name, like)
    ]


REPLIES: Mapping[re.Pattern[str], Callable[[list, DatabaseSchema], Rows]] = {
    SHOW_TABLES: _show_tables,
    SHOW_DATABASES: _show_databases,
    SHOW_COLUMNS: _show_columns,
    SHOW_CREATE: _show_create,
    SHOW_INDEX: _show_index,
    DESCRIBE: _describe,
    USE: _use,
}

INFORMATION: Mapping[str, str] = {
    "SCHEMATA": "CATALOG_NAME, SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME",
    "TABLES": "TABLE_CATALOG, TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, TABLE_COLLATION, "
    "TABLE_COMMENT",
    "COLUMNS": "TABLE_CATALOG, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_DEFAULT, "
    "IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_SCALE, COLLATION_NAME, COLUMN_TYPE, "
    "COLUMN_KEY, EXTRA, COLUMN_COMMENT",
    "KEY_COLUMN_USAGE": "CONSTRAINT_SCHEMA, CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, "
    "ORDINAL_POSITION, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME",
}
"""Tables of information_schema and their columns."""


def add_information_schema(connection: sqlite3.Connection, schema: DatabaseSchema) -> None:
    """Attach information_schema with what it says of one database."""
    connection.execute("ATTACH ':memory:' AS information_schema")
    rows = {
        "SCHEMATA": [("def", name, "utf8mb4", COLLATION) for name in ("information_schema", schema.name)],
        "TABLES": [_table_row(connection, schema, table) for table in schema.tables],
        "COLUMNS": [row for table in schema.tables for row in _column_rows(schema, table)],
        "KEY_COLUMN_USAGE": [row for table in schema.tables for row in _key_rows(schema, table)],
    }
    for name, columns in INFORMATION.items():
        typed = ", ".join(f"{column} COLLATE {COLLATION}" for column in columns.split(", "))
        connection.execute(f"CREATE TABLE information_schema.{name} ({typed})")
        marks = ", ".join("?" * len(columns.split(", ")))
        connection.executemany(f"INSERT INTO information_schema.{name} VALUES ({marks})", rows[name])


def _table_row(connection: sqlite3.Connection, schema: DatabaseSchema, table: TableSchema) -> tuple:
    name = table.name.replace("`", "``")
    (count,) = connection.execute(f"SELECT COUNT(*) FROM main.`{name}`").fetchone()
    return ("def", schema.name, table.name, "BASE TABLE", "InnoDB", count, COLLATION, "")


def _column_rows(schema: DatabaseSchema, table: TableSchema) -> Rows:
    rows = []
    for place, column in enumerate(table.columns, start=1):
        word, scale = split_type(column.type)
        is_text = column.sql_type.kind == "text"
        length = re.search(r"\((\d+)\)", column.type)
        size = (int(length[1]) if length else 65535) if is_text else None
        own = ("def", schema.name, table.name, column.name, place, column.default)
        kind = (word, size, None if is_text else scale, COLLATION if is_text else None, column.type)
        rows.append((*own, "YES" if column.nullable else "NO", *kind, column.key, column.extra, ""))
    return rows


def _key_rows(schema: DatabaseSchema, table: TableSchema) -> Rows:
    own = (schema.name, table.name)
    rows: Rows = [
        (schema.name, "PRIMARY", *own, column, place, None, None, None)
        for place, column in enumerate(table.primary_key, start=1)
    ]
    for key in table.foreign_keys:
        for place, (column, target) in enumerate(zip(key.columns, key.references, strict=True), start=1):
            rows.append((schema.name, key.name, *own, column, place, schema.name, key.table, target))
    return rows
