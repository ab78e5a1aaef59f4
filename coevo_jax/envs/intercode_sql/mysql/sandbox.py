"""One database of a converted dump that speaks MySQL: read-only, limited in work, time, rows and text.

Nothing of a statement runs anywhere but here: it is parsed by MySQL's grammar, bound to the dump's tables,
planned and computed. docs/environments.md says how far its answers agree with a server's, and what differs.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.compound import Builder, walk
from coevo_jax.envs.intercode_sql.mysql.explain import explain
from coevo_jax.envs.intercode_sql.mysql.information import InformationSchema
from coevo_jax.envs.intercode_sql.mysql.patterns import TimeIsUp
from coevo_jax.envs.intercode_sql.mysql.queries import parse_query
from coevo_jax.envs.intercode_sql.mysql.schema import DatabaseSchema, SqlType
from coevo_jax.envs.intercode_sql.mysql.select import SelectPlan
from coevo_jax.envs.intercode_sql.mysql.sources import World
from coevo_jax.envs.intercode_sql.mysql.statements import StatementParser, filter_rows
from coevo_jax.envs.intercode_sql.mysql.tables import open_stored
from coevo_jax.envs.intercode_sql.mysql.terms import Scope, Source
from coevo_jax.envs.intercode_sql.mysql.values import client_reader
from coevo_jax.envs.intercode_sql.mysql.work_limit import Budget
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits, SqlError

TOO_LONG = "Query execution was interrupted, maximum statement execution time exceeded"
STACK = "Thread stack overrun:  Need more than available stack"
MAX_SQL_CHARS = 20_000
MAX_RESULT_CHARS = 4_000_000
PLANS_KEPT = 200
ENDS = "; \t\r\n"  # that the server cuts off before it reads a statement


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Settings of the session that a statement runs in; the defaults are MySQL's."""

    full_group_by: bool = True  # ONLY_FULL_GROUP_BY
    ignore_space: bool = False  # IGNORE_SPACE: `count (*)` is a function


STRICT, LENIENT = Rules(), Rules(full_group_by=False, ignore_space=True)
"""What MySQL refuses is refused; and the rules under which all of Spider's gold queries run."""


class MySqlSandbox:
    """A converted database, only read. May move between threads, one at a time."""

    def __init__(
        self,
        path: Path,
        schema: DatabaseSchema,
        limits: QueryLimits,
        rules: Rules = STRICT,
        others: frozenset[str] = frozenset(),
    ):
        """`others` are the databases that exist beside it, and that it must not read."""
        self._stored = open_stored(path, schema.model_dump_json())
        self.tables = tuple(table.name for table in schema.tables)
        self._limits, self._rules = limits, rules
        self._budget = Budget(limits)
        self._information = InformationSchema(self._stored)
        self._world = World(database=self._stored, others=others, information=self._information)
        self._plans: OrderedDict[tuple[str, Rules], Any] = OrderedDict()

    def run(self, sql: str) -> list[tuple]:
        """Rows of one statement as MySQL's client returns them, at most `limits.rows`.

        Raises:
          SqlError: MySQL refuses the statement, or it takes too long.
        """
        return self._run(sql, self._rules)

    def run_gold(self, sql: str) -> list[tuple]:
        """Rows of a gold query, under the rules all of them run under.

        Raises:
          SqlError: as in `run`.
        """
        return self._run(sql, LENIENT)

    def _run(self, sql: str, rules: Rules) -> list[tuple]:
        self._budget.start()
        try:
            return self._answer(sql.strip().rstrip(ENDS), rules)
        except TimeIsUp:
            raise SqlError(TOO_LONG) from None
        except RecursionError:
            raise SqlError(STACK) from None

    def _answer(self, sql: str, rules: Rules) -> list[tuple]:
        plan = self._plans.get((sql, rules))
        if plan is None:
            if len(sql) > MAX_SQL_CHARS:
                raise SqlError(errors.TOO_BIG)
            if not sql.isascii():
                _check_letters(sql)
            if not _starts_query(sql):
                statement = StatementParser(
                    sql, self._stored, self._world.others, self._explain, self._filter
                )
                if not statement.is_query():
                    return statement.answer()[: self._limits.rows]
            plan = self._plan(sql, rules)
        if plan is INTO:
            return []
        rows = plan.rows()[: self._limits.rows]
        _check_size(rows)
        return _for_client(rows, plan.columns)

    def _plan(self, sql: str, rules: Rules) -> Any:
        """The plan of a query, kept for the next time."""
        query = parse_query(sql, rules.ignore_space)
        self._check_tables(query)
        plan = Builder(self._world, self._budget, rules.full_group_by).build(query)
        if isinstance(query.body, nodes.Select) and query.body.into:
            plan = INTO
        elif isinstance(plan, SelectPlan):
            plan.most_rows = self._limits.rows
        self._plans[sql, rules] = plan
        if len(self._plans) > PLANS_KEPT:
            self._plans.popitem(last=False)
        return plan

    def _check_tables(self, query: nodes.Query) -> None:
        """All tables of a statement exist and may be read: MySQL opens them before it looks at any name."""
        common = {node.name.lower() for node in walk(query) if isinstance(node, nodes.CommonTable)}
        for node in walk(query):
            if not isinstance(node, nodes.Table):
                continue
            database, name = (node.database or "").lower(), node.name.lower()
            if database == "information_schema" or (not database and name in common):
                continue
            if database and database != self._stored.name:
                if database in self._world.others or database in ("mysql", "performance_schema", "sys"):
                    raise errors.denied("SELECT", name)
                raise errors.unknown_database(database)
            if name not in self._stored.tables:
                raise errors.no_such_table(self._stored.name, name)

    def _explain(self, query: nodes.Query) -> str:
        self._check_tables(query)
        return explain(Builder(self._world, self._budget, True).build(query))

    def _filter(self, rows: list[tuple], names: Sequence[str], node: nodes.Node) -> list[tuple]:
        def binder_of(columns: list[tuple[str, SqlType]]) -> Any:
            scope = Scope()
            scope.sources, scope.place = [Source("", "", columns)], "where clause"
            return Builder(self._world, self._budget, True).binder(scope)

        return filter_rows(binder_of, rows, names, node)

    def close(self) -> None:
        """Forget the plans; safe to call twice."""
        self._plans.clear()


INTO = object()
"""The plan of SELECT ... INTO @x, which shows nothing."""


def _check_letters(sql: str) -> None:
    """A statement reaches a server as UTF-8."""
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise SqlError(str(error)) from None


def _starts_query(sql: str) -> bool:
    return sql[:6].lower() == "select" or sql[:1] == "("


def _check_size(rows: list[tuple]) -> None:
    chars = sum(len(value) for row in rows for value in row if isinstance(value, str | bytes))
    if chars > MAX_RESULT_CHARS:
        raise SqlError(errors.TOO_BIG)


def _for_client(rows: list[tuple], columns: list[tuple[str, SqlType]]) -> list[tuple]:
    readers = [client_reader(kind) for _, kind in columns]
    if not any(readers):
        return list(rows)
    return [tuple([v if r is None else r(v) for v, r in zip(row, readers, strict=True)]) for row in rows]
