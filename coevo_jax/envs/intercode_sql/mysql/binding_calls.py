"""Binds calls: native functions, aggregates, window functions, and what the session knows."""

import re
from collections.abc import Callable
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import (
    date_functions,
    errors,
    nodes,
    number_functions,
    patterns,
    text_functions,
)
from coevo_jax.envs.intercode_sql.mysql.aggregates import Aggregate, aggregate
from coevo_jax.envs.intercode_sql.mysql.forms import FORMS, shift, text_compute
from coevo_jax.envs.intercode_sql.mysql.natives import Native
from coevo_jax.envs.intercode_sql.mysql.nodes import Call, Node
from coevo_jax.envs.intercode_sql.mysql.schema import DATE, DATETIME, INT, NULL, TEXT, TIME
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Scope, Term, combine, constant
from coevo_jax.envs.intercode_sql.mysql.values import LONGEST_TEXT
from coevo_jax.envs.intercode_sql.mysql.windows import WindowCall
from coevo_jax.envs.intercode_sql.mysql.words import AGGREGATES
from coevo_jax.envs.intercode_sql.mysql.work_limit import Budget
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

VERSION = "8.0.33"
NATIVES: dict[str, Native] = {
    **text_functions.FUNCTIONS,
    **number_functions.FUNCTIONS,
    **date_functions.FUNCTIONS,
}
REFUSED = frozenset(
    [
        "rand",
        "uuid",
        "uuid_short",
        "sleep",
        "benchmark",
        "get_lock",
        "release_lock",
        "release_all_locks",
        "is_free_lock",
        "is_used_lock",
        "load_file",
        "json_table",
        "random_bytes",
    ]
)
SYSTEM = {
    "version": VERSION,
    "sql_mode": "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
    "lower_case_table_names": 1,
    "autocommit": 1,
    "max_connections": 151,
    "time_zone": "SYSTEM",
    "port": 3306,
    "character_set_client": "utf8mb4",
    "collation_connection": "utf8mb4_0900_ai_ci",
    "version_comment": "MySQL Community Server - GPL",
}
"""What system variables say."""


SESSION: dict[str, str | None] = {
    "database": None,
    "schema": None,
    "version": VERSION,
    **dict.fromkeys(("user", "current_user", "session_user", "system_user"), "agent@localhost"),
    "connection_id": "1",
}
"""What functions of the session say; None: the database's name."""


class CallBinder:
    """The part of a binder that knows functions."""

    scope: Scope
    budget: Budget
    database: str

    def bind(self, node: Node) -> Term:
        """The term of an expression."""
        raise NotImplementedError

    def bind_scalar(self, node: Node) -> Term:
        """The term of an expression that must be one value."""
        raise NotImplementedError

    def call(self, node: Call) -> Term:
        """The term of a call.

        Raises:
          SqlError: the function is unknown or has other arguments.
        """
        name = node.name
        if node.window is not None:
            return self._window(node)
        if name in AGGREGATES:
            return self._aggregate(node)
        if name in SESSION and not node.arguments:
            return constant(SESSION[name] or self.database, TEXT)
        if name in REFUSED:
            raise errors.not_supported(node.written.upper())
        if (rule := self.REGULAR.get(name)) is not None:
            return rule(self, node)
        terms = [self.bind_scalar(argument) for argument in node.arguments]
        if name in FORMS:
            least, most, form = FORMS[name]
            if not least <= len(terms) <= most:
                raise errors.wrong_arguments(node.written)
            return form(terms)
        if (native := NATIVES.get(name)) is None:
            raise errors.no_such_function(self.database, node.written)
        if not native.accepts(len(terms)):
            raise errors.wrong_arguments(node.written)
        return _native(name, native, terms)

    def outer_aggregate(self, node: Call, outer: Scope) -> Term:
        """An aggregate of the query around this one."""
        raise NotImplementedError

    def _aggregate(self, node: Call) -> Term:
        scope = self.scope
        if not scope.aggregates_allowed and scope.outer is not None and scope.outer.aggregates_allowed:
            return self.outer_aggregate(node, scope.outer)
        if not scope.aggregates_allowed or scope.inside_aggregate:
            raise SqlError("Invalid use of group function")
        scope.inside_aggregate, windows_allowed = True, scope.windows_allowed
        scope.windows_allowed = False
        place, scope.place = scope.place, "field list" if scope.place == "having clause" else scope.place
        try:
            terms = [self.bind_scalar(argument) for argument in node.arguments]
            keys = [(self.bind_scalar(key.term), key.descending) for key in node.order]
        finally:
            scope.inside_aggregate, scope.windows_allowed, scope.place = False, windows_allowed, place
        made = aggregate(node, terms, keys)
        return _aggregate_term(scope, made, terms)

    def _window(self, node: Call) -> Term:
        scope = self.scope
        if not scope.windows_allowed:
            raise SqlError(f"You cannot use the window function '{node.name}' in this context.'")
        scope.windows_allowed = False
        try:
            window = self._window_of(node.window)
            terms = [self.bind_scalar(argument) for argument in node.arguments]
            partition = [self.bind_scalar(term) for term in window.partition]
            order = [(self.bind_scalar(key.term), key.descending) for key in window.order]
        finally:
            scope.windows_allowed = True
        made = WindowCall(node, terms, partition, order, window.frame)
        number = len(scope.window_calls)
        scope.window_calls.append(made)
        term = combine(
            lambda row: row[-1][number],
            made.type,
            f"window {number}",
            [*terms, *partition, *[k for k, _ in order]],
        )
        term.key = ("window", id(made))
        term.constant, term.windowed = False, True
        return term

    def _window_of(self, window: nodes.Window | str | None) -> nodes.Window:
        if isinstance(window, nodes.Window) and window.base is None:
            return window
        name = window if isinstance(window, str) else (window.base if window else "") or ""
        found = self.scope.windows.get(name.lower())
        if found is None:
            raise SqlError(f"Window name '{name}' is not defined.")
        if isinstance(window, nodes.Window):
            return nodes.Window(found.partition, found.order or window.order, window.frame or found.frame)
        return found

    def variable(self, node: nodes.Variable) -> Term:
        """A variable: those of the user are NULL, of the system only SYSTEM are known."""
        if not node.system:
            return Term(lambda row: None, NULL, ("variable", node.name))
        name = re.sub(r"^(global|session|local)\.", "", node.name.lower())
        if name not in SYSTEM:
            raise SqlError(f"Unknown system variable '{name}'")
        value = SYSTEM[name]
        return constant(value, INT if isinstance(value, int) else TEXT)

    def _regexp_like(self, node: Call) -> Term:
        computes, terms = self._texts(node, 2, 3)
        budget = self.budget

        def like(row: Row) -> Any:
            found = [compute(row) for compute in computes]
            if None in found:
                return None
            return patterns.matches(found[0], found[1], budget.deadline, *found[2:])

        return combine(like, INT, "regexp_like", terms)

    def _regexp_text(self, node: Call) -> Term:
        name = node.name
        computes, terms = self._texts(
            node, 3 if name == "regexp_replace" else 2, 3 if name == "regexp_replace" else 2
        )
        budget = self.budget

        def apply(row: Row) -> Any:
            found = [compute(row) for compute in computes]
            if None in found:
                return None
            if name == "regexp_replace":
                return patterns.substitute(found[0], found[1], found[2], budget.deadline)
            match = patterns.found(found[0], found[1], budget.deadline)
            if name == "regexp_instr":
                return match.start() + 1 if match else 0
            return match[0] if match else None

        return combine(apply, INT if name == "regexp_instr" else TEXT, name, terms)

    def _texts(self, node: Call, least: int, most: int) -> tuple[list[Compute], list[Term]]:
        terms = [self.bind_scalar(argument) for argument in node.arguments]
        if not least <= len(terms) <= most:
            raise errors.wrong_arguments(node.written)
        return [text_compute(term) for term in terms], terms

    def _timestampadd(self, node: Call) -> Term:
        unit, count, value = (self.bind_scalar(argument) for argument in node.arguments)
        return shift(value, count, unit.value, 1)

    def _grouping(self, node: Call) -> Term:
        terms = [self.bind_scalar(argument) for argument in node.arguments]
        keys = [term.key for term in terms]
        scope = self.scope

        def rolled(row: Row) -> int:
            number = 0
            for key in keys:
                place = next((i for i, term in enumerate(scope.grouped) if term.key == key), 0)
                number = number * 2 + int(place >= row[-3])
            return number

        return combine(rolled, INT, "grouping", terms)

    REGULAR: dict[str, Callable[["CallBinder", Call], Term]] = {  # noqa: RUF012
        "regexp_like": _regexp_like,
        **dict.fromkeys(("regexp_replace", "regexp_substr", "regexp_instr"), _regexp_text),
        "timestampadd": _timestampadd,
        "grouping": _grouping,
    }


def _aggregate_term(scope: Scope, made: Aggregate, terms: list[Term]) -> Term:
    key = (
        "aggregate",
        made.name,
        made.distinct,
        made.separator,
        *[t.key for t in terms],
        *[t.key for t, _ in made.order],
    )
    number = next((i for i, other in enumerate(scope.aggregates) if other.key == key), len(scope.aggregates))
    if number == len(scope.aggregates):
        made.key = key
        scope.aggregates.append(made)
    term = Term(lambda row: row[-2][number], made.type, key, terms, aggregate=True, aggregated=True)
    term.uses = sum({term.uses for term in terms}) if terms else 0
    return term


def _native(name: str, native: Native, terms: list[Term]) -> Term:
    computes: list[Compute] = []
    for place, term in enumerate(terms):
        read = native.reader(place)
        compute = (
            text_compute(term) if native.reads[min(place, len(native.reads) - 1)] == "t" else term.compute
        )
        computes.append(compute if read is None or compute is not term.compute else _reading(compute, read))
    function, aware = native.function, native.aware

    def called(row: Row) -> Any:
        found = [compute(row) for compute in computes]
        if not aware and None in found:
            return None
        try:
            result = function(*found)
        except (ValueError, ArithmeticError, LookupError):
            return None
        return result[:LONGEST_TEXT] if isinstance(result, str) and len(result) > LONGEST_TEXT else result

    kind = native.gives
    if name in ("date", "timestamp") and terms and terms[0].type == kind:
        return combine(terms[0].compute, kind, name, terms)
    if name == "str_to_date" and terms[1].constant:
        kind = _format_type(str(terms[1].value or ""))
    if name == "from_unixtime" and len(terms) > 1:
        kind = TEXT
    if name in ("addtime", "subtime") and terms[0].type.temporal:
        kind = terms[0].type
    term = combine(called, kind, name, terms)
    if not terms:
        value = called([])
        return constant(value, kind)
    return term


def _format_type(pattern: str) -> Any:
    timed = re.search(r"%[HhIiklrSsTfp]", pattern) is not None
    dated = re.search(r"%[YymcMbdeDjWa]", pattern) is not None
    return DATETIME if timed and dated else TIME if timed else DATE


def _reading(compute: Compute, read: Callable[[Any], Any]) -> Compute:
    def reading(row: Row) -> Any:
        value = compute(row)
        return None if value is None else read(value)

    return reading
