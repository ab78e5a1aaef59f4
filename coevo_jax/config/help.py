"""What `--help` says: every option with its type, default and meaning, read off the schema."""

import types
import typing
from collections.abc import Mapping
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coevo_jax.config.options import Config
from coevo_jax.config.strict import field_model
from coevo_jax.config.yaml_text import write_yaml

HELP_COLUMN = 36  # longer entries overflow their column instead of widening it for all


def describe(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """List (dotted key, type, default, doc) of every option of a record, depth first, in declared order."""
    rows = []
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        record = field_model(model, name)
        named = _record_of_names(field.annotation)
        if named is not None:
            rows.extend(describe(named, f"{key}.NAME"))
        elif record is None or not isinstance(field.annotation, type):
            rows.append(
                (key, _type_name(field), _default(field), " ".join((field.description or "").split()))
            )
        if record is not None:
            rows.extend(describe(record, key))
    return rows


def _record_of_names(annotation: Any) -> type[BaseModel] | None:
    """The record that a mapping has under every name, such as an agent's; None where it has none."""
    values = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is dict else ()
    return next((one for one in values if isinstance(one, type) and issubclass(one, BaseModel)), None)


def help_text(extra: Mapping[str, type[BaseModel]]) -> str:
    """Every option with type, default and meaning, aligned; `extra` maps an environment to its options."""
    sections = [("options", describe(Config))]
    sections += [
        (f"env.options of {name}", describe(schema, "env.options")) for name, schema in sorted(extra.items())
    ]
    widths = [
        max(len(row[column]) for _, rows in sections for row in rows if len(row[column]) <= HELP_COLUMN)
        for column in range(3)
    ]
    lines: list[str] = []
    for title, rows in sections:
        lines += ["", f"{title}:"]
        for key, type_name, default, doc in rows:
            lines.append(
                f"  {key:<{widths[0]}}  {type_name:<{widths[1]}}  {default:<{widths[2]}}  {doc}".rstrip()
            )
    return "\n".join(lines[1:])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    value = list(value) if isinstance(value, tuple) else value
    return write_yaml(value, inline=True).strip()


_TYPE_NAMES = {int: "integer", float: "number", str: "string", bool: "true|false", types.NoneType: "null"}


def _type_name(field: FieldInfo) -> str:
    bounds = []
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=bound):
                bounds.append(f">={bound}")
            case annotated_types.Gt(gt=bound):
                bounds.append(f">{bound}")
            case annotated_types.Le(le=bound):
                bounds.append(f"<={bound}")
            case annotated_types.Lt(lt=bound):
                bounds.append(f"<{bound}")
    return " ".join([_annotation_name(field.annotation), *bounds])


def _annotation_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_annotation_name, arguments))
    if origin is typing.Annotated:
        return _annotation_name(arguments[0])
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin in (tuple, list):
        return f"list of {_annotation_name(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return _TYPE_NAMES.get(annotation, str(annotation))
