"""Sorts rows as MySQL's filesort does: NULL first, texts by the collation, ties as they came."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from coevo_jax.envs.intercode_sql.mysql.comparisons import side_reader
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Term

R = TypeVar("R")


def sort_key(compute: Compute, read: Callable[[Any], Any] | None) -> Callable[[Any], tuple]:
    """What a row sorts by: NULL before everything."""

    def key(row: Any) -> tuple:
        value = compute(row)
        return (0,) if value is None else (1, value if read is None else read(value))

    return key


def sorted_rows(rows: list[R], keys: Sequence[tuple[Term, bool]]) -> list[R]:
    """Rows in the order of the keys, each with whether it descends."""
    for term, descending in reversed(keys):
        if not term.constant:
            rows.sort(key=sort_key(term.compute, side_reader(term.type)), reverse=descending)
    return rows
