"""What an OpenEnv server tells by HTTP: the schema of its records, and its tasks where it lists some.

Every answer is bounded in bytes and in time, and checked; what cannot be used is the user's `ConfigError`.
"""

import http.client
import json
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from coevo_jax.config.strict import ConfigError

TYPES = {"train": "train", "validation": "dev", "test": "test"}  # of the server's splits, ours
MOST_TASKS = 1_000_000
NO_ROUTE = (404, 405, 501)  # of a server without tasks


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split of tasks as the server has it."""

    name: str
    split: str  # one of ours
    count: int


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a server told."""

    action: dict[str, Any]  # JSON schema of an action
    observation: dict[str, Any]  # JSON schema of an observation; {} where it has none
    splits: tuple[Split, ...]  # none where a task is a seed


@lru_cache(maxsize=16)
def ask_server(url: str, timeout: float, most: int) -> Server:
    """What the server at a URL tells of itself; asked once per process.

    Raises:
      ConfigError: nobody answers there, or what answers is no OpenEnv server.
    """
    root = url.rstrip("/")
    status, schema = _ask(root, "GET", "/schema", None, timeout, most)
    action = schema.get("action") if isinstance(schema, dict) else None
    if status != 200 or not isinstance(schema, dict) or not isinstance(action, dict):
        raise ConfigError(
            f"env.options.url: {url}: GET /schema answered {status} {_shown(schema)}; expected a server of "
            'OpenEnv 0.10, which answers with {"action": …, "observation": …}'
        )
    observation = schema.get("observation")
    return Server(
        action=action,
        observation=observation if isinstance(observation, dict) else {},
        splits=_splits(root, timeout, most),
    )


def _splits(root: str, timeout: float, most: int) -> tuple[Split, ...]:
    status, names = _ask(root, "GET", "/list_environments", None, timeout, most)
    if status != 200 or not isinstance(names, list) or not names or not isinstance(names[0], str):
        return ()
    status, splits = _ask(root, "GET", f"/{names[0]}/splits", None, timeout, most)
    if status in NO_ROUTE:
        return ()
    found = []
    for one in splits if status == 200 and isinstance(splits, list) else [splits]:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or one.get("type") not in TYPES:
            raise _not_understood(root, "splits", one)
        status, count = _ask(root, "POST", f"/{names[0]}/num_tasks", {"split": one["name"]}, timeout, most)
        number = count.get("num_tasks") if isinstance(count, dict) else None
        if status in NO_ROUTE:
            return ()
        if type(number) is not int or not 0 <= number <= MOST_TASKS:
            raise _not_understood(root, "num_tasks", count)
        found.append(Split(name=one["name"], split=TYPES[one["type"]], count=number))
    return tuple(found)


def _not_understood(root: str, what: str, found: Any) -> ConfigError:
    return ConfigError(
        f"env.options.url: {root}: {what}: found {_shown(found)}, expected splits as OpenEnv 0.10 lists them "
        f"(name, type of {', '.join(TYPES)}) and up to {MOST_TASKS:,} tasks each"
    )


def _ask(
    root: str, method: str, path: str, body: Any, timeout: float, most: int
) -> tuple[int, dict[str, Any] | list[Any] | str]:
    """Status and content of an answer: JSON, or text where it is none."""
    parts = urlsplit(root)
    address = parts.netloc.rpartition("@")[2]
    if parts.scheme == "wss":
        connection = http.client.HTTPSConnection(
            address, timeout=timeout, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(address, timeout=timeout)
    text = None if body is None else json.dumps(body)
    try:
        connection.request(method, parts.path + path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read(most + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigError(
            f"env.options.url: {root}: no server answers {method} {path} ({type(error).__name__}: {error}); "
            "expected one of OpenEnv 0.10, such as: uvicorn server.app:app --port 8000"
        ) from None
    finally:
        connection.close()
    if len(content) > most:
        raise ConfigError(
            f"env.options.url: {root}: {method} {path}: found an answer of more than {most} bytes, expected "
            "at most env.options.answer_bytes"
        )
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, content.decode(errors="replace")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
