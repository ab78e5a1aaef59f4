"""Functions whose type follows their arguments, and CAST."""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.arithmetic import numeric_type, operate
from coevo_jax.envs.intercode_sql.mysql.comparisons import compare, readers
from coevo_jax.envs.intercode_sql.mysql.moments import moment_of, shifted, span_of, time_of
from coevo_jax.envs.intercode_sql.mysql.schema import (
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    TEXT,
    TIME,
    UNSIGNED_INT,
    SqlType,
)
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Term, combine, merged_type
from coevo_jax.envs.intercode_sql.mysql.text_functions import json_of, write_json
from coevo_jax.envs.intercode_sql.mysql.values import (
    UNSIGNED,
    cut_exact,
    round_double,
    round_exact,
    rounded,
    text_writer,
    to_decimal,
    to_double,
    to_integer,
    to_number,
    to_text,
    truth,
)

Terms = Sequence[Term]


def as_type(term: Term, kind: SqlType) -> Compute:
    """What computes a term as a value of another type."""
    compute = term.compute
    if term.type == kind or term.type.kind == "null":
        return compute
    if kind.kind in ("text", "bytes"):
        return _through(compute, text_writer(term.type))
    if kind.kind == "decimal":
        scale = kind.scale or 0
        return _through(compute, lambda value: rounded(to_decimal(value), scale))
    if kind.real:
        return _through(compute, to_double)
    if kind.kind == "datetime":
        return _through(
            compute, lambda value: datetime(*value.timetuple()[:6]) if type(value) is date else value
        )
    return compute


def _through(compute: Compute, change: Callable[[Any], Any]) -> Compute:
    def changed(row: Row) -> Any:
        value = compute(row)
        return None if value is None else change(value)

    return changed


def text_compute(term: Term) -> Compute:
    """What computes a term as a text."""
    return term.compute if term.type.kind == "text" else as_type(term, TEXT)


def choose(terms: Terms, pick: Callable[[list[Compute]], Compute], name: str, others: Terms = ()) -> Term:
    """A term that gives the value of one of `terms`, in the type they have in common."""
    kind = merged_type([term.type for term in terms])
    return combine(pick([as_type(term, kind) for term in terms]), kind, name, [*others, *terms])


def _if(terms: Terms) -> Term:
    condition = terms[0].compute

    def pick(computes: list[Compute]) -> Compute:
        yes, no = computes
        return lambda row: yes(row) if truth(condition(row)) else no(row)

    return choose(terms[1:], pick, "if", terms[:1])


def _coalesce(terms: Terms) -> Term:
    def pick(computes: list[Compute]) -> Compute:
        def first(row: Row) -> Any:
            for compute in computes:
                value = compute(row)
                if value is not None:
                    return value
            return None

        return first

    return choose(terms, pick, "coalesce")


def _nullif(terms: Terms) -> Term:
    same, first = compare("=", *terms).compute, terms[0].compute
    return combine(lambda row: None if same(row) else first(row), terms[0].type, "nullif", terms)


def _extreme(greatest: bool) -> Callable[[Terms], Term]:
    def extreme(terms: Terms) -> Term:
        kind = merged_type([term.type for term in terms])
        read = readers(kind, kind)[0]
        computes = [as_type(term, kind) for term in terms]

        def pick(row: Row) -> Any:
            found = [compute(row) for compute in computes]
            if any(value is None for value in found):
                return None
            key = read or (lambda value: value)
            return max(found, key=key) if greatest else min(found, key=key)

        return combine(pick, kind, "greatest" if greatest else "least", terms)

    return extreme


def _isnull(terms: Terms) -> Term:
    compute = terms[0].compute
    return combine(lambda row: int(compute(row) is None), INT, "isnull", terms)


def _field(terms: Terms) -> Term:
    kinds = {term.type.kind for term in terms}
    numbers = "text" not in kinds
    same = [compare("=", terms[0], term).compute for term in terms[1:]]
    if not numbers and kinds != {"text"}:
        doubles = [_through(term.compute, to_double) for term in terms]
        return combine(lambda row: _place([c(row) for c in doubles]), INT, "field", terms)
    return combine(
        lambda row: next((place for place, test in enumerate(same, 1) if test(row)), 0), INT, "field", terms
    )


def _place(found: list[Any]) -> int:
    return next((i for i, value in enumerate(found[1:], 1) if found[0] is not None and value == found[0]), 0)


def _interval(terms: Terms) -> Term:
    computes = [term.compute for term in terms]

    def place(row: Row) -> int:
        numbers = [to_number(compute(row)) for compute in computes]
        if numbers[0] is None:
            return -1
        return sum(1 for number in numbers[1:] if number is not None and number <= numbers[0])

    return combine(place, INT, "interval", terms)


def _rounding(cut: bool) -> Callable[[Terms], Term]:
    exact = cut_exact if cut else round_exact

    def rounding(terms: Terms) -> Term:
        kind = numeric_type(terms[0].type)
        digits = terms[1] if len(terms) > 1 else None
        wanted = 0 if digits is None else to_integer(digits.value) if digits.constant else None
        result = _rounded_type(kind, wanted, digits)
        first = terms[0].compute
        places = digits.compute if digits is not None else (lambda row: 0)

        def compute(row: Row) -> Any:
            value, count = to_number(first(row)), to_integer(places(row))
            if value is None or count is None:
                return None
            count = max(-400, min(count, 400))
            if isinstance(value, float):
                return _cut_double(value, count) if cut else round_double(value, count)
            if isinstance(value, int) and count >= 0:
                return value
            found = exact(value, max(-60, min(count, result.scale or 0)))
            return int(found) if result.kind == "int" else rounded(found, result.scale or 0)

        return combine(compute, result, "truncate" if cut else "round", terms)

    return rounding


def _rounded_type(kind: SqlType, wanted: int | None, digits: Term | None) -> SqlType:
    if kind.kind == "int":
        return kind
    if kind.real:
        if digits is not None and wanted is not None:
            return SqlType(kind="double", scale=max(0, min(wanted, 30)) if wanted < 31 else None)
        return SqlType(kind="double", scale=0 if digits is None else None)
    scale = kind.scale or 0
    return SqlType(kind="decimal", scale=scale if wanted is None else max(0, min(wanted, scale)))


def _cut_double(value: float, count: int) -> float:
    power = 10.0 ** abs(count)
    if count >= 0:
        scaled = value * power
        return value if scaled in (float("inf"), float("-inf")) else float(int(scaled)) / power
    return float(int(value / power)) * power


def _whole(up: bool) -> Callable[[Terms], Term]:
    def whole(terms: Terms) -> Term:
        kind = numeric_type(terms[0].type)
        result = INT if kind.kind != "int" else kind
        if kind.real or terms[0].type.kind == "datetime":
            result = SqlType(kind="double", scale=0)
        compute = terms[0].compute

        def rounded_off(row: Row) -> Any:
            value = to_number(compute(row))
            if value is None or isinstance(value, int):
                return value
            number = -(-value // 1) if up else value // 1
            if isinstance(value, Decimal):
                return int(value.to_integral_value("ROUND_CEILING" if up else "ROUND_FLOOR"))
            return float(number)

        return combine(rounded_off, result, "ceil" if up else "floor", terms)

    return whole


def _abs(terms: Terms) -> Term:
    compute = terms[0].compute
    return combine(
        _through(compute, lambda value: abs(to_number(value) or 0)), numeric_type(terms[0].type), "abs", terms
    )


def _json_array(terms: Terms) -> Term:
    computes = [term.compute for term in terms]
    return combine(lambda row: write_json([json_of(c(row)) for c in computes]), TEXT, "json_array", terms)


FORMS: Mapping[str, tuple[int, int, Callable[[Terms], Term]]] = {
    "if": (3, 3, _if),
    "ifnull": (2, 2, _coalesce),
    "coalesce": (1, 99, _coalesce),
    "nullif": (2, 2, _nullif),
    "greatest": (2, 99, _extreme(True)),
    "least": (2, 99, _extreme(False)),
    "isnull": (1, 1, _isnull),
    "field": (2, 99, _field),
    "interval": (2, 99, _interval),
    "round": (1, 2, _rounding(False)),
    "truncate": (2, 2, _rounding(True)),
    "ceil": (1, 1, _whole(True)),
    "ceiling": (1, 1, _whole(True)),
    "floor": (1, 1, _whole(False)),
    "abs": (1, 1, _abs),
    "mod": (2, 2, lambda terms: operate("%", *terms)),
    "any_value": (1, 1, lambda terms: combine(terms[0].compute, terms[0].type, "any_value", terms)),
    "json_array": (0, 99, _json_array),
}
"""Fewest and most arguments, and what makes the term."""


def shift(value: Term, count: Term, unit: str, sign: int) -> Term:
    """value + INTERVAL count unit: a DATE stays one under units of days; a text stays a text."""
    timed = unit not in ("day", "week", "month", "quarter", "year", "year_month")
    kind = value.type
    result = (
        DATETIME
        if kind.kind == "datetime" or (kind.kind == "date" and timed)
        else kind
        if kind.kind in ("date", "time")
        else TEXT
    )
    first, second = value.compute, count.compute

    def compute(row: Row) -> Any:
        found, amount = first(row), second(row)
        if found is None or amount is None:
            return None
        if result.kind == "time":
            return found + sign * span_of(amount, unit)
        moment = moment_of(found)
        moved = None if moment is None else shifted(moment, amount, unit, sign)
        if moved is None or result.kind == "datetime":
            return moved
        if result.kind == "date":
            return moved.date()
        keeps_time = timed or ":" in (to_text(found) or "") or len(to_text(found) or "") > 10
        return to_text(moved if keeps_time else moved.date())

    return combine(compute, result, f"shift {unit} {sign}", (value, count))


def cast(term: Term, kind: str, length: int | None, scale: int | None) -> Term:
    """CAST(term AS kind)."""
    read, result = _casts(term, kind, length, scale)
    compute = term.compute

    def converted(row: Row) -> Any:
        value = compute(row)
        return None if value is None else read(value)

    return combine(converted, result, f"cast {kind} {length} {scale}", (term,))


def _casts(
    term: Term, kind: str, length: int | None, scale: int | None
) -> tuple[Callable[[Any], Any], SqlType]:
    if kind == "signed":
        return _signed, INT
    if kind == "unsigned":
        return lambda value: (to_integer(value) or 0) % UNSIGNED, UNSIGNED_INT
    if kind == "decimal":
        digits, places = 10 if length is None else length, scale or 0
        most = Decimal(10 ** max(digits - places, 0)) - Decimal(1).scaleb(-places)

        def decimal(value: Any) -> Decimal:
            return max(-most, min(most, rounded(to_decimal(value), places) or Decimal(0)))

        return decimal, SqlType(kind="decimal", scale=places)
    if kind in ("char", "binary"):
        write = text_writer(term.type)
        if kind == "binary":
            return lambda v: v if isinstance(v, bytes) else (write(v) or "").encode()[:length], BYTES
        return lambda value: (write(value) or "")[:length], TEXT
    return {
        "double": (to_double, DOUBLE),
        "float": (_single, SqlType(kind="float")),
        "date": (_date, DATE),
        "datetime": (moment_of, DATETIME),
        "time": (time_of, TIME),
        "year": (_year, SqlType(kind="int", unsigned=True)),
        "json": (to_text, TEXT),
    }[kind]


def _signed(value: Any) -> int:
    number = (to_integer(value) or 0) % UNSIGNED
    return number - UNSIGNED if number >= UNSIGNED // 2 else number


def _single(value: Any) -> float:
    return struct.unpack("f", struct.pack("f", to_double(value)))[0]


def _date(value: Any) -> date | None:
    moment = moment_of(value)
    return None if moment is None else moment.date()


def _year(value: Any) -> int | None:
    number = to_integer(value) or 0
    return (
        number
        if 1901 <= number <= 2155
        else 2000 + number
        if number < 70
        else 1900 + number
        if number < 100
        else None
    )
