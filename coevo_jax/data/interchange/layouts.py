"""What a row looks like in each format, both ways: plain JSON objects and the records they stand for.

eto-sft     {id, conversations: [{from: human | gpt, value}]}, instruction and "OK" first
agenttraj   {item_id, conversations: [{from, loss, value}]}, the same with a loss flag per message
messages    {id, messages: [{role: system | user | assistant, content}]}, as most hub sets have it
eto-pairs   {id, prompt, chosen, rejected}, three lists of messages

Reading takes either naming of speakers, an id under several names, and keeps other keys.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coevo_jax.data.interchange.records import (
    ACKNOWLEDGEMENT,
    Conversation,
    Message,
    Speaker,
    TextPair,
    fold_instruction,
    unfold_instruction,
)
from coevo_jax.strict import nearest

SYSTEM = "system"
SPEAKERS = {
    "human": Speaker.HUMAN,
    "user": Speaker.HUMAN,
    "observation": Speaker.HUMAN,
    "environment": Speaker.HUMAN,
    "tool": Speaker.HUMAN,
    "function": Speaker.HUMAN,
    "gpt": Speaker.GPT,
    "assistant": Speaker.GPT,
    "agent": Speaker.GPT,
}
ID_KEYS = ("id", "item_id", "task_id", "game_file")
SYSTEM_KEYS = ("system_prompt", "system")
MESSAGE_KEYS = ("conversations", "messages")
PAIR_KEYS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One format of rows. `parse` raises ValueError that says what was found and what was expected."""

    kind: type[Conversation] | type[TextPair]
    parse: Callable[[Any, int], Conversation | TextPair]  # row and its index
    write: Callable[[Any], dict[str, Any]]


def parse_conversation(row: Any, index: int) -> Conversation:
    """A conversation from any of the three layouts; `index` is the id of a row that has none."""
    row = _mapping(row)
    key = next((name for name in MESSAGE_KEYS if name in row), None)
    if key is None:
        raise ValueError(_no_key(MESSAGE_KEYS, row))
    system, messages = _messages(row[key], key)
    _require_answer(messages, key, learned=True)
    id_key, row_id = _id(row, index)
    system_prompt, acknowledgement, messages = _system(row, system, messages)
    used = {*MESSAGE_KEYS, id_key, "reward", *SYSTEM_KEYS, "acknowledgement"}
    return Conversation(
        id=row_id,
        messages=messages,
        system_prompt=system_prompt,
        acknowledgement=acknowledgement,
        reward=_reward(row.get("reward")),
        extra=_other_keys(row, used),
    )


def parse_pair(row: Any, index: int) -> TextPair:
    """A preference pair: messages, or plain strings, for prompt, chosen and rejected."""
    row = _mapping(row)
    missing = [name for name in PAIR_KEYS if name not in row]
    if missing:
        raise ValueError(_no_key(missing[:1], row))
    system, prompt = _messages(row["prompt"], "prompt", default=Speaker.HUMAN)
    sides = []
    for name in ("chosen", "rejected"):
        late, side = _messages(row[name], name, default=Speaker.GPT)
        if late:
            raise ValueError(f"{name}[0]: found a system message, expected it in the prompt")
        if side[: len(prompt)] == prompt and len(side) > len(prompt) and prompt:
            side = side[len(prompt) :]  # both sides repeat the prompt, as some hub sets have it
        _require_answer(side, name, learned=name == "chosen")
        sides.append(side)
    if sides[0] == sides[1]:
        raise ValueError("chosen and rejected are the same")
    id_key, row_id = _id(row, index)
    system_prompt, acknowledgement, prompt = _system(row, system, prompt)
    used = {*PAIR_KEYS, id_key, *SYSTEM_KEYS, "acknowledgement"}
    return TextPair(
        id=row_id,
        prompt=prompt,
        chosen=sides[0],
        rejected=sides[1],
        system_prompt=system_prompt,
        acknowledgement=acknowledgement,
        extra=_other_keys(row, used),
    )


def write_eto(conversation: Conversation) -> dict[str, Any]:
    """A row of ETO's SFT files. A message that is not to be learned from has `loss: false` there, too."""
    head, messages = _written(conversation, conversation.messages)
    nod = bool(conversation.system_prompt) and not head
    listed = _from_value(messages, nod=nod)
    return _with_rest({"id": conversation.id, "conversations": listed, **head}, conversation)


def write_agenttraj(conversation: Conversation) -> dict[str, Any]:
    """A row as AgentGym's sets have it: null for what was heard, true or false for what the agent said."""
    head, messages = _written(conversation, conversation.messages)
    flagged = [
        {
            "from": message.speaker.value,
            "loss": not message.skipped if message.speaker is Speaker.GPT else None,
            "value": message.text,
        }
        for message in messages
    ]
    return _with_rest({"conversations": flagged, "item_id": conversation.id, **head}, conversation)


def write_messages(conversation: Conversation) -> dict[str, Any]:
    """A row with the roles of chat templates. An acknowledgement other than "OK" stays as a key."""
    roles = {Speaker.HUMAN: "user", Speaker.GPT: "assistant"}
    messages: list[dict[str, Any]] = []
    head: dict[str, Any] = {}
    if conversation.system_prompt:
        messages.append({"role": SYSTEM, "content": conversation.system_prompt})
        if conversation.acknowledgement != ACKNOWLEDGEMENT:
            head["acknowledgement"] = conversation.acknowledgement
    elif fold_instruction(conversation.messages)[0]:
        head["system_prompt"] = ""  # not an instruction, although it looks like one
    for message in conversation.messages:
        flag = {"loss": False} if message.skipped else {}
        messages.append({"role": roles[message.speaker], "content": message.text, **flag})
    return _with_rest({"id": conversation.id, "messages": messages, **head}, conversation)


def write_pair(pair: TextPair) -> dict[str, Any]:
    """A row of ETO's preference files; instruction and "OK" stand in the prompt."""
    head, prompt = _written(pair, pair.prompt)
    row = {
        "id": pair.id,
        "prompt": _from_value(prompt, nod=bool(pair.system_prompt) and not head),
        "chosen": _from_value(pair.chosen),
        "rejected": _from_value(pair.rejected),
        **head,
    }
    return row | {key: value for key, value in pair.extra.items() if key not in row}


LAYOUTS: dict[str, Layout] = {
    "eto-sft": Layout(kind=Conversation, parse=parse_conversation, write=write_eto),
    "agenttraj": Layout(kind=Conversation, parse=parse_conversation, write=write_agenttraj),
    "messages": Layout(kind=Conversation, parse=parse_conversation, write=write_messages),
    "eto-pairs": Layout(kind=TextPair, parse=parse_pair, write=write_pair),
}


def guess_layout(row: Any) -> str | None:
    """The layout a row is in, by its keys; None where it is in none."""
    if not isinstance(row, dict):
        return None
    if set(PAIR_KEYS) <= row.keys():
        return "eto-pairs"
    if "messages" in row:
        return "messages"
    if "conversations" not in row:
        return None
    listed = row["conversations"] if isinstance(row["conversations"], list) else []
    flagged = any(isinstance(message, dict) and "loss" in message for message in listed)
    return "agenttraj" if flagged or "item_id" in row else "eto-sft"


def _mapping(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"found {_show(row)}, expected an object with keys")
    return row


def _no_key(wanted: Iterable[str], row: Mapping[str, Any]) -> str:
    wanted = list(wanted)
    close = [name for name in row if nearest(name, wanted).startswith(" (did")]
    hint = f" (did you mean '{wanted[0]}' by '{close[0]}'?)" if close else ""
    found = ", ".join(list(row)[:8]) or "none"
    return f"no key '{' or '.join(wanted)}'; found the keys {found}{hint}"


def _id(row: Mapping[str, Any], index: int) -> tuple[str, str]:
    for key in ID_KEYS:
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{key}: found {_show(value)}, expected a string or an integer")
        return key, _text(str(value), key)
    return ID_KEYS[0], str(index)


def _reward(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"reward: found {_show(value)}, expected a number in [0, 1]")
    return float(value)


def _system(
    row: Mapping[str, Any], system: str, messages: tuple[Message, ...]
) -> tuple[str, str, tuple[Message, ...]]:
    """System prompt and acknowledgement: a key of the row, a system message, or ETO's first two messages."""
    nod = row.get("acknowledgement")
    acknowledgement = ACKNOWLEDGEMENT if nod is None else _string(nod, "acknowledgement")
    decided = bool(system)
    for key in SYSTEM_KEYS:
        if row.get(key) is not None:
            given = _string(row[key], key)
            if given and system:
                raise ValueError(f"{key}: found one beside a system message, expected only one of them")
            system, decided = given or system, True
    if not decided:
        return fold_instruction(messages)
    return system, acknowledgement if system else ACKNOWLEDGEMENT, messages


def _other_keys(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """What a row has beyond its format; an id that is null says nothing."""
    return {
        key: value for key, value in row.items() if key not in used and not (key in ID_KEYS and value is None)
    }


def _messages(value: Any, key: str, default: Speaker | None = None) -> tuple[str, tuple[Message, ...]]:
    """System prompt ("" if none) and messages; a plain string is one message by `default`."""
    if isinstance(value, str) and default is not None:
        return "", (Message(speaker=default, text=_text(value, key)),)
    if not isinstance(value, list):
        raise ValueError(f"{key}: found {_show(value)}, expected a list of messages")
    system, messages = "", []
    for place, item in enumerate(value):
        where = f"{key}[{place}]"
        if not isinstance(item, dict):
            raise ValueError(f"{where}: found {_show(item)}, expected an object with 'from' and 'value'")
        role = _either(item, ("from", "role"), where)
        text = _text(_either(item, ("value", "content"), where), where)
        if role == SYSTEM and place == 0:
            system = text
        elif role == SYSTEM:
            raise ValueError(f"{where}: found a system message, expected it first")
        elif role not in SPEAKERS:
            known = [SYSTEM, *SPEAKERS]
            raise ValueError(f"{where}: found the speaker {role!r}{nearest(role, known)}")
        else:
            speaker = SPEAKERS[role]
            skipped = _skipped(item.get("loss"), speaker, where)
            messages.append(Message(speaker=speaker, text=text, skipped=skipped))
    return system, tuple(messages)


def _either(item: Mapping[str, Any], names: tuple[str, str], where: str) -> str:
    for name in names:
        if name in item:
            return _string(item[name], f"{where}.{name}")
    raise ValueError(f"{where}: {_no_key(names, item)}")


def _skipped(value: Any, speaker: Speaker, where: str) -> bool:
    """Read a loss flag: null, true or false."""
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{where}.loss: found {_show(value)}, expected true, false or null")
    if value and speaker is Speaker.HUMAN:
        raise ValueError(f"{where}.loss: found true on a message the agent did not write")
    return value is False and speaker is Speaker.GPT


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: found {_show(value)}, expected a string")
    return _text(value, where)


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: holds half of a surrogate pair, which is no text") from None
    return value


def _require_answer(messages: tuple[Message, ...], key: str, *, learned: bool) -> None:
    spoken = [(place, message) for place, message in enumerate(messages) if message.speaker is Speaker.GPT]
    if not spoken:
        raise ValueError(f"{key}: found no message of the agent (gpt), expected at least one")
    for place, message in spoken:
        if learned and not message.skipped and not message.text.strip():
            raise ValueError(
                f"{key}: agent's message {place}: found an empty text, expected what the agent said"
            )


def _written(
    record: Conversation | TextPair, messages: tuple[Message, ...]
) -> tuple[dict[str, Any], tuple[Message, ...]]:
    """The keys and messages that give system prompt and acknowledgement back when they are read."""
    whole = unfold_instruction(record.system_prompt, record.acknowledgement, messages)
    if whole is not None:
        return {}, whole
    head = {"system_prompt": record.system_prompt}
    if record.acknowledgement != ACKNOWLEDGEMENT:
        head["acknowledgement"] = record.acknowledgement
    return head, messages


def _from_value(messages: tuple[Message, ...], *, nod: bool = False) -> list[dict[str, Any]]:
    """Messages as ETO names them; the second one, an acknowledgement if `nod`, needs no flag."""
    return [
        {"from": message.speaker.value, "value": message.text}
        | ({"loss": False} if message.skipped and not (nod and place == 1) else {})
        for place, message in enumerate(messages)
    ]


def _with_rest(row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    """The row with the reward and the other keys, none of which replaces one of its own."""
    if conversation.reward is not None:
        row["reward"] = conversation.reward
    return row | {key: value for key, value in conversation.extra.items() if key not in row}


def _show(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list", dict: "object"}
    text = "null" if value is None else repr(value)
    return (
        f"{text if len(text) <= 60 else text[:57] + '...'} ({names.get(type(value), type(value).__name__)})"
    )
