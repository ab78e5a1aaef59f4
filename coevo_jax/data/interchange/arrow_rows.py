"""Rows of Arrow tables as JSON has them: what a column's type says, and nothing that a reader guesses.

Dates and times become text in ISO's form. Text that a column declares to be JSON (so `datasets` stores values
of several types) is read, and nulls that fill up an object are left out.
"""

import datetime
import decimal
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from coevo_jax.data.interchange.messages import show

EXTRA = "extra_json"  # column of all keys beyond a row's or a message's own, as JSON text
JSON_TYPE = "arrow.json"


def arrow_rows(tables: Iterable[Any]) -> Iterator[tuple[Any, str | None]]:
    """Yield every row of record batches or tables of one schema: (row, None), or (None, what is wrong)."""
    decode: Callable[[Any], Any] | None = None
    for number, table in enumerate(tables):
        if number == 0:
            decode = _decoder(pa.struct(list(table.schema)))
        for row in table.to_pylist():
            try:
                yield _unpacked(row if decode is None else decode(row)), None
            except ValueError as error:
                yield None, str(error)


def _decoder(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """What reads the values of a type in which JSON text stands; None where none does."""
    if isinstance(kind, pa.BaseExtensionType):
        return json.loads if kind.extension_name == JSON_TYPE else None
    if pa.types.is_struct(kind):
        parts = {field.name: _decoder(field.type) for field in kind}
        parts = {name: part for name, part in parts.items() if part is not None}
        if not parts:
            return None
        return lambda value: (
            value | {name: part(value[name]) for name, part in parts.items() if value[name] is not None}
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _decoder(kind.value_type)
        if inner is not None:
            return lambda value: [item if item is None else inner(item) for item in value]
    return None


def _unpacked(row: dict[str, Any]) -> dict[str, Any]:
    value = {key: _json_value(entry, key) for key, entry in row.items() if not _is_missing(entry)}
    if EXTRA in value:
        value = _extra(value.pop(EXTRA)) | value
    return value


def _extra(text: Any) -> dict[str, Any]:
    try:
        extra = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{EXTRA}: {error}") from None
    if not isinstance(extra, dict):
        raise ValueError(f"{EXTRA}: found {type(extra).__name__}, expected an object as JSON text")
    return extra


def _is_missing(entry: Any) -> bool:
    """Null, or the number that pandas puts in its place."""
    return entry is None or (isinstance(entry, float) and math.isnan(entry))


def _json_value(entry: Any, key: str) -> Any:
    """An Arrow value as JSON has it: objects without the keys that only others of the set have.

    Dates and times become text.

    Raises:
      ValueError: the value has no form in JSON.
    """
    if isinstance(entry, str | bool | int) or entry is None:
        return entry
    if isinstance(entry, list):
        return [_json_value(item, key) for item in entry]
    if isinstance(entry, dict):
        value = {name: _json_value(item, key) for name, item in entry.items() if not _is_missing(item)}
        return _extra(value.pop(EXTRA)) | value if EXTRA in value else value
    if isinstance(entry, float):
        if math.isfinite(entry):
            return entry
        raise ValueError(f"{key}: found {entry}, which is no JSON number")
    if isinstance(entry, datetime.date | datetime.time):
        return entry.isoformat()
    if isinstance(entry, decimal.Decimal) and entry == entry.to_integral_value():
        return int(entry)
    raise ValueError(f"{key}: found {show(entry)}, expected text, a number, a list or an object")
