"""A read-only SQLite database in memory: limits on work, time, rows and text, a little MySQL speech."""

import re
import sqlite3
import time
import weakref
from dataclasses import dataclass
from typing import Protocol

READS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)

# What MySQL and SQLite both call so and compute alike. All others are refused, also those that a later SQLite
# brings: clocks and random numbers make two plays of an episode differ, others tell of the host, reach
# outside, or pad for seconds inside one instruction, where no handler can cut it.
ALLOWED_FUNCTIONS = frozenset(
    {"avg", "count", "group_concat", "max", "min", "sum"}
    | {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile"}
    | {"lag", "lead", "first_value", "last_value", "nth_value"}
    | {"coalesce", "ifnull", "nullif", "if"}
    | {"char", "concat", "concat_ws", "hex", "instr", "length", "like", "lower", "ltrim", "replace", "rtrim"}
    | {"substr", "substring", "trim", "upper"}
    | {
        "abs",
        "acos",
        "asin",
        "atan",
        "atan2",
        "ceil",
        "ceiling",
        "cos",
        "degrees",
        "exp",
        "floor",
        "ln",
        "log10",
    }
    | {"log2", "mod", "pi", "pow", "power", "radians", "round", "sign", "sin", "sqrt", "tan"}
)

# Short texts keep single instructions fast, and a million of them within memory.
SIZE_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 10_000),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 20_000),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
)

INSTRUCTIONS_PER_CHECK = 200

SHOW_TABLES = re.compile(r"show\s+tables\s*;?", re.IGNORECASE)
DESCRIBE = re.compile(r"(?:desc|describe)\s+[`\"']?(\w+)[`\"']?\s*;?", re.IGNORECASE)


class SqlError(Exception):
    """A query failed or was cut; the message is for the agent."""


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database as data: it can be created any number of times, and written to a task file."""

    name: str
    tables: tuple[str, ...]  # CREATE TABLE statements
    rows: tuple[tuple[str, tuple[tuple, ...]], ...]  # (table, rows), parents before children


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """Where a query is cut."""

    rows: int
    instructions: int
    seconds: float


class SqlBackend(Protocol):
    """A database that answers queries: here in memory, a converted MySQL dump, or a server."""

    tables: tuple[str, ...]

    def run(self, sql: str) -> list[tuple]:
        """Rows of one statement.

        Raises:
          SqlError: the database refuses the statement.
        """
        ...

    def run_gold(self, sql: str) -> list[tuple]:
        """Rows of a gold query, which may need laxer rules than an agent's.

        Raises:
          SqlError: the database refuses the query.
        """
        ...

    def close(self) -> None:
        """Free what it holds; safe to call twice."""
        ...


class Sandbox:
    """One database in memory, open for reading only. May move between threads, one at a time."""

    def __init__(self, database: Database, limits: QueryLimits):
        """Create and fill the database.

        Raises:
          sqlite3.Error: the data does not fit.
        """
        self._limits = limits
        self._checks_left = 0
        self._deadline = 0.0
        self._timed_out = False
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._connection.close)  # of an environment that nobody closes
        self._connection.text_factory = _decode
        self._fill(database)
        self._lock()

    def _fill(self, database: Database) -> None:
        for statement in database.tables:
            self._connection.execute(statement)
        for table, rows in database.rows:
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                self._connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)
        names = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        self.tables = tuple(name for (name,) in names.fetchall())
        self._columns = {name.lower(): self._read_columns(name) for name in self.tables}

    def _read_columns(self, table: str) -> list[tuple]:
        return self._connection.execute(
            "SELECT name, lower(type) FROM pragma_table_info(?)", (table,)
        ).fetchall()

    def _lock(self) -> None:
        for limit, value in SIZE_LIMITS:
            self._connection.setlimit(limit, value)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.set_authorizer(_authorize)
        # Weakly: a connection that holds its sandbox would keep it, and itself, for ever.
        cut = weakref.WeakMethod(self._cut)
        self._connection.set_progress_handler(lambda: (ask := cut()) is None or ask(), INSTRUCTIONS_PER_CHECK)

    def _cut(self) -> bool:
        self._checks_left -= 1
        self._timed_out = self._timed_out or self._checks_left < 0 or time.monotonic() > self._deadline
        return self._timed_out

    def run(self, sql: str) -> list[tuple]:
        """Rows of one statement, at most `limits.rows`.

        Raises:
          SqlError: SQLite refuses the statement, or it goes beyond the limits.
        """
        sql = sql.strip()
        if SHOW_TABLES.fullmatch(sql):
            return [(name,) for name in self.tables]
        if found := DESCRIBE.fullmatch(sql):
            if (columns := self._columns.get(found[1].lower())) is None:
                raise SqlError(f"no such table: {found[1]}")
            return list(columns)
        return self._query(sql)

    def run_gold(self, sql: str) -> list[tuple]:
        """Rows of a gold query, under the same rules.

        Raises:
          SqlError: as in `run`.
        """
        return self.run(sql)

    def _query(self, sql: str) -> list[tuple]:
        self._checks_left = self._limits.instructions // INSTRUCTIONS_PER_CHECK
        self._deadline = time.monotonic() + self._limits.seconds
        self._timed_out = False
        try:
            cursor = self._connection.execute(sql)
            try:
                rows = cursor.fetchmany(self._limits.rows)
            finally:
                cursor.close()
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
            raise SqlError("query takes too long" if self._timed_out else str(error)) from error
        if cursor.description is None:
            raise SqlError("no result")
        return rows

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        self._connection.close()


def _authorize(action: int, _argument: str | None, function: str | None, *_where: str | None) -> int:
    if action not in READS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (function or "").lower() not in ALLOWED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")
