"""MySQL's arithmetic: which type a result has, and what is out of range."""

import math
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.schema import DOUBLE, INT, UNSIGNED_INT, SqlType
from coevo_jax.envs.intercode_sql.mysql.terms import Row, Term, combine
from coevo_jax.envs.intercode_sql.mysql.values import (
    BIGINT,
    EXACT,
    UNSIGNED,
    rounded,
    to_decimal,
    to_double,
    to_integer,
    to_number,
)
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

DIVISION_DIGITS = 4  # MySQL's div_precision_increment
MOST_DIGITS = 30


def numeric_type(kind: SqlType) -> SqlType:
    """The type of a term where a number is wanted."""
    if kind.temporal or kind.kind == "null":
        return INT
    return DOUBLE if kind.kind in ("text", "bytes") else kind


def result_type(sign: str, left: SqlType, right: SqlType) -> SqlType:
    """The type of an operation on two terms."""
    a, b = numeric_type(left), numeric_type(right)
    if sign == "div":
        return SqlType(kind="int", unsigned=a.unsigned or b.unsigned)
    if a.real or b.real:
        return SqlType(kind="double", scale=_double_scale(sign, a, b))
    if sign == "/":
        return SqlType(kind="decimal", scale=min(MOST_DIGITS, (a.scale or 0) + DIVISION_DIGITS))
    if a.kind == b.kind == "int":
        return UNSIGNED_INT if a.unsigned or (b.unsigned and sign != "%") else INT
    scales = (a.scale or 0, b.scale or 0)
    return SqlType(kind="decimal", scale=min(MOST_DIGITS, sum(scales) if sign == "*" else max(scales)))


def _double_scale(sign: str, a: SqlType, b: SqlType) -> int | None:
    scales = [kind.scale or 0 if kind.kind in ("int", "decimal") else kind.scale for kind in (a, b)]
    known = [scale for scale in scales if scale is not None]
    if len(known) < 2:
        return None
    scale = sum(known) if sign == "*" else max(known) + (DIVISION_DIGITS if sign == "/" else 0)
    return scale if scale < 31 else None


def operate(sign: str, left: Term, right: Term) -> Term:
    """left sign right, for + - * / % div."""
    kind = result_type(sign, left.type, right.type)
    function = _function(sign, kind, left, right)
    first, second = left.compute, right.compute

    def operation(row: Row) -> Any:
        a = first(row)
        if a is None:
            return None
        b = second(row)
        return None if b is None else function(a, b)

    return combine(operation, kind, sign, (left, right))


def _function(sign: str, kind: SqlType, left: Term, right: Term) -> Callable[[Any, Any], Any]:
    if sign == "div":
        return _integer_division
    if kind.kind == "double":
        return _on_doubles(sign)
    if sign == "/":
        scale = kind.scale or 0
        return lambda a, b: _divide(a, b, scale)
    if sign == "%":
        return _modulo
    plain = _EXACT[sign]
    if kind.kind == "decimal":
        scale = kind.scale or 0
        return lambda a, b: rounded(plain(to_decimal(a), to_decimal(b)), scale)
    low, high = (0, UNSIGNED) if kind.unsigned else (-BIGINT, BIGINT)
    name = "BIGINT UNSIGNED" if kind.unsigned else "BIGINT"
    label = f"{name} value is out of range in '({written(left)} {sign} {written(right)})'"

    def bounded(a: Any, b: Any) -> Any:
        result = plain(to_number(a), to_number(b))
        if not low <= result < high:
            raise SqlError(label)
        return result

    return bounded


_EXACT: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: EXACT.multiply(a, b) if isinstance(a, Decimal) else a * b,
}


def _on_doubles(sign: str) -> Callable[[Any, Any], Any]:
    def compute(a: Any, b: Any) -> Any:
        x, y = to_double(a) or 0.0, to_double(b) or 0.0
        if sign in "/%" and y == 0:
            return None
        try:
            result = x + y if sign == "+" else x - y if sign == "-" else x * y if sign == "*" else None
            if result is None:
                result = x / y if sign == "/" else math.fmod(x, y)
        except OverflowError:
            result = math.inf
        if not math.isfinite(result):
            raise SqlError(f"DOUBLE value is out of range in '({x} {sign} {y})'")
        return result

    return compute


def _divide(a: Any, b: Any, scale: int) -> Decimal | None:
    divisor = to_decimal(b)
    if not divisor:
        return None
    return rounded(EXACT.divide(to_decimal(a) or Decimal(0), divisor), scale)


def _integer_division(a: Any, b: Any) -> int | None:
    x, y = to_decimal(a), to_decimal(b)
    if x is None or not y:
        return None
    return int(EXACT.divide(x, y).to_integral_value(ROUND_DOWN))


def _modulo(a: Any, b: Any) -> Any:
    x, y = to_number(a), to_number(b)
    if not y:
        return None
    if isinstance(x, int) and isinstance(y, int):
        return abs(x) % abs(y) * (1 if x >= 0 else -1)
    return EXACT.remainder(Decimal(x or 0), Decimal(y))


def bitwise(sign: str, left: Term, right: Term) -> Term:
    """left sign right, for | & ^ << >>, on 64 bits."""
    functions: dict[str, Callable[[int, int], int]] = {
        "|": lambda a, b: a | b,
        "&": lambda a, b: a & b,
        "^": lambda a, b: a ^ b,
        "<<": lambda a, b: a << b if b < 64 else 0,
        ">>": lambda a, b: a >> b if b < 64 else 0,
    }
    function, first, second = functions[sign], left.compute, right.compute

    def operation(row: Row) -> Any:
        a, b = to_integer(first(row)), to_integer(second(row))
        return None if a is None or b is None else function(a % UNSIGNED, b % UNSIGNED) % UNSIGNED

    return combine(operation, UNSIGNED_INT, sign, (left, right))


def negate(term: Term) -> Term:
    """-term."""
    kind = numeric_type(term.type)
    if kind.kind == "int" and term.constant and term.literal is None and (to_number(term.value) or 0) < 0:
        kind = SqlType(kind="decimal", scale=0)
    if kind.kind == "int":
        kind = INT
    compute = term.compute

    def negated(row: Row) -> Any:
        value = to_number(compute(row))
        return None if value is None else -value

    return combine(negated, kind, "neg", (term,))


def invert(term: Term) -> Term:
    """~term."""
    compute = term.compute

    def inverted(row: Row) -> Any:
        value = to_integer(compute(row))
        return None if value is None else ~value % UNSIGNED

    return combine(inverted, UNSIGNED_INT, "~", (term,))


def written(term: Term) -> str:
    """A term as an error writes it."""
    if term.label:
        return ".".join(f"`{part}`" for part in term.label.split("."))
    if term.literal is not None:
        return str(term.literal.value)
    if isinstance(term.key, tuple) and len(term.children) == 2:
        return f"({written(term.children[0])} {term.key[0]} {written(term.children[1])})"
    return "<expression>"
