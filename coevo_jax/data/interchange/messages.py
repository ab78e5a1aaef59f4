"""The messages in data files: who speaks, what text, and whether it is to be learned from.

Names are tables: one more role, flag or refused key is one more entry. A key that nobody here knows is kept
with its message, unless it sounds as if it said what is learned: then the row is refused.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from coevo_jax.config.strict import nearest
from coevo_jax.data.interchange.records import Message, Speaker

SYSTEM_ROLES = ("system", "developer")
SPEAKERS = {
    "human": Speaker.HUMAN,
    "user": Speaker.HUMAN,
    "observation": Speaker.HUMAN,
    "environment": Speaker.HUMAN,
    "tool": Speaker.HUMAN,
    "tool_response": Speaker.HUMAN,  # ms-swift
    "ipython": Speaker.HUMAN,  # Llama 3: what a tool answered
    "function": Speaker.HUMAN,  # OpenAI: what a function answered
    "gpt": Speaker.GPT,
    "assistant": Speaker.GPT,
    "agent": Speaker.GPT,
    "model": Speaker.GPT,  # Gemini
    "bot": Speaker.GPT,
    "function_call": Speaker.GPT,  # LLaMA-Factory: what the agent wrote to call a tool
    "tool_call": Speaker.GPT,  # ms-swift
}
ROLE_KEYS = ("from", "role")
TEXT_KEYS = ("value", "content")
# What a true value of a flag says: that the message is learned from, or that it is not.
FLAGS = {
    "loss": True,  # AgentGym, ms-swift
    "loss_mask": True,
    "step_loss_mask": True,
    "loss_weight": True,  # LLaMA-Factory
    "loss_scale": True,  # ms-swift
    "weight": True,  # OpenAI
    "train": True,  # Axolotl
    "training": True,
    "trainable": True,
    "mask": False,  # a masked message is left out of the loss
}
# What an agent said beside the text; harmless only where the text holds it, too.
SAID_BESIDE = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "refusal")
NO_TEXT = {
    "tool_calls": "calls of tools",
    "function_call": "a call of a function",
    "audio": "sound",
    "images": "pictures",
    "image": "a picture",
    "videos": "videos",
    "audios": "sound",
    "prefix": "a text to be continued",
}
TELLING = re.compile(r"loss|train|mask|weight|learn|supervis|reason|think|tool_?call|image|audio|video", re.I)
HARMLESS = ("name", "id", "tool_call_id", "timestamp", "annotations")
EMPTY = (None, "", [], {})
PLAIN = 2  # keys of a message that has a role and a text only


def read_messages(value: Any, key: str, default: Speaker | None = None) -> tuple[str, tuple[Message, ...]]:
    """System prompt ("" if none) and messages; a plain string is one message by `default`.

    A single message, an object with the key `messages`, and either of them as JSON in a string are read, too.

    Raises:
      ValueError: the value is none of these; the message says what was found and what was expected.
    """
    value = _unwrapped(value)
    if isinstance(value, str) and default is not None:
        return "", (Message(speaker=default, text=checked_text(value, key)),)
    if not isinstance(value, list):
        raise ValueError(f"{key}: found {show(value)}, expected a list of messages")
    system, messages = "", []
    for place, item in enumerate(value):
        if type(item) is not dict:
            raise ValueError(
                f"{key}[{place}]: found {show(item)}, expected an object with 'from' and 'value'"
            )
        if len(item) == PLAIN:  # nearly all messages, at a fraction of the cost
            keys = ("role", "content") if "role" in item else ("from", "value")
            role, text = item.get(keys[0]), item.get(keys[1])
            if type(text) is str and type(role) is str:
                if not text.isascii():
                    checked_text(text, f"{key}[{place}].{keys[1]}")
                if role in SPEAKERS:
                    messages.append(Message(speaker=SPEAKERS[role], text=text))
                    continue
                if role == SYSTEM_ROLES[0] and not place:
                    system = text
                    continue
        role, text, learned, extra = _read_item(item, f"{key}[{place}]")
        if role in SYSTEM_ROLES:
            if place:
                raise ValueError(f"{key}[{place}]: found a {role} message, expected it first")
            system = text
        else:
            speaker = SPEAKERS[role]
            messages.append(
                Message(
                    speaker=speaker,
                    text=text,
                    skipped=learned is False and speaker is Speaker.GPT,
                    extra=extra,
                )
            )
    return system, tuple(messages)


def _read_item(item: Mapping[str, Any], where: str) -> tuple[str, str, bool | None, dict[str, Any] | None]:
    """Role, text, flag (None if there is none) and other keys of a message."""
    role = _role(item, where)
    text, learned = _text_of(item, where)
    by, extra = "the parts of the content" if learned is not None else "", {}
    for name, value in item.items():
        if name in FLAGS:
            flag = flag_of(name, value, where)
            if flag is not None and learned is not None and flag != learned:
                raise ValueError(f"{where}.{name}: found {show(value)}, which contradicts {by}")
            if flag is not None:
                learned, by = flag, name
        elif name not in ROLE_KEYS and name not in TEXT_KEYS and value not in EMPTY:
            _require_harmless(name, value, text, where)
            extra[name] = value
    if learned and SPEAKERS.get(role) is not Speaker.GPT:
        raise ValueError(f"{where}.{by}: found true on a message the agent did not write")
    return role, text, learned, extra or None


def _role(item: Mapping[str, Any], where: str) -> str:
    role = text_of(_either(item, ROLE_KEYS, where), f"{where}.{_given(item, ROLE_KEYS)}")
    if role not in SPEAKERS and role not in SYSTEM_ROLES:
        plain = role.strip().lower()
        if plain not in SPEAKERS and plain not in SYSTEM_ROLES:
            raise ValueError(
                f"{where}: found the speaker {role!r}{nearest(role, [*SYSTEM_ROLES, *SPEAKERS])}"
            )
        role = plain
    return role


def _text_of(item: Mapping[str, Any], where: str) -> tuple[str, bool | None]:
    """A message's text, and the flag that its parts agree on, if they have any."""
    for name, what in NO_TEXT.items():
        if item.get(name):
            raise ValueError(
                f"{where}.{name}: found {what} beside the text, which would be lost; "
                "expected everything the agent said or saw as text"
            )
    value, name = _either(item, TEXT_KEYS, where), _given(item, TEXT_KEYS)
    if not isinstance(value, list):
        return text_of(value, f"{where}.{name}"), None
    texts, flags = [], set()
    for place, part in enumerate(value):
        at = f"{where}.{name}[{place}]"
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in ("text", "input_text", "output_text"):
            raise ValueError(f"{at}: found a part of type {kind!r}, expected text")
        if isinstance(part, dict):
            flags.add(next((flag_of(key, part[key], at) for key in FLAGS if part.get(key) is not None), None))
            part = _either(part, ("text", *TEXT_KEYS), at)
        texts.append(text_of(part, at))
    if len(flags) > 1:
        raise ValueError(f"{where}.{name}: found flags that differ from part to part, expected one a message")
    return "".join(texts), next(iter(flags), None)


def flag_of(name: str, value: Any, where: str) -> bool | None:
    """Whether a flag says that its message is learned from; null says nothing."""
    if value is None:
        return None
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise ValueError(f"{where}.{name}: found {show(value)}, expected true, false or null, or 1 or 0")
    return bool(value) is FLAGS[name]


def _require_harmless(name: str, value: Any, text: str, where: str) -> None:
    """Refuse a key that says something about what is learned and is not understood."""
    if name in SAID_BESIDE:
        if isinstance(value, str) and value.strip() in text:
            return
        raise ValueError(
            f"{where}.{name}: found {show(value)} beside a text that does not hold it; expected everything "
            "that is to be learned in the text"
        )
    if name in HARMLESS:
        return
    close = difflib.get_close_matches(name.lower(), FLAGS, n=1, cutoff=0.8)
    if close or TELLING.search(name):
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"{where}.{name}: found {show(value)}, a key that seems to say what is learned{hint}; expected "
            f"one of {', '.join(FLAGS)}"
        )


def _unwrapped(value: Any) -> Any:
    """The messages in a single message, in an object with the key `messages`, or in JSON text."""
    if isinstance(value, str):
        found = _json_in(value)
        return value if found is None else _unwrapped(found)
    if isinstance(value, dict):
        if _given(value, ROLE_KEYS):
            return [value]
        if isinstance(value.get("messages"), list | str):
            return _unwrapped(value["messages"])
    return value


def _json_in(text: str) -> Any:
    """Messages that stand as JSON in a string; None for any other text, such as an answer that is JSON."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = [found] if isinstance(found, dict) else found
    is_messages = all(isinstance(item, dict) and _given(item, ROLE_KEYS) for item in items)
    return found if items and is_messages else None


def _given(item: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of the names under which something stands, else the first that is there, else ""."""
    there = [name for name in names if name in item]
    return next((name for name in there if item[name] is not None), there[0] if there else "")


def _either(item: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    given = [name for name in names if item.get(name) is not None]
    if len(given) > 1 and item[given[0]] != item[given[1]]:
        raise ValueError(f"{where}: found both {given[0]!r} and {given[1]!r}, which differ")
    if not given and not any(name in item for name in names):
        raise ValueError(f"{where}: {no_key(names, item)}")
    return item[given[0]] if given else None


def no_key(wanted: tuple[str, ...], row: Mapping[str, Any]) -> str:
    """The message for a row in which a key is missing."""
    close = [name for name in row if nearest(name, wanted).startswith(" (did")]
    hint = f" (did you mean '{wanted[0]}' by '{close[0]}'?)" if close else ""
    found = ", ".join(list(row)[:8]) or "none"
    return f"no key '{' or '.join(wanted)}'; found the keys {found}{hint}"


def text_of(value: Any, where: str) -> str:
    """A string that is text.

    Raises:
      ValueError: the value is anything else.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where}: found {show(value)}, expected a string")
    return checked_text(value, where)


def checked_text(value: str, where: str) -> str:
    """The text itself, unless it has no form in UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: holds half of a surrogate pair, which is no text") from None
    return value


def agents(messages: tuple[Message, ...]) -> Iterator[Message]:
    """The messages that the agent wrote."""
    return (message for message in messages if message.speaker is Speaker.GPT)


def show(value: Any) -> str:
    """A value with its type, as an error message names it."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list", dict: "object"}
    text = "null" if value is None else repr(value)
    return (
        f"{text if len(text) <= 60 else text[:57] + '...'} ({names.get(type(value), type(value).__name__)})"
    )
