"""MySQL's aggregates: over the rows of a group, one value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors
from coevo_jax.envs.intercode_sql.mysql.arithmetic import DIVISION_DIGITS, MOST_DIGITS
from coevo_jax.envs.intercode_sql.mysql.comparisons import side_reader
from coevo_jax.envs.intercode_sql.mysql.forms import text_compute
from coevo_jax.envs.intercode_sql.mysql.nodes import Call
from coevo_jax.envs.intercode_sql.mysql.schema import DOUBLE, INT, TEXT, UNSIGNED_INT, SqlType
from coevo_jax.envs.intercode_sql.mysql.sorting import sorted_rows
from coevo_jax.envs.intercode_sql.mysql.terms import Compute, Row, Term
from coevo_jax.envs.intercode_sql.mysql.text_functions import json_of, write_json
from coevo_jax.envs.intercode_sql.mysql.values import (
    EXACT,
    UNSIGNED,
    rounded,
    to_decimal,
    to_double,
    to_integer,
    to_text,
)

GROUP_CONCAT_MAX_LEN = 1024
"""Length at which MySQL cuts GROUP_CONCAT unless told otherwise."""


@dataclass(slots=True, eq=False)
class Aggregate:
    """An aggregate of one query. `over` gives its value for the rows of a group."""

    name: str
    type: SqlType
    over: Callable[[Sequence[Row]], Any]
    distinct: bool
    separator: str | None
    order: list[tuple[Term, bool]]
    key: Any = None

    @property
    def sorts(self) -> bool:
        """Whether the groups come sorted, for MySQL gathers this one from sorted rows only."""
        return (self.distinct and self.name not in ("min", "max")) or self.name in (
            "group_concat",
            "json_arrayagg",
            "json_objectagg",
        )


def aggregate(node: Call, terms: list[Term], order: list[tuple[Term, bool]]) -> Aggregate:
    """The aggregate of a call."""
    name = node.name
    if node.star:
        return Aggregate(name, INT, len, False, None, [])
    if name not in ("count", "group_concat", "json_objectagg") and len(terms) != 1:
        raise errors.wrong_arguments(node.written)
    if name == "count":
        over, kind = _count(terms, node.distinct), INT
    elif name in ("min", "max"):
        over, kind = _extreme(terms[0], name == "max"), terms[0].type
    elif name in ("sum", "avg"):
        over, kind = _total(terms[0], node.distinct, name == "avg")
    elif name == "group_concat":
        over, kind = _group_concat(terms, order, node.separator, node.distinct), TEXT
    elif name.startswith("bit_"):
        over, kind = _bits(terms[0], name), UNSIGNED_INT
    elif name.startswith("json_"):
        over, kind = _json(terms, name), TEXT
    else:
        over, kind = _spread(terms[0], name), DOUBLE
    return Aggregate(name, kind, over, node.distinct, node.separator, order)


def _values(term: Term, distinct: bool) -> Callable[[Sequence[Row]], list[Any]]:
    """The values of a term that are not NULL."""
    compute = term.compute
    if not distinct:
        return lambda rows: [value for row in rows if (value := compute(row)) is not None]
    read = side_reader(term.type)

    def different(rows: Sequence[Row]) -> list[Any]:
        found: dict[Any, Any] = {}
        for row in rows:
            value = compute(row)
            if value is not None:
                found.setdefault(read(value) if read else value, value)
        return list(found.values())

    return different


def _count(terms: list[Term], distinct: bool) -> Callable[[Sequence[Row]], int]:
    if len(terms) == 1:
        if terms[0].constant and not distinct:
            return len if terms[0].value is not None else lambda rows: 0
        values = _values(terms[0], distinct)
        return lambda rows: len(values(rows))
    pairs = [(term.compute, side_reader(term.type)) for term in terms]

    def count(rows: Sequence[Row]) -> int:
        keys = set()
        for row in rows:
            found = [compute(row) for compute, _ in pairs]
            if None not in found:
                keys.add(tuple(read(v) if read else v for v, (_, read) in zip(found, pairs, strict=True)))
        return len(keys)

    return count


def _extreme(term: Term, greatest: bool) -> Callable[[Sequence[Row]], Any]:
    values, read = _values(term, False), side_reader(term.type)

    def extreme(rows: Sequence[Row]) -> Any:
        found = values(rows)
        if not found:
            return None
        if read is None:
            return max(found) if greatest else min(found)
        return max(found, key=read) if greatest else min(found, key=read)

    return extreme


def _total(term: Term, distinct: bool, average: bool) -> tuple[Callable[[Sequence[Row]], Any], SqlType]:
    values, kind = _values(term, distinct), term.type
    more = DIVISION_DIGITS if average else 0
    if kind.kind in ("int", "decimal", "date", "datetime", "time", "null"):
        scale = min(MOST_DIGITS, (kind.scale or 0) + more)

        def exact(rows: Sequence[Row]) -> Decimal | None:
            found = values(rows)
            if not found:
                return None
            total = sum(map(_exact, found), Decimal(0)) if kind.kind != "int" else Decimal(sum(found))
            return rounded(EXACT.divide(total, Decimal(len(found))) if average else total, scale)

        return exact, SqlType(kind="decimal", scale=scale)
    scale = None if kind.scale is None else kind.scale + more

    def real(rows: Sequence[Row]) -> float | None:
        found = values(rows)
        if not found:
            return None
        total = 0.0
        for value in found:
            total += to_double(value) or 0.0
        return total / len(found) if average else total

    return real, SqlType(kind="double", scale=scale)


def _exact(value: Any) -> Decimal:
    return to_decimal(value) or Decimal(0)


def _group_concat(
    terms: list[Term], order: list[tuple[Term, bool]], separator: str | None, distinct: bool
) -> Callable[[Sequence[Row]], Any]:
    computes, mark = [text_compute(term) for term in terms], "," if separator is None else separator

    def joined(rows: Sequence[Row]) -> str | None:
        texts: list[str] = []
        seen = set()
        for row in sorted_rows(list(rows), order) if order else rows:
            parts = [compute(row) for compute in computes]
            if None in parts:
                continue
            text = "".join(parts)
            if distinct:
                key = side_reader(TEXT)(text)  # pyright: ignore[reportOptionalCall]
                if key in seen:
                    continue
                seen.add(key)
            texts.append(text)
        return mark.join(texts)[:GROUP_CONCAT_MAX_LEN] if texts else None

    return joined


def _bits(term: Term, name: str) -> Callable[[Sequence[Row]], int]:
    compute = term.compute

    def bits(rows: Sequence[Row]) -> int:
        total = UNSIGNED - 1 if name == "bit_and" else 0
        for row in rows:
            value = to_integer(compute(row))
            if value is not None:
                value %= UNSIGNED
                total = (
                    total & value
                    if name == "bit_and"
                    else total | value
                    if name == "bit_or"
                    else total ^ value
                )
        return total

    return bits


def _json(terms: list[Term], name: str) -> Callable[[Sequence[Row]], Any]:
    computes = [term.compute for term in terms]

    def gathered(rows: Sequence[Row]) -> str | None:
        if not rows:
            return None
        if name == "json_arrayagg":
            return write_json([json_of(computes[0](row)) for row in rows])
        pairs = {to_text(computes[0](row)) or "": json_of(computes[1](row)) for row in rows}
        return write_json(dict(sorted(pairs.items(), key=lambda pair: (len(pair[0]), pair[0]))))

    return gathered


def _spread(term: Term, name: str) -> Callable[[Sequence[Row]], float | None]:
    values = _values(term, False)
    sample, root = name.endswith("_samp"), name.startswith("std")

    def spread(rows: Sequence[Row]) -> float | None:
        count, mean, squares = 0, 0.0, 0.0
        for value in values(rows):
            number = to_double(value) or 0.0
            count += 1
            delta = number - mean
            mean += delta / count
            squares += delta * (number - mean)
        divisor = count - 1 if sample else count
        if divisor <= 0:
            return None
        return math.sqrt(squares / divisor) if root else squares / divisor

    return spread


def grouped_key(terms: Sequence[Term]) -> Callable[[Row], Any]:
    """What is equal for rows of one group."""
    pairs: list[tuple[Compute, Callable[[Any], Any] | None]] = [
        (t.compute, side_reader(t.type)) for t in terms
    ]
    if len(pairs) == 1:
        compute, read = pairs[0]
        if read is None:
            return compute
        return lambda row: None if (value := compute(row)) is None else read(value)

    def key(row: Row) -> tuple:
        return tuple(
            value if value is None or read is None else read(value)
            for value, read in ((compute(row), read) for compute, read in pairs)
        )

    return key
