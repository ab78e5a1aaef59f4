"""MySQL's values in Python, and how one kind is read where another is wanted.

An integer is an int, DECIMAL a Decimal, FLOAT and DOUBLE a float, a text a str, binary bytes, DATE a date,
DATETIME a datetime, TIME a timedelta, NULL None.
"""

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal
from typing import Any

import regex

from coevo_jax.envs.intercode_sql.mysql.schema import SqlType

EXACT = Context(prec=130)
NUMBER = regex.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
INTEGER = regex.compile(r"\s*([-+]?\d+)")
LONGEST_TEXT = 10_000
UNSIGNED = 2**64
BIGINT = 2**63


def to_number(value: Any) -> int | float | Decimal | None:
    """A value where a number is wanted: texts by what they start with, dates as 20200131."""
    if value is None or isinstance(value, int | float | Decimal):
        return value
    if isinstance(value, str):
        found = NUMBER.match(value)
        return _finite(float(found[0])) if found else 0.0
    if isinstance(value, bytes):
        return to_number(value.decode("utf-8", "replace"))
    return moment_number(value)


def _finite(number: float) -> float:
    return math.copysign(1.7976931348623157e308, number) if math.isinf(number) else number


def moment_number(value: Any) -> int | Decimal:
    """20200131, 20200131235959 or 235959, with the fraction of a second where there is one."""
    if isinstance(value, datetime):
        number: int | Decimal = int(value.strftime("%Y%m%d%H%M%S"))
        return number + Decimal(value.microsecond).scaleb(-6) if value.microsecond else number
    if isinstance(value, date):
        return value.year * 10000 + value.month * 100 + value.day
    seconds = int(abs(value).total_seconds())
    number = seconds // 3600 * 10000 + seconds // 60 % 60 * 100 + seconds % 60
    return number if value >= timedelta(0) else -number


def to_double(value: Any) -> float | None:
    """A value where a double is wanted."""
    number = to_number(value)
    return None if number is None else float(number)


def to_decimal(value: Any) -> Decimal | None:
    """A value where an exact number is wanted."""
    if value is None or isinstance(value, Decimal):
        return value
    if isinstance(value, str):
        found = NUMBER.match(value)
        return Decimal(found[0].strip()) if found else Decimal(0)
    number = to_number(value)
    return None if number is None else Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def to_integer(value: Any) -> int | None:
    """A value where an integer is wanted: doubles to even, decimals half up, texts cut."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value) if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value.to_integral_value(ROUND_HALF_UP))
    if isinstance(value, str):
        found = INTEGER.match(value)
        return max(-BIGINT, min(UNSIGNED - 1, int(found[1]))) if found else 0
    if isinstance(value, bytes):
        return to_integer(value.decode("utf-8", "replace"))
    return to_integer(moment_number(value))


def double_text(value: float) -> str:
    """A double as MySQL writes it: the shortest digits, an exponent beyond 15 places."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    point = len(digits) + int(exponent)
    if -15 < point <= 15:
        return f"{Decimal(repr(value)).normalize():f}"
    mantissa = "".join(map(str, digits))
    mantissa = mantissa[0] + ("." + mantissa[1:] if len(mantissa) > 1 else "")
    return f"{'-' if value < 0 else ''}{mantissa}e{point - 1}"


def to_text(value: Any) -> str | None:
    """A value as MySQL writes it into a text, where its type says nothing more."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S" + (".%f" if value.microsecond else "")).rjust(19, "0")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return time_text(value)
    return str(value)


def time_text(value: timedelta) -> str:
    """A TIME as -123:59:59."""
    seconds, micro = divmod(round(abs(value) / timedelta(microseconds=1)), 10**6)
    text = (
        f"{'-' if value < timedelta(0) else ''}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    )
    return text + (f".{micro:06}" if micro else "")


def float_value(value: float) -> float:
    """A FLOAT as it is printed: six digits."""
    return float(f"{value:.6g}")


def fixed_text(value: float, scale: int) -> str:
    """A number of a fixed number of digits after the point."""
    return f"{value:.{scale}f}"


def text_writer(kind: SqlType) -> Callable[[Any], str | None]:
    """How values of a type become texts."""
    if kind.kind in ("float", "double") and kind.scale is not None:
        scale = kind.scale
        return lambda value: None if value is None else fixed_text(value, scale)
    if kind.kind == "float":
        return lambda value: None if value is None else double_text(float_value(value))
    return to_text


def client_reader(kind: SqlType) -> Callable[[Any], Any] | None:
    """How values of a type reach the client; None where they do as they are."""
    if kind.kind == "decimal":
        scale = kind.scale or 0
        return lambda value: None if value is None else rounded(to_decimal(value), scale)
    if kind.kind in ("float", "double"):
        if kind.scale is not None:
            scale = kind.scale
            return lambda value: None if value is None else float(fixed_text(value, scale))
        return (
            (lambda value: None if value is None else float_value(value))
            if kind.kind == "float"
            else _client_double
        )
    return None


def _client_double(value: Any) -> Any:
    return float(value) if isinstance(value, int | Decimal) else value


def rounded(value: Decimal | None, digits: int) -> Decimal | None:
    """A decimal of so many digits after the point, halves away from zero."""
    if value is None:
        return None
    return value.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP, context=EXACT)


def round_double(value: float, digits: int) -> float:
    """ROUND of a double: halves to even, as the processor does."""
    if not math.isfinite(value) or digits > 300:
        return value
    power = 10.0 ** abs(digits)
    if digits >= 0:
        scaled = value * power
        return value if math.isinf(scaled) else float(round(scaled)) / power
    return float(round(value / power)) * power if not math.isinf(power) else 0.0


def round_exact(value: int | Decimal, digits: int) -> Decimal:
    """ROUND of an exact number."""
    return Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP, context=EXACT)


def cut_exact(value: int | Decimal, digits: int) -> Decimal:
    """TRUNCATE of an exact number."""
    return Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_DOWN, context=EXACT)


def truth(value: Any) -> bool | None:
    """A value as a condition."""
    if value is None:
        return None
    if isinstance(value, str | bytes):
        return bool(to_number(value))
    if isinstance(value, date | timedelta):
        return bool(moment_number(value))
    return bool(value)
