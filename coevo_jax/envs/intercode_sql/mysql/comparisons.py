"""How MySQL compares values of two types, and the operators that do."""

import operator
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.collation import collation_key
from coevo_jax.envs.intercode_sql.mysql.moments import moment_of, time_of
from coevo_jax.envs.intercode_sql.mysql.schema import INT, SqlType
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Term, combine
from coevo_jax.envs.intercode_sql.mysql.values import to_double, to_number, to_text
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

Reader = Callable[[Any], Any] | None
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _text(value: Any) -> Any:
    return collation_key(to_text(value) or "")


def _unpadded(value: Any) -> Any:
    """Constants compare by the connection's collation, in which trailing blanks count."""
    return collation_key(value), len(value) - len(value.rstrip(" "))


def _moment(value: Any) -> Any:
    return datetime(value.year, value.month, value.day) if type(value) is date else moment_of(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else (to_text(value) or "").encode()


def readers(left: SqlType, right: SqlType) -> tuple[Reader, Reader]:
    """How both sides of a comparison are read; NULL is never read."""
    names = {left.kind, right.kind}
    if names <= {"text", "null"}:
        return collation_key, collation_key
    if names <= {"int", "decimal", "double", "float", "null"}:
        mixed = "decimal" in names and names & {"double", "float"}
        return (to_double, to_double) if mixed else (None, None)
    if "bytes" in names and names <= {"bytes", "text", "null"}:
        return _bytes, _bytes
    temporal = [kind for kind in (left, right) if kind.temporal]
    if temporal and names <= {"date", "datetime", "time", "text", "bytes", "null"}:
        if names <= {"time", "text", "null"}:
            return time_of, time_of
        if names in ({"date"}, {"date", "null"}):
            return None, None
        return _moment, _moment
    if temporal:
        return to_number, to_number
    return to_double, to_double


def side_reader(kind: SqlType) -> Reader:
    """How a value of a type is read where values of this type alone are grouped, sorted or counted."""
    return collation_key if kind.kind == "text" else None


def _checked(term: Term, other: Term) -> None:
    """A constant text beside a DATE or DATETIME must be one: error 1525."""
    if other.type.kind in ("date", "datetime") and term.constant and term.type.kind == "text":
        value = term.value
        if value is not None and moment_of(value) is None:
            raise SqlError(f"Incorrect {other.type.kind.upper()} value: '{value}'")


def compare(sign: str, left: Term, right: Term) -> Term:
    """left sign right."""
    _checked(left, right)
    _checked(right, left)
    name = sign
    if left.constant and not right.constant and sign in FLIPPED:
        return _named(compare(FLIPPED[sign], right, left), name, left, right)
    read_left, read_right = readers(left.type, right.type)
    if left.constant and right.constant and left.type.kind == right.type.kind == "text":
        read_left = read_right = _unpadded
    if sign == "<=>":
        return combine(_null_safe(left, right, read_left, read_right), INT, sign, (left, right))
    test = OPERATORS[sign]
    if left.type.real and right.type.real | (right.type.kind in ("int", "decimal")):
        scales = [_scale(left), _scale(right)]
        if None not in scales:
            test = _within(sign, 5 / 10.0 ** (max(scale for scale in scales if scale is not None) + 1))
    elif right.type.real and left.type.kind in ("int", "decimal") and _scale(right) is not None:
        test = _within(sign, 5 / 10.0 ** (max(_scale(left) or 0, _scale(right) or 0) + 1))
    if right.constant:
        compute = _with_constant(test, left, read_left, right.value, read_right)
    else:
        compute = _with_term(test, left.compute, right.compute, read_left, read_right)
    return combine(compute, INT, sign, (left, right))


def _named(term: Term, sign: str, left: Term, right: Term) -> Term:
    term.key = (sign, left.key, right.key)
    term.children = (left, right)
    return term


def _scale(term: Term) -> int | None:
    return 0 if term.type.kind == "int" else term.type.scale


def _within(sign: str, precision: float) -> Callable[[Any, Any], bool]:
    """Doubles of a fixed number of digits are equal where they differ by less."""
    test = OPERATORS[sign]

    def within(left: Any, right: Any) -> bool:
        left, right = float(left), float(right)
        return test(0, 0) if abs(left - right) < precision else test(left, right)

    return within


def _with_constant(test: Callable, left: Term, read: Reader, value: Any, read_value: Reader) -> Compute:
    if value is None:
        return lambda row: None
    wanted = value if read_value is None else read_value(value)
    if wanted is None:
        return lambda row: None
    if left.column is not None:
        source, place = left.column
        if read is None:

            def plain(row: Row) -> Any:
                found = row[source][place]
                return None if found is None else 1 if test(found, wanted) else 0

            return plain

        def column(row: Row) -> Any:
            found = row[source][place]
            if found is None or (found := read(found)) is None:
                return None
            return 1 if test(found, wanted) else 0

        return column
    compute = left.compute

    def any_term(row: Row) -> Any:
        found = compute(row)
        if found is None or (read is not None and (found := read(found)) is None):
            return None
        return 1 if test(found, wanted) else 0

    return any_term


def _with_term(
    test: Callable, left: Compute, right: Compute, read_left: Reader, read_right: Reader
) -> Compute:
    def compared(row: Row) -> Any:
        a = left(row)
        if a is None:
            return None
        b = right(row)
        if b is None:
            return None
        if read_left is not None and (a := read_left(a)) is None:
            return None
        if read_right is not None and (b := read_right(b)) is None:
            return None
        return 1 if test(a, b) else 0

    return compared


def _null_safe(left: Term, right: Term, read_left: Reader, read_right: Reader) -> Compute:
    first, second = left.compute, right.compute

    def same(row: Row) -> int:
        a, b = first(row), second(row)
        if a is None or b is None:
            return int(a is None and b is None)
        return int((read_left(a) if read_left else a) == (read_right(b) if read_right else b))

    return same


def membership(left: Term, items: list[Term]) -> Term:
    """left IN (items): each item is compared by the types of the pair; equal constants are looked up."""
    for item in items:
        _checked(item, left)
    kinds = {item.type.kind for item in items}
    name = "in"
    if all(item.constant for item in items) and len(kinds - {"null"}) == 1:
        kind = next(item.type for item in items if item.type.kind != "null")
        read_left, read_right = readers(left.type, kind)
        values = [item.value for item in items]
        known = {read_right(v) if read_right else v for v in values if v is not None}
        compute, has_null = left.compute, None in values

        def looked_up(row: Row) -> Any:
            found = compute(row)
            if found is None or (read_left is not None and (found := read_left(found)) is None):
                return None
            return 1 if found in known else None if has_null else 0

        return combine(looked_up, INT, name, (left, *items))
    tests = [compare("=", left, item).compute for item in items]

    def any_equal(row: Row) -> Any:
        unknown = False
        for test in tests:
            result = test(row)
            if result:
                return 1
            unknown = unknown or result is None
        return None if unknown else 0

    return combine(any_equal, INT, name, (left, *items))
