"""What may be sent to a server: statements of MySQL's grammar that only read, by lists of what is allowed.

A statement is parsed first; what is looked at are its parts, never its words. So a name in backticks is no
other name, and a text that looks like a statement is a text.
"""

import re

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.binding_calls import NATIVES, REFUSED, SESSION, SYSTEM, CallBinder
from coevo_jax.envs.intercode_sql.mysql.compound import walk
from coevo_jax.envs.intercode_sql.mysql.forms import FORMS
from coevo_jax.envs.intercode_sql.mysql.queries import QueryParser
from coevo_jax.envs.intercode_sql.mysql.words import AGGREGATES, WINDOWS
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

MAX_SQL_CHARS = 20_000
RUNS = re.compile(r"/\*[!+M]")
"""Comments that run as code, and hints, which may set the limits that a statement runs under."""
FUNCTIONS = (
    frozenset({*NATIVES, *FORMS, *AGGREGATES, *WINDOWS, *SESSION, *CallBinder.REGULAR, "as moment"}) - REFUSED
)
JSON = frozenset(
    [
        "json_extract",
        "json_unquote",
        "json_contains",
        "json_keys",
        "json_length",
        "json_valid",
        "json_quote",
        "json_type",
        "json_search",
    ]
)
SHOWN = frozenset(
    [
        "tables",
        "databases",
        "schemas",
        "columns",
        "fields",
        "index",
        "indexes",
        "keys",
        "create",
        "table",
        "warnings",
        "errors",
        "count",
        "engines",
        "character",
        "collation",
    ]
)
"""What SHOW may show: the agent's own database, and what is the same on every server."""


class _Guard(QueryParser):
    """Parses one statement that is to be sent."""

    def check(self, database: str) -> None:
        """Check that the statement may be sent.

        Raises:
          SqlError: the statement is not allowed.
        """
        word = self.word
        if self.token.kind == "end" or all(token.word == ";" for token in self.tokens[:-1]):
            raise SqlError(errors.EMPTY)
        if word in ("select", "with", "values", "table", "("):
            self._check_query(self.statement(), database)
        elif word == "show":
            self._check_show(database)
        elif word in ("desc", "describe", "explain"):
            self._check_describe(database)
        elif word == "use":
            self.advance()
            self._check_database(self.identifier(), database)
            self._check_end()
        else:
            raise SqlError(f"{word.upper() or 'This'} command denied to user {errors.USER}")

    def _check_end(self) -> None:
        while self.take(";"):
            pass
        if self.token.kind != "end":
            raise self.error()

    def _check_database(self, name: str, database: str) -> None:
        if name.lower() not in (database.lower(), "information_schema"):
            raise errors.database_denied(name)

    def _check_query(self, query: nodes.Query, database: str) -> None:
        for node in walk(query):
            if isinstance(node, nodes.Table) and node.database is not None:
                if node.database.lower() not in (database.lower(), "information_schema"):
                    raise errors.denied("SELECT", node.name)
            elif isinstance(node, nodes.Call) and node.name.lstrip("?") not in FUNCTIONS | JSON:
                raise errors.no_such_function(database, node.written)
            elif isinstance(node, nodes.Variable):
                name = re.sub(r"^(global|session|local|persist)\.", "", node.name.lower())
                if not node.system or name not in SYSTEM:
                    raise SqlError(f"Unknown system variable '{node.name}'")
            elif isinstance(node, nodes.Select) and (node.locking or node.into):
                raise errors.denied("SELECT with locking clause" if node.locking else "SELECT INTO", database)

    def _check_show(self, database: str) -> None:
        """SHOW of an allowed list; LIKE or WHERE behind it, where WHERE is an expression without queries."""
        self.advance()
        while self.word in ("full", "extended"):
            self.advance()
        what = self.word
        if what not in SHOWN:
            raise errors.denied("SHOW", self.token.text)
        self.advance()
        while self.word in ("(", "*", ")", "warnings", "errors", "set", "status") and what in (
            "count",
            "character",
            "table",
        ):
            self.advance()
        if what == "create":
            if self.word not in ("table", "database", "schema"):
                raise errors.denied("SHOW CREATE", self.token.text)
            named = self.word
            self.advance()
            name = self.identifier()
            if self.take("."):
                self._check_database(name, database)
                self.advance()
            elif named != "table":
                self._check_database(name, database)
        self._check_sources(what, database)
        if self.take("like"):
            self.advance()
        elif self.take("where"):
            condition = self.expression()
            if any(isinstance(node, nodes.Subquery) for node in walk(condition)):
                raise errors.not_supported("subquery in SHOW")
            self._check_query(nodes.Query(nodes.Select([], where=condition)), database)
        self._check_end()

    def _check_sources(self, what: str, database: str) -> None:
        """FROM and IN, which name a table, a database, or first the one and then the other."""
        of_table = what in ("columns", "fields", "index", "indexes", "keys")
        while self.word in ("from", "in"):
            self.advance()
            name = self.identifier()
            if self.take("."):
                self._check_database(name, database)
                self.advance()
            elif not of_table:
                self._check_database(name, database)
            of_table = False

    def _check_describe(self, database: str) -> None:
        self.advance()
        if self.word == "format":
            self.advance()
            self.expect("=")
            if self.word not in ("tree", "json", "traditional"):
                raise self.error()
            self.advance()
        if self.word in ("select", "with", "("):
            self._check_query(self.statement(), database)
            return
        name = self.identifier()
        if self.take("."):
            self._check_database(name, database)
            self.advance()
        if self.token.kind != "end" and self.word != ";":
            self.advance()
        self._check_end()


def check_statement(sql: str, database: str = "", ignore_space: bool = False) -> None:
    """Refuse what a reader has no need of.

    Raises:
      SqlError: the statement is refused; in MySQL's words.
    """
    if len(sql) > MAX_SQL_CHARS:
        raise SqlError(errors.TOO_BIG)
    if "\0" in sql or RUNS.search(sql):
        raise errors.syntax_error(sql.replace("\0", "\\0"))
    try:
        _Guard(sql, ignore_space).check(database)
    except RecursionError:
        raise errors.syntax_error(sql) from None
