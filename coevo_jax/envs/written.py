"""An agent's text as the record that an environment takes as an action, by the record's JSON schema."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo_jax.config.strict import ConfigError, nearest

OWN = ("metadata",)  # fields of every action, which say nothing of what is done
LONGEST_INTEGER = 18  # digits
TRIED_INTEGERS = 10  # 0 to 9, where the schema has no bounds


class NotAnAction(Exception):
    """The text is no action of this environment; the message says what was expected."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options of an environment say of its actions."""

    action: str  # "auto", or a key of FORMS
    action_field: str | None = None
    choices: Sequence[str] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    examples: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ActionForm:
    """How actions are written, read and tried."""

    kind: str
    words: str  # for the agent: how an action is written
    read: Callable[[str], dict[str, Any]]  # raises NotAnAction
    tries: Callable[[np.random.Generator], str]  # an action that could be meant


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    schema: Mapping[str, Any]

    @property
    def kinds(self) -> set[str]:
        found = self.schema.get("type")
        return set(found) if isinstance(found, list) else {str(found)}

    @property
    def values(self) -> list[Any]:
        """The values that the schema lists; none where it lists none."""
        listed = self.schema.get("enum")
        return list(listed) if isinstance(listed, list) else []


def action_form(schema: Mapping[str, Any], options: Asked) -> ActionForm:
    """The form of the actions that a server's schema and the options ask for.

    Raises:
      ConfigError: the schema fits no kind of action, or not the one that the options name.
    """
    fields = _fields(schema)
    for name in [*options.fixed, *([options.action_field] if options.action_field else [])]:
        if name not in fields and schema.get("additionalProperties") is False:
            raise ConfigError(
                f"env.options: the environment's action has no field {name!r}{nearest(name, [*fields])}"
            )
    kind = _kind(schema, fields, options) if options.action == "auto" else options.action
    return FORMS[kind](fields, options)


def _kind(schema: Mapping[str, Any], fields: Mapping[str, _Field], options: Asked) -> str:
    if {"tool_name", "arguments"} <= set(fields):
        return "tool"
    free = [field for name, field in fields.items() if name not in options.fixed]
    required = [field for field in free if field.name in schema.get("required", ())]
    one = fields.get(options.action_field or "") or next(
        (own[0] for own in (required, free) if len(own) == 1), None
    )
    if one is None and free:
        return "record"
    if one is not None:
        if options.choices or one.values:
            return "choice"
        if one.kinds & {"string"}:
            return "text"
        if one.kinds & {"integer"}:
            return "integer"
        return "record"
    raise _fits_nothing("no kind of action", fields, schema)


def _fits_nothing(what: str, fields: Mapping[str, _Field], schema: Mapping[str, Any]) -> ConfigError:
    have = ", ".join(f"{field.name} ({', '.join(sorted(field.kinds))})" for field in fields.values())
    found = have or json.dumps(schema)[:100]
    return ConfigError(
        f"env.options.action: {what} fits the environment's schema: its fields are {found}; expected a text, "
        "an integer or a choice in one field (action_field, fixed), a record, or a tool's name and arguments"
    )


def _fields(schema: Mapping[str, Any]) -> dict[str, _Field]:
    """The fields of an action by name, references and nullable types resolved."""
    properties = schema.get("properties")
    found = {}
    for name, own in properties.items() if isinstance(properties, dict) else ():
        if name not in OWN and isinstance(own, dict):
            found[name] = _Field(name=name, schema=_resolved(own, schema))
    return found


def _resolved(own: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(8):  # a schema may refer to itself
        reference = own.get("$ref")
        if isinstance(reference, str):
            target: Any = schema.get("$defs", {})
            own = target.get(reference.rpartition("/")[2], {}) if isinstance(target, dict) else {}
            continue
        either = own.get("anyOf", ())
        branches = [one for one in either if isinstance(one, dict) and one.get("type") != "null"]
        if len(branches) == 1 and "type" not in own:
            own = branches[0]
            continue
        break
    return {**own, "enum": [own["const"]]} if "const" in own and "enum" not in own else own


def _target(fields: Mapping[str, _Field], options: Asked, kinds: set[str]) -> _Field:
    """The field that an action goes into.

    Raises:
      ConfigError: it is not named and not the only one of its type.
    """
    free = [field for name, field in fields.items() if name not in options.fixed]
    if options.action_field is not None:
        free = [field for field in free if field.name == options.action_field]
    fitting = [field for field in free if field.kinds & kinds or field.values]
    if len(fitting) != 1:
        raise _fits_nothing(f"{options.action}, {' or '.join(sorted(kinds))} in one field,", fields, {})
    return fitting[0]


def _text(fields: Mapping[str, _Field], options: Asked) -> ActionForm:
    name = _target(fields, options, {"string"}).name
    return ActionForm(
        kind="text",
        words=f"Write one action a turn, as in\nAction: {_example(options, 'your text')}",
        read=lambda text: {**options.fixed, name: text},
        tries=_drawn(options.examples or ("look", "help", "1")),
    )


def _integer(fields: Mapping[str, _Field], options: Asked) -> ActionForm:
    field = _target(fields, options, {"integer"})
    low, high = (field.schema.get(key) for key in ("minimum", "maximum"))
    low = low if isinstance(low, int) else 0
    high = high if isinstance(high, int) and high >= low else low + TRIED_INTEGERS - 1

    def read(text: str) -> dict[str, Any]:
        digits = text.strip().removeprefix("-").removeprefix("+")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_INTEGER):
            raise NotAnAction("expected an integer")
        return {**options.fixed, field.name: int(text)}

    return ActionForm(
        kind="integer",
        words=f"Give one integer a turn, as in\nAction: {low}",
        read=read,
        tries=lambda rng: str(rng.integers(low, high + 1)),
    )


def _choice(fields: Mapping[str, _Field], options: Asked) -> ActionForm:
    field = _target(fields, options, {"string", "integer"})
    if not options.choices and not field.values:
        raise _fits_nothing("choice without choices", fields, {})
    values: Sequence[Any] = field.values
    if options.choices:
        values = range(len(options.choices)) if "integer" in field.kinds else options.choices
    named = dict(zip(options.choices or map(str, values), values, strict=True))
    by_words = {name.casefold(): value for name, value in named.items()}
    listed = ", ".join(named)

    def read(text: str) -> dict[str, Any]:
        key = text.strip().casefold()
        if key not in by_words:
            raise NotAnAction(f"expected one of {listed}")
        return {**options.fixed, field.name: by_words[key]}

    return ActionForm(
        kind="choice",
        words=f"Choose one action a turn of: {listed}; as in\nAction: {next(iter(named))}",
        read=read,
        tries=_drawn(tuple(named)),
    )


def _record(fields: Mapping[str, _Field], options: Asked) -> ActionForm:
    names = [name for name in fields if name not in options.fixed]

    def read(text: str) -> dict[str, Any]:
        return {**_json_object(text, f"a JSON object with the fields {', '.join(names)}"), **options.fixed}

    shown = _example(options, json.dumps(dict.fromkeys(names, "…"), ensure_ascii=False))
    return ActionForm(
        kind="record",
        words=f"Write one JSON object a turn, as in\nAction: {shown}",
        read=read,
        tries=_drawn(options.examples or ("{}",)),
    )


def _tool(fields: Mapping[str, _Field], options: Asked) -> ActionForm:
    missing = {"tool_name", "arguments"} - set(fields)
    if fields and missing:
        raise _fits_nothing("tool", fields, {})
    expected = 'a tool\'s name and its arguments as a JSON object, as in search {"query": "tea"}'

    def read(text: str) -> dict[str, Any]:
        name, _, arguments = text.strip().partition(" ")
        if not name or "{" in name:
            raise NotAnAction(f"expected {expected}")
        given = _json_object(arguments, expected) if arguments.strip() else {}
        return {"type": "call_tool", **options.fixed, "tool_name": name, "arguments": given}

    return ActionForm(
        kind="tool",
        words=f"Call one tool a turn, as in\nAction: {_example(options, 'name {}')}",
        read=read,
        tries=_drawn(options.examples or ("help {}",)),
    )


def _json_object(text: str, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise NotAnAction(f"expected {expected}") from None
    if not isinstance(found, dict):
        raise NotAnAction(f"expected {expected}")
    return found


def _example(options: Asked, otherwise: str) -> str:
    return options.examples[0] if options.examples else otherwise


def _drawn(texts: Sequence[str]) -> Callable[[np.random.Generator], str]:
    return lambda rng: texts[int(rng.integers(len(texts)))]


FORMS: dict[str, Callable[[Mapping[str, _Field], Asked], ActionForm]] = {
    "text": _text,
    "integer": _integer,
    "choice": _choice,
    "record": _record,
    "tool": _tool,
}
