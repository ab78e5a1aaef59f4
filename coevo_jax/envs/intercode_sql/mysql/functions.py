"""MySQL's functions for texts, numbers and conditions, as SQLite calls them.

Every one returns None for arguments it can do nothing with, as MySQL does, and NULL in gives NULL out but for
those in NULL_AWARE. No result is longer than LONGEST_TEXT.
"""

import math
import sqlite3
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import regex

from coevo_jax.envs.intercode_sql.mysql import dates
from coevo_jax.envs.intercode_sql.mysql.collation import collation_key

LONGEST_TEXT = 10_000
PREFIX = "mysql_"
"""Stands before the names in SQLite, where left, right and if are keywords and others mean something else."""

Function = Callable[..., Any]


def number_of(value: Any) -> int | float | None:
    """A value as MySQL reads it where it wants a number: a text by what it starts with, else 0."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    found = regex.match(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", value)
    return float(found[0]) if found else 0.0


def integer_of(value: Any) -> int | None:
    """A value as MySQL reads it where it wants an integer: rounded, half away from zero."""
    number = number_of(value)
    if number is None or (isinstance(number, float) and not math.isfinite(number)):
        return None
    return number if isinstance(number, int) else math.floor(abs(number) + 0.5) * (1 if number >= 0 else -1)


def text_of(value: Any) -> str:
    """A value as MySQL writes it into a text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def round_half_up(value: float, digits: int) -> float | None:
    """A number rounded half away from zero by the digits it prints, as MySQL rounds decimals."""
    try:
        return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))
    except InvalidOperation:
        return value


def _concat(*values: Any) -> str:
    return "".join(map(text_of, values))


def _concat_ws(separator: Any, *values: Any) -> str | None:
    if separator is None:
        return None
    return text_of(separator).join(text_of(value) for value in values if value is not None)


def _left(text: Any, count: Any) -> str:
    return text_of(text)[: max(0, integer_of(count) or 0)]


def _right(text: Any, count: Any) -> str:
    wanted = max(0, integer_of(count) or 0)
    return text_of(text)[-wanted:] if wanted else ""


def _substring(text: Any, start: Any, length: Any = LONGEST_TEXT) -> str:
    whole, place, wanted = text_of(text), integer_of(start) or 0, integer_of(length) or 0
    if place == 0 or abs(place) > len(whole) or wanted <= 0:
        return ""
    begin = place - 1 if place > 0 else len(whole) + place
    return whole[begin : begin + wanted]


def _substring_index(text: Any, mark: Any, count: Any) -> str:
    whole, separator, wanted = text_of(text), text_of(mark), integer_of(count) or 0
    if not separator or not wanted:
        return ""
    parts = whole.split(separator)
    return separator.join(parts[:wanted] if wanted > 0 else parts[wanted:])


def _locate(part: Any, text: Any, start: Any = 1) -> int:
    place = integer_of(start) or 0
    if place < 1:
        return 0
    return collation_key(text_of(text)).find(collation_key(text_of(part)), place - 1) + 1


def _trim(text: Any, chars: Any = " ", position: Any = "BOTH") -> str:
    whole, part = text_of(text), text_of(chars)
    while part and position in ("BOTH", "LEADING") and whole.startswith(part):
        whole = whole.removeprefix(part)
    while part and position in ("BOTH", "TRAILING") and whole.endswith(part):
        whole = whole.removesuffix(part)
    return whole


def _pad(text: Any, length: Any, fill: Any, at_left: bool) -> str | None:
    whole, part, wanted = text_of(text), text_of(fill), integer_of(length) or 0
    if wanted < 0 or wanted > LONGEST_TEXT or (not part and wanted > len(whole)):
        return None
    if wanted <= len(whole):
        return whole[:wanted]
    missing = wanted - len(whole)
    padding = (part * (missing // len(part) + 1))[:missing]
    return padding + whole if at_left else whole + padding


def _repeat(text: Any, count: Any) -> str | None:
    whole, times = text_of(text), max(0, integer_of(count) or 0)
    return whole * times if len(whole) * times <= LONGEST_TEXT else None


def _replace(text: Any, old: Any, new: Any) -> str | None:
    whole, part, other = text_of(text), text_of(old), text_of(new)
    if not part or len(whole) * max(1, len(other)) > LONGEST_TEXT**2:
        return whole
    return whole.replace(part, other)


def _insert(text: Any, start: Any, length: Any, new: Any) -> str:
    whole, place, count = text_of(text), integer_of(start) or 0, integer_of(length) or 0
    if place < 1 or place > len(whole):
        return whole
    end = len(whole) if count < 0 else place - 1 + count
    return whole[: place - 1] + text_of(new) + whole[end:]


def _round(value: Any, digits: Any = 0) -> float | None:
    number, places = number_of(value), integer_of(digits) or 0
    return (
        None
        if number is None or not math.isfinite(number)
        else round_half_up(number, max(-30, min(30, places)))
    )


def _truncate(value: Any, digits: Any) -> float | None:
    number, places = number_of(value), max(-30, min(30, integer_of(digits) or 0))
    if number is None or not math.isfinite(number):
        return None
    scaled = Decimal(repr(number)).scaleb(places)
    return float(Decimal(int(scaled)).scaleb(-places))


def _mod(left: Any, right: Any) -> int | float | None:
    a, b = number_of(left), number_of(right)
    if a is None or not b:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return (abs(a) % abs(b)) * (1 if a >= 0 else -1)
    return math.fmod(a, b)


def _format(value: Any, digits: Any) -> str | None:
    number, places = number_of(value), max(0, min(30, integer_of(digits) or 0))
    if number is None or not math.isfinite(number):
        return None
    return f"{Decimal(repr(number)).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP):,f}"


def _real(function: Callable[[float], float]) -> Function:
    def real(value: Any) -> float | None:
        number = number_of(value)
        return None if number is None else function(float(number))

    return real


def _power(base: Any, exponent: Any) -> float | None:
    result = float(number_of(base) or 0) ** float(number_of(exponent) or 0)
    return None if isinstance(result, complex) else result


def _log(first: Any, second: Any = None) -> float | None:
    if second is None:
        return math.log(number_of(first) or 0)
    return math.log(number_of(second) or 0) / math.log(number_of(first) or 0)


def _extreme(pick: Callable) -> Function:
    def extreme(*values: Any) -> Any:
        if all(isinstance(value, int | float) for value in values):
            return pick(values)
        return pick(values, key=lambda value: collation_key(text_of(value)))

    return extreme


def _field(wanted: Any, *values: Any) -> int:
    keys = [None if value is None else collation_key(text_of(value)) for value in values]
    key = None if wanted is None else collation_key(text_of(wanted))
    return keys.index(key) + 1 if key is not None and key in keys else 0


def _find_in_set(wanted: Any, items: Any) -> int:
    return _field(wanted, *text_of(items).split(","))


def _elt(place: Any, *values: Any) -> Any:
    number = integer_of(place)
    return values[number - 1] if number is not None and 1 <= number <= len(values) else None


def _strcmp(left: Any, right: Any) -> int:
    a, b = collation_key(text_of(left)), collation_key(text_of(right))
    return (a > b) - (a < b)


def _if(condition: Any, yes: Any, no: Any) -> Any:
    return yes if number_of(condition) else no


def _coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _nullif(left: Any, right: Any) -> Any:
    if left is None or right is None:
        return left
    same = collation_key(text_of(left)) == collation_key(text_of(right))
    return None if same else left


def _tuple_key(*values: Any) -> str:
    """One value that is equal where all of `values` are, for COUNT(DISTINCT a, b)."""
    return repr([collation_key(text_of(value)) for value in values])


def _xor(left: Any, right: Any) -> int:
    return int(bool(number_of(left)) != bool(number_of(right)))


def _bitxor(left: Any, right: Any) -> int:
    return (integer_of(left) or 0) ^ (integer_of(right) or 0)


NULL_IN_NULL_OUT: Mapping[str, Function] = {
    "CONCAT": _concat,
    **dict.fromkeys(("UPPER", "UCASE"), lambda text: text_of(text).upper()),
    **dict.fromkeys(("LOWER", "LCASE"), lambda text: text_of(text).lower()),
    **dict.fromkeys(("CHAR_LENGTH", "CHARACTER_LENGTH"), lambda text: len(text_of(text))),
    **dict.fromkeys(("LENGTH", "OCTET_LENGTH"), lambda text: len(text_of(text).encode())),
    **dict.fromkeys(("SUBSTRING", "SUBSTR", "MID"), _substring),
    "SUBSTRING_INDEX": _substring_index,
    "LEFT": _left,
    "RIGHT": _right,
    **dict.fromkeys(("LOCATE", "POSITION"), _locate),
    "INSTR": lambda text, part: _locate(part, text),
    "TRIM": _trim,
    "LTRIM": lambda text: text_of(text).lstrip(" "),
    "RTRIM": lambda text: text_of(text).rstrip(" "),
    "LPAD": lambda text, length, fill: _pad(text, length, fill, True),
    "RPAD": lambda text, length, fill: _pad(text, length, fill, False),
    "REPEAT": _repeat,
    "SPACE": lambda count: _repeat(" ", count),
    "REPLACE": _replace,
    "REVERSE": lambda text: text_of(text)[::-1],
    "INSERT": _insert,
    "ASCII": lambda text: (text_of(text).encode() or b"\0")[0],
    "HEX": lambda value: f"{value:X}" if isinstance(value, int) else text_of(value).encode().hex().upper(),
    "FORMAT": _format,
    "STRCMP": _strcmp,
    "FIND_IN_SET": _find_in_set,
    "TEXT": text_of,
    "NUMBER": number_of,
    "SIGNED": integer_of,
    "DOUBLE": lambda value: float(number_of(value) or 0),
    "ROUND": _round,
    "TRUNCATE": _truncate,
    "FLOOR": lambda value: math.floor(number_of(value) or 0),
    **dict.fromkeys(("CEIL", "CEILING"), lambda value: math.ceil(number_of(value) or 0)),
    "ABS": lambda value: abs(number_of(value) or 0),
    "SIGN": lambda value: (lambda number: (number > 0) - (number < 0))(number_of(value) or 0),
    "MOD": _mod,
    **dict.fromkeys(("POW", "POWER"), _power),
    "SQRT": _real(math.sqrt),
    "EXP": _real(math.exp),
    "LN": _real(math.log),
    "LOG": _log,
    "LOG2": _real(math.log2),
    "LOG10": _real(math.log10),
    "SIN": _real(math.sin),
    "COS": _real(math.cos),
    "TAN": _real(math.tan),
    "RADIANS": _real(math.radians),
    "DEGREES": _real(math.degrees),
    "PI": lambda: math.pi,
    "GREATEST": _extreme(max),
    "LEAST": _extreme(min),
    "XOR": _xor,
    "BITXOR": _bitxor,
    "TUPLE_KEY": _tuple_key,
    **dates.FUNCTIONS,
}
"""By MySQL's names; TEXT, NUMBER, SIGNED, DOUBLE, XOR, BITXOR and TUPLE_KEY are what operators turn into."""

NULL_AWARE: Mapping[str, Function] = {
    "CONCAT_WS": _concat_ws,
    "IF": _if,
    **dict.fromkeys(("IFNULL", "COALESCE"), _coalesce),
    "NULLIF": _nullif,
    "ISNULL": lambda value: int(value is None),
    "FIELD": _field,
    "ELT": _elt,
    "ANY_VALUE": lambda value: value,
}

FUNCTIONS: Mapping[str, Function] = {**NULL_IN_NULL_OUT, **NULL_AWARE}


def _guarded(function: Function, null_aware: bool) -> Function:
    def guarded(*values: Any) -> Any:
        if not null_aware and None in values:
            return None
        try:
            result = function(*values)
        except (ValueError, ArithmeticError, LookupError):
            return None
        return result if not isinstance(result, str) or len(result) <= LONGEST_TEXT else result[:LONGEST_TEXT]

    return guarded


def add_functions(connection: sqlite3.Connection) -> None:
    """Make MySQL's functions known to a connection, under PREFIX and their names."""
    for name, function in FUNCTIONS.items():
        guarded = _guarded(function, name in NULL_AWARE)
        connection.create_function(f"{PREFIX}{name}", -1, guarded, deterministic=True)
