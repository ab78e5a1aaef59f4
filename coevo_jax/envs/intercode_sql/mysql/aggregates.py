"""MySQL's aggregates that SQLite lacks or has otherwise."""

import math
import sqlite3
from collections.abc import Callable
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.collation import collation_key
from coevo_jax.envs.intercode_sql.mysql.functions import PREFIX, number_of, text_of

GROUP_CONCAT_MAX_LEN = 1024
"""Length at which MySQL cuts GROUP_CONCAT unless told otherwise."""


class _GroupConcat:
    """GROUP_CONCAT(distinct, separator, directions, value, keys ...); a direction is "a" or "d"."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, tuple]] = []
        self._separator, self._directions, self._distinct = ",", "", False

    def step(self, distinct: int, separator: str, directions: str, value: Any, *keys: Any) -> None:
        self._separator, self._directions, self._distinct = str(separator), directions, bool(distinct)
        if value is not None:
            self._rows.append((text_of(value), keys))

    def finalize(self) -> str | None:
        if not self._rows:
            return None
        rows = self._rows
        for place in reversed(range(len(self._directions))):
            rows = sorted(
                rows, key=lambda row: _sort_key(row[1][place]), reverse=self._directions[place] == "d"
            )
        texts = [text for text, _ in rows]
        if self._distinct:
            texts = list({collation_key(text): text for text in reversed(texts)}.values())[::-1]
        return self._separator.join(texts)[:GROUP_CONCAT_MAX_LEN]


def _sort_key(value: Any) -> tuple:
    """NULL first, then numbers, then texts by the collation."""
    if value is None:
        return (0, 0, "")
    return (1, value, "") if isinstance(value, int | float) else (2, 0, collation_key(text_of(value)))


class _Extreme:
    """MIN or MAX: the first of the smallest, or of the greatest, values."""

    sign = 1

    def __init__(self) -> None:
        self._best: Any = None

    def step(self, value: Any) -> None:
        if value is None:
            return
        if self._best is None or (
            _sort_key(value) > _sort_key(self._best)
            if self.sign > 0
            else _sort_key(value) < _sort_key(self._best)
        ):
            self._best = value

    def finalize(self) -> Any:
        return self._best


class _Least(_Extreme):
    sign = -1


def _spread(finish: Callable[[float, int], float | None]) -> type:
    class Spread:
        def __init__(self) -> None:
            self._count, self._mean, self._squares = 0, 0.0, 0.0

        def step(self, value: Any) -> None:
            number = number_of(value)
            if number is not None:
                self._count += 1
                delta = number - self._mean
                self._mean += delta / self._count
                self._squares += delta * (number - self._mean)

        def finalize(self) -> float | None:
            return finish(self._squares, self._count)

    return Spread


def _population(squares: float, count: int) -> float | None:
    return squares / count if count else None


def _sample(squares: float, count: int) -> float | None:
    return squares / (count - 1) if count > 1 else None


def _root(of: Callable[[float, int], float | None]) -> Callable[[float, int], float | None]:
    def root(squares: float, count: int) -> float | None:
        variance = of(squares, count)
        return None if variance is None else math.sqrt(variance)

    return root


SPREADS = {
    **dict.fromkeys(("VARIANCE", "VAR_POP"), _population),
    "VAR_SAMP": _sample,
    **dict.fromkeys(("STD", "STDDEV", "STDDEV_POP"), _root(_population)),
    "STDDEV_SAMP": _root(_sample),
}


def add_aggregates(connection: sqlite3.Connection) -> None:
    """Make the aggregates known to a connection, under PREFIX and their names."""
    connection.create_aggregate(f"{PREFIX}GROUP_CONCAT", -1, _GroupConcat)  # pyright: ignore[reportArgumentType]
    connection.create_aggregate(f"{PREFIX}MAX_ALONE", 1, _Extreme)  # pyright: ignore[reportArgumentType]
    connection.create_aggregate(f"{PREFIX}MIN_ALONE", 1, _Least)  # pyright: ignore[reportArgumentType]
    for name, finish in SPREADS.items():
        connection.create_aggregate(f"{PREFIX}{name}", 1, _spread(finish))  # pyright: ignore[reportArgumentType]
