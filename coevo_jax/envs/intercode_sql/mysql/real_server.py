"""A real MySQL or MariaDB server that holds the databases, read-only and limited."""

import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field

import pymysql
import pymysql.cursors
from pymysql.constants import ER

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.intercode_sql.mysql.errors import TOO_BIG
from coevo_jax.envs.intercode_sql.mysql.guard import check_statement
from coevo_jax.envs.intercode_sql.mysql.moments import NOW
from coevo_jax.envs.intercode_sql.mysql.sandbox import LENIENT, MAX_RESULT_CHARS, TOO_LONG, Rules
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits, SqlError

EXPECTED = "expected mysql://user:password@host:port, or $NAME of an environment variable that holds it"
SQL_MODE = (
    "STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)
CONNECT_SECONDS = 10
FETCH = 200
TIMEOUT_CODES = frozenset({1969, 3024, 1317})  # MariaDB's and MySQL's word for a statement cut by its time
LOST_CODES = frozenset({2002, 2003, 2006, 2013, 2014, 2055, 1927, ER.SERVER_SHUTDOWN})


@dataclass(frozen=True, kw_only=True)
class Dsn:
    """Where a server is and who asks. The password never shows in its text."""

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    socket: str | None  # path of a Unix socket instead of host and port


def parse_dsn(text: str) -> Dsn:
    """A DSN `mysql://user:password@host:port`, with `?unix_socket=PATH` for a socket, or `$NAME`.

    Raises:
      ConfigError: the text is no DSN; the message never shows the password.
    """
    if text.startswith("$"):
        value = os.environ.get(text[1:])
        if not value:
            raise ConfigError(f"config: env.options.dsn: found {text}, which is not set, {EXPECTED}")
        text = value
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port or 3306
    except ValueError:
        raise ConfigError(
            f"config: env.options.dsn: found a DSN whose port is no number, {EXPECTED}"
        ) from None
    query = dict(urllib.parse.parse_qsl(parts.query))
    if parts.scheme not in ("mysql", "mariadb") or not parts.username or not (parts.hostname or query):
        raise ConfigError(f"config: env.options.dsn: found a DSN without scheme, user or host, {EXPECTED}")
    if unknown := sorted(set(query) - {"unix_socket"}):
        raise ConfigError(f"config: env.options.dsn: found {unknown[0]!r} after '?', expected unix_socket")
    return Dsn(
        user=urllib.parse.unquote(parts.username),
        password=urllib.parse.unquote(parts.password or ""),
        host=parts.hostname or "localhost",
        port=port,
        socket=query.get("unix_socket"),
    )


class ServerConnection:
    """One connection of one environment instance, opened when first needed."""

    def __init__(self, dsn: Dsn, limits: QueryLimits):
        self._dsn = dsn
        self._limits = limits
        self._connection: pymysql.Connection | None = None
        self._rules: Rules | None = None  # those that the connection's sql_mode stands for

    def check(self, databases: Sequence[str]) -> None:
        """Check that the server can be used: it answers, ignores case in names, and holds the databases.

        Raises:
          ConfigError: the server is out of reach, heeds case, or lacks one of the databases.
        """
        where = self._dsn.socket or f"{self._dsn.host}:{self._dsn.port}"
        try:
            with self._open().cursor() as cursor:
                cursor.execute("SHOW DATABASES")
                found = {str(row[0]).lower() for row in cursor.fetchall()}
                cursor.execute("SELECT @@lower_case_table_names")
                keeps_case = cursor.fetchall() != ((1,),)
        except RuntimeError as error:  # pymysql's word for a missing package
            raise ConfigError(
                f"config: env.options.dsn: the server at {where} wants the password of {self._dsn.user} "
                f"encrypted, and the connection has no TLS ({error}), expected a Unix socket, or the package "
                "that encrypts it: pip install 'PyMySQL[rsa]'"
            ) from None
        except (pymysql.Error, OSError) as error:
            code = error.args[0] if error.args else ""
            reason = "access denied" if code == ER.ACCESS_DENIED_ERROR else "no connection"
            raise ConfigError(
                f"config: env.options.dsn: {reason} at {where} for user {self._dsn.user} (error {code}), "
                "expected a MySQL or MariaDB server that holds the databases of ic_spider_dbs.sql"
            ) from None
        if keeps_case:
            raise ConfigError(
                f"config: env.options.dsn: the server at {where} has another lower_case_table_names, "
                "expected 1, for InterCode's golds write table names in any case and its server shows them "
                "in small letters; a server takes the setting before it holds data: make a new one with "
                "--lower-case-table-names=1 and load the dump"
            )
        if missing := [name for name in databases if name.lower() not in found]:
            raise ConfigError(
                f"config: env.options.dsn: the server at {where} lacks the database {missing[0]!r}"
                f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; load the dump first: "
                "mariadb < ic_spider_dbs.sql"
            )

    def run(self, database: str, sql: str, rules: Rules) -> list[tuple]:
        """Rows of one statement in a database, at most `limits.rows`.

        Raises:
          SqlError: the server refuses the statement; in its words.
          EnvFault: the server is lost.
        """
        check_statement(sql, database, rules.ignore_space)
        try:
            connection = self._begin(database, rules)
            return self._fetch(connection, sql)
        except (pymysql.Error, OSError) as error:
            code, *words = error.args or (0,)
            if code in TIMEOUT_CODES:
                raise SqlError(TOO_LONG) from None
            if "timed out" in str(error):
                self._kill()
                raise SqlError(TOO_LONG) from None
            if code in LOST_CODES or isinstance(error, pymysql.InterfaceError | OSError) or not words:
                self.close()
                raise EnvFault(f"the SQL server is lost: error {code}") from None
            raise SqlError(str(words[0])) from None
        except UnicodeError as error:
            raise SqlError(str(error)) from None

    def _begin(self, database: str, rules: Rules) -> pymysql.Connection:
        """A connection in a new transaction; one that the server closed while it was idle is opened again."""
        if self._connection is not None:
            try:
                return self._start(self._open(), database, rules)
            except (pymysql.Error, OSError) as error:
                code = error.args[0] if error.args else 0
                if code not in LOST_CODES and not isinstance(error, pymysql.InterfaceError | OSError):
                    raise
                self.close()
        return self._start(self._open(), database, rules)

    def _start(self, connection: pymysql.Connection, database: str, rules: Rules) -> pymysql.Connection:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
            cursor.execute("USE `" + database.replace("`", "``") + "`")
            if rules != self._rules:
                words = [
                    SQL_MODE,
                    "ONLY_FULL_GROUP_BY" * rules.full_group_by,
                    "IGNORE_SPACE" * rules.ignore_space,
                ]
                cursor.execute("SET SESSION sql_mode = %s", (",".join(filter(None, words)),))
                self._rules = rules
            cursor.execute("START TRANSACTION READ ONLY")
        return connection

    def _kill(self) -> None:
        """End, on the server, the statement that the client no longer waits for."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        thread = connection.thread_id()
        connection._force_close()  # pyright: ignore[reportAttributeAccessIssue]
        try:
            with self._open().cursor() as cursor:
                cursor.execute(f"KILL {thread}")
        except (pymysql.Error, OSError):
            self.close()  # ended by itself, or the server is gone: the next statement will tell

    def _fetch(self, connection: pymysql.Connection, sql: str) -> list[tuple]:
        cursor = connection.cursor(
            pymysql.cursors.SSCursor
        )  # rows come as they are asked for, not all at once
        cursor.execute(sql)
        if cursor.description is None:
            cursor.close()
            return []
        rows: list[tuple] = []
        chars = 0
        while len(rows) < self._limits.rows and chars <= MAX_RESULT_CHARS:
            part = cursor.fetchmany(min(FETCH, self._limits.rows - len(rows)))
            if not part:
                break
            chars += sum(len(value) for row in part for value in row if isinstance(value, str | bytes))
            rows += part
        if len(rows) < self._limits.rows and chars <= MAX_RESULT_CHARS:
            cursor.close()
        else:  # to close the cursor would read the rest, which may be endless
            result, cursor.connection = cursor._result, None  # pyright: ignore[reportAttributeAccessIssue]
            self.close()
            if result is not None:
                result.unbuffered_active = False
        if chars > MAX_RESULT_CHARS:
            raise SqlError(TOO_BIG)
        return rows

    def _open(self) -> pymysql.Connection:
        if self._connection is not None and self._connection.open:
            return self._connection
        if self._dsn.socket and not os.path.exists(self._dsn.socket):  # pymysql would leave its socket open
            raise pymysql.OperationalError(2002, "no such socket")
        self._rules = None
        self._connection = pymysql.connect(
            user=self._dsn.user,
            password=self._dsn.password,
            host=self._dsn.host,
            port=self._dsn.port,
            unix_socket=self._dsn.socket,
            charset="utf8mb4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=int(self._limits.seconds) + CONNECT_SECONDS,
        )
        with self._connection.cursor() as cursor:
            if "mariadb" in str(self._connection.get_server_info()).lower():
                cursor.execute("SET SESSION max_statement_time = %s", (self._limits.seconds,))
            else:
                cursor.execute("SET SESSION max_execution_time = %s", (int(self._limits.seconds * 1000),))
            cursor.execute(
                "SET SESSION TRANSACTION READ ONLY"
            )  # a DROP would end START TRANSACTION READ ONLY
            cursor.execute("SET SESSION time_zone = '+00:00'")
            cursor.execute("SET SESSION timestamp = UNIX_TIMESTAMP(%s)", (NOW.strftime("%Y-%m-%d %H:%M:%S"),))
        return self._connection

    def close(self) -> None:
        """Close the connection; it opens again when needed. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.open:
            connection.close()


class ServerSandbox:
    """One database of a server; the connection belongs to the instance and serves all of them."""

    def __init__(self, connection: ServerConnection, database: str, tables: tuple[str, ...], rules: Rules):
        self.tables = tables
        self._connection = connection
        self._database = database
        self._rules = rules

    def run(self, sql: str) -> list[tuple]:
        """Rows of one statement.

        Raises:
          SqlError: the server refuses the statement; in its words.
          EnvFault: the server is lost.
        """
        return self._connection.run(self._database, sql.strip(), self._rules)

    def run_gold(self, sql: str) -> list[tuple]:
        """Rows of a gold query, under the rules all of them run under.

        Raises:
          SqlError, EnvFault: as in `run`.
        """
        return self._connection.run(self._database, sql.strip(), LENIENT)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._connection.close()
