"""One database of a converted dump that speaks MySQL: read-only, limited in work, time, rows and text.

What still differs from a server (tests/envs/test_sql_server.py compares them): rows without ORDER BY, and
the row that an ungrouped column or a tie at LIMIT shows, may be others; a scalar subquery of several rows
gives its first; chains of UNION, EXCEPT and INTERSECT run from left to right; recursion is cut by work, not
at 1,000 rounds; clocks stand still at `dates.NOW`; WITH ROLLUP, JSON, MATCH, EXPLAIN of a query, system and
user variables are refused; regular expressions are Python's, not ICU's; the place in a syntax error may be
a word off; every other database is denied. Names of tables and aliases ignore case, as under
lower_case_table_names=2, with which the dump was made. STD and
VARIANCE of integers keep all digits, as MySQL's and unlike MariaDB's.

Of Spider's 1034 gold queries, 981 to 983 give the same rows in the same order as MariaDB 10.11.19 (its plans
change with its statistics), 38, all without a full ORDER BY, the same rows in another order, and 13 to 15,
ties at LIMIT, another row.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import regex

from coevo_jax.envs.intercode_sql.mysql import errors, show
from coevo_jax.envs.intercode_sql.mysql.aggregates import add_aggregates
from coevo_jax.envs.intercode_sql.mysql.collation import add_collation
from coevo_jax.envs.intercode_sql.mysql.functions import LONGEST_TEXT, PREFIX, add_functions, text_of
from coevo_jax.envs.intercode_sql.mysql.schema import DatabaseSchema
from coevo_jax.envs.intercode_sql.mysql.translate import Translated, translate
from coevo_jax.envs.intercode_sql.mysql.types import as_client
from coevo_jax.envs.intercode_sql.sandbox import INSTRUCTIONS_PER_CHECK, READS, QueryLimits, SqlError

MAX_RESULT_CHARS = 4_000_000
FETCH = 200
REGEX_SECONDS = 0.5  # of CPU, for one match; it holds the interpreter all the while
TOO_LONG = "Query execution was interrupted, maximum statement execution time exceeded"
SIZE_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 4 * LONGEST_TEXT),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 200_000),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
)


class MySqlSandbox:
    """A converted database, open for reading only. May move between threads, one at a time."""

    def __init__(self, path: Path, schema: DatabaseSchema, limits: QueryLimits):
        self.tables = tuple(table.name for table in schema.tables)
        self._schema = schema
        self._limits = limits
        self._checks_left = 0
        self._deadline = 0.0
        self._timed_out = False
        self._regex_error = ""
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro&immutable=1",
            uri=True,
            check_same_thread=False,
            isolation_level=None,
        )
        add_collation(self._connection)
        add_functions(self._connection)
        add_aggregates(self._connection)
        self._connection.create_function(f"{PREFIX}REGEXP", 2, self._matches, deterministic=True)
        show.add_information_schema(self._connection, schema)
        self._lock()

    def _lock(self) -> None:
        for limit, value in SIZE_LIMITS:
            self._connection.setlimit(limit, value)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.set_authorizer(_authorize)
        self._connection.set_progress_handler(self._cut, INSTRUCTIONS_PER_CHECK)

    def _cut(self) -> bool:
        self._checks_left -= 1
        self._timed_out = self._timed_out or self._checks_left < 0 or time.monotonic() > self._deadline
        return self._timed_out

    def _matches(self, text: Any, pattern: Any) -> int | None:
        """REGEXP, which no progress handler can cut: the pattern's own time ends with the query's."""
        if text is None or pattern is None:
            return None
        try:
            left = min(REGEX_SECONDS, max(0.001, self._deadline - time.monotonic()))
            found = regex.search(text_of(pattern), text_of(text), regex.IGNORECASE, timeout=left)
        except TimeoutError:
            self._timed_out = True
            raise
        except (regex.error, RecursionError) as error:
            self._regex_error = f"Syntax error in regular expression: {error}"
            raise
        return int(found is not None)

    def run(self, sql: str) -> list[tuple]:
        """Rows of one statement as MySQL's client returns them, at most `limits.rows`; raises `SqlError`."""
        sql = sql.strip()
        shown = show.answer(sql, self._schema)
        if shown is not None:
            return shown
        translated = translate(sql, self._schema)
        rows = self._query(sql, translated)
        kinds = translated.types
        if rows and len(kinds) == len(rows[0]):
            return [
                tuple(as_client(value, kind) for value, kind in zip(row, kinds, strict=True)) for row in rows
            ]
        return rows

    def _query(self, sql: str, translated: Translated) -> list[tuple]:
        self._checks_left = self._limits.instructions // INSTRUCTIONS_PER_CHECK
        self._deadline = time.monotonic() + self._limits.seconds
        self._timed_out, self._regex_error = False, ""
        try:
            cursor = self._connection.execute(translated.sql)
            try:
                return self._fetch(cursor)
            finally:
                cursor.close()
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
            if self._timed_out:
                raise SqlError(TOO_LONG) from error
            if self._regex_error:
                raise SqlError(self._regex_error) from error
            raise errors.from_sqlite(str(error), translated.parsed, sql) from error

    def _fetch(self, cursor: sqlite3.Cursor) -> list[tuple]:
        rows: list[tuple] = []
        chars = 0
        while len(rows) < self._limits.rows:
            part = cursor.fetchmany(min(FETCH, self._limits.rows - len(rows)))
            if not part:
                break
            chars += sum(len(value) for row in part for value in row if isinstance(value, str | bytes))
            if chars > MAX_RESULT_CHARS:
                raise SqlError("Got a packet bigger than 'max_allowed_packet' bytes")
            rows += part
        return rows

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()


def _authorize(action: int, _argument: str | None, _function: str | None, *_where: str | None) -> int:
    return sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY
