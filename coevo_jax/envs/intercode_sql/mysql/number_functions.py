"""MySQL's functions of numbers whose result has one type; forms.py has those that follow their argument."""

import math
from collections.abc import Callable, Mapping

from coevo_jax.envs.intercode_sql.mysql.natives import Native, native
from coevo_jax.envs.intercode_sql.mysql.schema import DOUBLE, INT, SqlType
from coevo_jax.envs.intercode_sql.mysql.values import UNSIGNED


def _power(base: float, exponent: float) -> float | None:
    result = base**exponent
    return None if isinstance(result, complex) else result


def _log(first: float, second: float | None = None) -> float | None:
    if first <= 0 or (second is not None and second <= 0):
        return None
    if second is None:
        return math.log(first)
    return None if first == 1 else math.log(second) / math.log(first)


def _logarithm(function: Callable[[float], float]) -> Native:
    return native("f", lambda value: function(value) if value > 0 else None, DOUBLE)


def _real(function: Callable[[float], float]) -> Native:
    return native("f", function, DOUBLE)


FUNCTIONS: Mapping[str, Native] = {
    **dict.fromkeys(("pow", "power"), native("ff", _power, DOUBLE)),
    "sqrt": native("f", lambda value: math.sqrt(value) if value >= 0 else None, DOUBLE),
    "exp": _real(math.exp),
    "ln": _logarithm(math.log),
    "log": native("ff?", _log, DOUBLE),
    "log2": _logarithm(math.log2),
    "log10": _logarithm(math.log10),
    "sin": _real(math.sin),
    "cos": _real(math.cos),
    "tan": _real(math.tan),
    "cot": native("f", lambda value: 1 / math.tan(value), DOUBLE),
    "asin": native("f", lambda value: math.asin(value) if abs(value) <= 1 else None, DOUBLE),
    "acos": native("f", lambda value: math.acos(value) if abs(value) <= 1 else None, DOUBLE),
    **dict.fromkeys(
        ("atan", "atan2"),
        native("ff?", lambda y, x=None: math.atan(y) if x is None else math.atan2(y, x), DOUBLE),
    ),
    "radians": _real(lambda value: value * (math.pi / 180)),
    "degrees": _real(lambda value: value * (180 / math.pi)),
    "pi": native("", lambda: math.pi, SqlType(kind="double", scale=6)),
    "sign": native("n", lambda value: (value > 0) - (value < 0), INT),
    "bit_count": native("i", lambda value: (value % UNSIGNED).bit_count(), INT),
}
"""By name."""
