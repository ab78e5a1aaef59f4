"""A MySQL query as SQLite's: parsed, its names checked, what SQLite does otherwise rewritten.

The parser is sqlglot's; every function becomes one of `functions` or an aggregate of SQLite, and any other is
refused, so nothing of SQLite's own (load_extension, randomblob, clocks) can be reached.
"""

import inspect
import re
from dataclasses import dataclass

from sqlglot import ErrorLevel, exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ParseError, SqlglotError, TokenError

from coevo_jax.envs.intercode_sql.mysql import errors
from coevo_jax.envs.intercode_sql.mysql.rewrite import AGGREGATES, CALLABLE, ONE_ARGUMENT, SPECIAL, rewrite
from coevo_jax.envs.intercode_sql.mysql.schema import DatabaseSchema, SqlType
from coevo_jax.envs.intercode_sql.mysql.types import Types
from coevo_jax.envs.intercode_sql.sandbox import SqlError

MAX_SQL_CHARS = 20_000
KEPT_PARSERS = (
    "CAST",
    "CONVERT",
    "CHAR",
    "EXTRACT",
    "GROUP_CONCAT",
    "POSITION",
    "SUBSTRING",
    "SUBSTR",
    "TRIM",
)
WRITES_WORDS = "insert update delete replace create drop alter truncate rename grant revoke lock load call"
WRITES = frozenset(WRITES_WORDS.split())
READS = frozenset({"select", "with"})
RESERVED_WORDS = "SHOW READ KEYS USE OPTION CONDITION RANGE DESCRIBE LOCK"
RESERVED = frozenset(RESERVED_WORDS.split())
"""Words that MySQL takes for a table's name in backticks only, and the parser without."""


ODD_SHAPES = (ValueError, TypeError, AttributeError, LookupError)
"""What a parser raises over texts that are no SQL at all, and what its trees of half a query lead to."""


NOT_EMULATED = (exp.Rollup, exp.JSONExtract, exp.JSONExtractScalar, exp.MatchAgainst, exp.Parameter)
COLLATIONS = re.compile(r"utf8(mb[34])?_\w+|latin1_\w+|binary", re.IGNORECASE)


class MySqlDialect(MySQL):
    """MySQL, with functions left as they are written."""

    class Parser(MySQL.Parser):
        FUNCTIONS = {}  # noqa: RUF012
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: MySQL.Parser.FUNCTION_PARSERS[name] for name in KEPT_PARSERS
        }


class SqliteDialect(SQLite):
    """SQLite with names in backticks: an unknown name in double quotes would be a text to it."""

    class Tokenizer(SQLite.Tokenizer):
        IDENTIFIERS = ["`"]  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A query for SQLite."""

    sql: str
    types: tuple[SqlType, ...]  # of the columns, as far as they are known
    parsed: exp.Expr  # as the agent wrote it


def parse(sql: str) -> exp.Expr:
    """The one query of a text. Raises SqlError in MySQL's words for anything else."""
    if len(sql) > MAX_SQL_CHARS:
        raise SqlError("Got a packet bigger than 'max_allowed_packet' bytes")
    if "\0" in sql:
        raise errors.syntax_error(
            sql[sql.index("\0") :].replace("\0", "\\0"), sql.count("\n", 0, sql.index("\0")) + 1
        )
    try:
        tokens = MySqlDialect().tokenize(sql)
    except (TokenError, RecursionError):
        raise errors.syntax_error(sql) from None
    words = [token.text.lower() for token in tokens]
    if not words:
        raise SqlError("Query was empty")
    first = next((word for word in words if word != "("), "(")
    if first in WRITES:
        raise errors.denied(first.upper(), _written_table(words))
    if first not in READS:
        raise errors.syntax_error(sql[tokens[0].start :])
    try:
        statements = [found for found in MySqlDialect().parse(sql) if found is not None]
    except ParseError as error:
        raise _syntax_error(error, sql) from None
    except (SqlglotError, RecursionError, *ODD_SHAPES):
        raise errors.syntax_error(sql) from None
    if len(statements) != 1:
        place = next((token.end + 1 for token in tokens if token.text == ";"), 0)
        raise errors.syntax_error(sql[place:].strip(), sql.count("\n", 0, place) + 1)
    if not isinstance(statements[0], exp.Query):
        raise errors.syntax_error(sql[tokens[0].start :])
    return statements[0]


def translate(sql: str, schema: DatabaseSchema) -> Translated:
    """A MySQL query in SQLite's words. Raises SqlError in MySQL's words where it is none."""
    parsed = parse(sql)
    try:
        _check(parsed, schema)
        types = Types(schema)
        columns = types.query(parsed, None, {})
        rewritten = rewrite(parsed, types, schema.name)
        text = SqliteDialect().generate(
            rewritten, copy=False, identify=True, comments=False, unsupported_level=ErrorLevel.IGNORE
        )
    except (SqlglotError, RecursionError, *ODD_SHAPES):
        raise errors.syntax_error(sql) from None
    return Translated(sql=text, types=tuple(kind for _, kind in columns), parsed=parsed)


def _written_table(words: list[str]) -> str:
    skipped = WRITES | {
        "into",
        "from",
        "table",
        "ignore",
        "if",
        "exists",
        "not",
        "temporary",
        "view",
        "index",
        "low_priority",
    }
    return next((word.strip("`") for word in words if word not in skipped), "")


def _syntax_error(error: ParseError, sql: str) -> SqlError:
    if not error.errors:
        return errors.syntax_error(sql)
    found = error.errors[0]
    near = f"{found.get('highlight') or ''}{found.get('end_context') or ''}"
    if not found.get("end_context") and "Unexpected token" not in (found.get("description") or ""):
        near = ""  # the query ends too early
    return errors.syntax_error(near, int(found.get("line") or 1))


def _check(query: exp.Expr, schema: DatabaseSchema) -> None:
    """Refuse what MySQL refuses and SQLite does not, and what cannot be emulated."""
    known = {cte.alias.lower() for cte in query.find_all(exp.CTE)}
    for node in query.walk(bfs=False):
        if isinstance(node, exp.Table):
            _check_table(node, schema, known)
        elif isinstance(node, exp.Anonymous):
            _check_function(node, schema.name)
        elif isinstance(node, exp.Into | exp.Lock):
            raise errors.denied("UPDATE" if isinstance(node, exp.Lock) else "FILE", schema.name)
        elif isinstance(node, NOT_EMULATED):
            raise errors.not_supported(node.key.upper())
        elif isinstance(node, exp.SessionParameter):
            raise SqlError(f"Unknown system variable '{node.name}'")
        elif isinstance(node, exp.Collate) and not COLLATIONS.fullmatch(node.expression.name):
            raise SqlError(f"Unknown collation: '{node.expression.name}'")
        else:
            _check_shape(node)


def _check_shape(node: exp.Expr) -> None:
    """Half queries that the parser lets through."""
    if isinstance(node, exp.Select) and not node.expressions:
        raise errors.syntax_error("")
    if isinstance(node, exp.In) and not (node.expressions or node.args.get("query")):
        raise errors.syntax_error(")")
    if not isinstance(node, exp.Subquery) or not isinstance(node.this, exp.Query):
        return
    if isinstance(node.parent, exp.From | exp.Join) and not node.alias:
        raise SqlError("Every derived table must have its own alias")


def _check_table(node: exp.Table, schema: DatabaseSchema, known: set[str]) -> None:
    if isinstance(node.this, exp.Identifier) and not node.this.quoted and node.name.upper() in RESERVED:
        raise errors.syntax_error(node.name)
    if not isinstance(node.this, exp.Identifier):
        raise errors.not_supported(node.this.key.upper() if node.this else "TABLE")
    database = node.db
    if database.lower() == "information_schema":
        return
    if database and database.lower() != schema.name.lower():
        raise errors.denied("SELECT", node.name)
    if (database or node.name.lower() not in known | {"dual"}) and schema.table(node.name) is None:
        raise errors.no_such_table(schema.name, node.name)


def _check_function(node: exp.Anonymous, database: str) -> None:
    name = node.name.upper()
    if name in ONE_ARGUMENT and len(node.expressions) != 1:
        raise errors.syntax_error(")")
    if name in AGGREGATES or name in SPECIAL:
        return
    if name not in CALLABLE:
        raise errors.no_such_function(database, node.name)
    try:
        inspect.signature(CALLABLE[name]).bind(*node.expressions)
    except TypeError:
        raise errors.wrong_arguments(node.name) from None


def as_valid_mysql(sql: str) -> str:
    """A query with what MySQL wants and Spider's gold queries lack: aliases of derived tables, backticks.

    A query that lacks nothing, or that cannot be parsed, comes back as it is.
    """
    try:
        parsed = MySqlDialect().parse(sql)[0]
    except (SqlglotError, RecursionError):
        return sql
    if parsed is None:
        return sql
    lacking = [
        node
        for node in parsed.find_all(exp.Subquery)
        if isinstance(node.parent, exp.From | exp.Join) and not node.alias
    ]
    for number, node in enumerate(lacking, start=1):
        node.set("alias", exp.TableAlias(this=exp.to_identifier(f"derived_{number}")))
    reserved = [
        node.this
        for node in parsed.find_all(exp.Table)
        if isinstance(node.this, exp.Identifier) and not node.this.quoted and node.name.upper() in RESERVED
    ]
    for name in reserved:
        name.set("quoted", True)
    return parsed.sql(dialect=MySqlDialect) if lacking or reserved else sql
