"""Text of what a hub's environment shows: a field or a template of a record, and only what is new of it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.envs.env import EnvFault

OWN = ("done", "reward", "metadata")  # fields of every observation, which are no part of what is shown
PATH = re.compile(r"\{([\w.-]+)\}")
CUT = "..."  # what stands at the end of a text that was cut


def check_shown(shown: str | None, schema: Mapping[str, Any]) -> None:
    """Check that the fields which a path or template begins with are ones that a schema has.

    Raises:
      ConfigError: the first that it has not.
    """
    properties = schema.get("properties")
    if shown is None or not isinstance(properties, dict) or schema.get("additionalProperties") is not False:
        return
    for path in PATH.findall(shown) if "{" in shown else [shown]:
        name = path.split(".")[0]
        if name not in properties:
            raise ConfigError(
                f"env.options.observation: the server's observation has no field {name!r}"
                f"{nearest(name, [*properties])}"
            )


def text_of(observation: Any, shown: str | None) -> str:
    """The text of an observation.

    Raises:
      EnvFault: it lacks a field that is to be shown.
    """
    if isinstance(observation, str):
        return observation
    if shown is None:
        return _everything(observation)
    if "{" in shown:
        return PATH.sub(lambda found: _words(_at(observation, found[1])), shown)
    return _words(_at(observation, shown))


def new_of(text: str, before: str) -> str:
    """What of a text is new behind one that was shown before; all of it where it does not repeat that one."""
    rest = text[len(before) :].strip("\n") if before and text.startswith(before) else ""
    return rest or text


def cut(text: str, chars: int) -> str:
    """The beginning of a text of at most so many characters."""
    return text if len(text) <= chars else text[: chars - len(CUT)] + CUT


def _everything(observation: Any) -> str:
    """All fields that say something: the only one as it stands, several as `name: value` lines."""
    if not isinstance(observation, dict):
        return _words(observation)
    told = {
        name: value
        for name, value in observation.items()
        if name not in OWN and value is not None and value not in ("", [], {})
    }
    if len(told) == 1:
        return _words(next(iter(told.values())))
    return "\n".join(f"{name}: {_words(value)}" for name, value in told.items())


def _at(observation: Any, path: str) -> Any:
    value = observation
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise EnvFault(f"the observation has no {path!r}: found {_words(observation):.100}") from None
    return value


def _words(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
