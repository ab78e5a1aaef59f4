"""Strict records at the boundary, and the one place that turns validation errors into clear words."""

import difflib
import json
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(Exception):
    """What the user gave cannot be used. The message says where, what was found and what was expected."""


class StrictModel(BaseModel):
    """A frozen record that refuses unknown keys and wrong types. Attribute docstrings are the user's help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


M = TypeVar("M", bound=BaseModel)


def validate(
    model: type[M],
    data: Any,
    source: str,
    prefix: str = "",
    source_of: Callable[[str], str] | None = None,
) -> M:
    """Build a record from plain data (mappings, lists, scalars), as JSON would be: lists become tuples.

    `source` is the file or option the data came from; `prefix` is the dotted key under which the data stands
    there. `source_of` may name another source for a dotted key.

    Raises:
      ConfigError: with a line for every problem.
    """
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}: {_key((), prefix) or 'top level'}: found {_show(data)}, expected a mapping of keys"
        )
    try:
        return model.model_validate_json(json.dumps(data))
    except TypeError as error:
        raise ConfigError(f"{source}: {prefix or 'top level'}: not plain YAML data ({error})") from None
    except ValidationError as error:
        lines = []
        for problem in _without_branches(error.errors(include_url=False), data):
            key = _key(problem["loc"], prefix)
            lines.append(f"{source_of(key) if source_of else source}: {key}: {_explain(model, problem)}")
        raise ConfigError("\n".join(lines)) from None


def _without_branches(problems: Sequence[Any], data: Any) -> list[Any]:
    """One problem per place where a value may be of several types: pydantic lists one for each of them."""
    merged: dict[tuple, list[Any]] = {}
    inner = [problem["loc"][:-1] for problem in problems]
    for problem in problems:
        where = problem["loc"]
        if problem["type"] == "too_short" and any(loc[: len(where)] == where for loc in inner):
            continue  # pydantic counts the items that are right
        keys = tuple(part for part in problem["loc"] if not str(part).startswith("="))
        place, inside = _place(problem | {"loc": keys}, data)
        merged.setdefault(place, []).append(problem | {"loc": (*place, *inside)})
    found = []
    for group in merged.values():
        deepest = max(len(problem["loc"]) for problem in group)
        group = [problem for problem in group if len(problem["loc"]) == deepest]
        telling = [problem for problem in group if not problem["type"].endswith("_type")] or group
        found.append(telling[0] | {"alternatives": telling[1:]})
    return found


def _place(problem: Any, data: Any) -> tuple[tuple, tuple]:
    """Where a problem stands up to the first value of several types, and further inside that value."""
    location = problem["loc"]
    for depth, part in enumerate(location):
        known = isinstance(data, dict) and part in data
        known |= isinstance(data, list) and isinstance(part, int) and part < len(data)
        if known:
            data = data[part]
        elif problem["type"] != "missing":  # the name of a type, which no data has as a key
            return location[:depth], location[depth + 1 :]
    return location, ()


def nearest(name: str, valid: Sequence[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest valid name, else the list of valid names."""
    return closest(name, valid) or (f" (valid: {', '.join(valid)})" if valid else "")


def closest(name: str, valid: Sequence[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest valid name, or nothing where none is close."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def field_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the record type of a field that may be null; None for a scalar, list or free mapping."""
    field = model.model_fields.get(name)
    return None if field is None else _record(field.annotation)


def inside(schema: Any, part: str | int) -> Any:
    """The type of what stands under a key, or at a place, of a type; None where that is not known."""
    for one in _alternatives(schema):
        if isinstance(one, type) and issubclass(one, BaseModel) and part in one.model_fields:
            return one.model_fields[str(part)].annotation
    for one in _alternatives(schema):
        if typing.get_origin(one) in (dict, tuple, list):
            return [own for own in typing.get_args(one) if own is not ...][-1]
    return None


def keys_of(schema: Any) -> list[str] | None:
    """The keys that a type's mappings have; [] for any keys, None where it is no mapping."""
    record = _record(schema)
    if record is not None:
        return list(record.model_fields)
    is_dict = schema is Any or any(typing.get_origin(one) is dict for one in _alternatives(schema))
    return [] if is_dict else None


def _alternatives(schema: Any) -> tuple[Any, ...]:
    if typing.get_origin(schema) is typing.Annotated:
        return _alternatives(typing.get_args(schema)[0])
    if typing.get_origin(schema) in (typing.Union, types.UnionType):
        return tuple(one for own in typing.get_args(schema) for one in _alternatives(own))
    return (schema,)


def _record(annotation: Any) -> type[BaseModel] | None:
    types_of = [one for one in _alternatives(annotation) if isinstance(one, type)]
    records = [one for one in types_of if issubclass(one, BaseModel)]
    return records[0] if len(records) == 1 else None


def _key(location: Sequence[str | int], prefix: str) -> str:
    key = prefix
    for part in location:
        key = f"{key}[{part}]" if isinstance(part, int) else f"{key}.{part}" if key else part
    return key


def _show(value: Any) -> str:
    """Render a value and its YAML type."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list", dict: "mapping"}
    text = json.dumps(value, ensure_ascii=False, default=repr)
    text = re.sub(r"(://[^:/@\s\"]*):[^/\s\"]*@", r"\1:***@", text)  # the password of a URL
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} ({names.get(type(value), type(value).__name__)})"


_EXPECTED = {
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "tuple_type": "a list",
    "list_type": "a list",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string (quote it if it looks like a number)",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}


def _explain(model: type[BaseModel], problem: Any) -> str:
    kind, location = problem["type"], problem["loc"]
    container: Any = model
    for part in location[:-1]:
        container = inside(container, part)
    names = keys_of(container) or []
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(location[-1]), names)}"
    if kind == "missing":
        return "missing, and it has no default"
    found = f"found {_show(problem['input'])}"
    if kind == "literal_error":
        allowed = problem["ctx"]["expected"]
        close = difflib.get_close_matches(str(problem["input"]), re.findall(r"'([^']*)'", allowed), n=1)
        return f"{found}, expected {allowed}" + (f" (did you mean '{close[0]}'?)" if close else "")
    several = (problem, *problem.get("alternatives", ()))
    return f"{found}, expected {' or '.join(dict.fromkeys(map(_expected, several)))}"


def _expected(problem: Any) -> str:
    kind = problem["type"]
    if kind == "kind":
        return problem["msg"]
    if kind == "string_pattern_mismatch":
        return f"a string that matches {problem['ctx']['pattern']}"
    if kind == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    expected = _EXPECTED.get(kind) or re.sub(r"^Input should be ", "", problem["msg"])
    return re.sub(r"^(greater|less|a multiple)", r"a value \1", expected)
