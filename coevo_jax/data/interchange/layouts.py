"""The meaning of a row: plain JSON objects as the records they stand for.

eto-sft     {id, conversations: [{from: human | gpt, value}]}, instruction and "OK" first
agenttraj   {item_id, conversations: [{from, loss, value}]}, the same with a loss flag per message
messages    {id, messages: [{role: system | user | assistant, content}]}, as most hub sets have it
eto-pairs   {id, prompt, chosen, rejected}, three lists of messages

These four are written. Reading takes every layout of `shapes.py`, an id under several names, and keeps other
keys.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coevo_jax.data.interchange.messages import (
    EMPTY,
    FLAGS,
    agents,
    checked_text,
    flag_of,
    no_key,
    read_messages,
    show,
    text_of,
)
from coevo_jax.data.interchange.pairs import LABEL, invented_id, prompt_text
from coevo_jax.data.interchange.records import (
    ACKNOWLEDGEMENT,
    Conversation,
    Message,
    Speaker,
    TextPair,
    fold_instruction,
)
from coevo_jax.data.interchange.shapes import (
    AGENTTRAJ,
    ETO_PAIRS,
    ETO_SFT,
    KEYS,
    MESSAGES,
    Shape,
    find_shape,
)
from coevo_jax.data.interchange.written import WRITERS

ID_KEYS = ("id", "item_id", "task_id", "game_file")
SYSTEM_KEYS = ("system_prompt", "system")
MESSAGE_KEYS = ("conversations", "messages")
PAIR_KEYS = ("prompt", "chosen", "rejected")
LABEL_KEYS = (LABEL, "kto_tag")
MEDIA_KEYS = ("images", "image", "videos", "video", "audios", "audio")
Messages = tuple[Message, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One format of rows; a row that it cannot use makes `parse` fail with a ValueError in words."""

    kind: type[Conversation] | type[TextPair]
    parse: Callable[[Any, int], Conversation | TextPair]  # row and its index
    write: Callable[[Any], dict[str, Any]]


def parse_row(row: Any, index: int) -> Conversation | TextPair:
    """A record from a row of any layout; `index` names a row that has neither id nor prompt."""
    row = mapping(row)
    shape = find_shape(row)
    if shape is None:
        raise ValueError(no_key(MESSAGE_KEYS, row))
    return _pair(row, shape, index) if shape.rejected else _conversation(row, shape, index)


def parse_conversation(row: Any, index: int) -> Conversation:
    """A conversation from any layout that holds one."""
    record = parse_row(row, index)
    if isinstance(record, TextPair):
        raise ValueError(f"found {record.layout}, expected a conversation")
    return record


def parse_pair(row: Any, index: int) -> TextPair:
    """A preference pair from any layout that holds one."""
    row = mapping(row)
    shape = find_shape(row)
    if shape is None or not shape.rejected:
        missing = [name for name in PAIR_KEYS if row.get(name) is None]
        raise ValueError(no_key((missing[0],), row) if missing else "found a conversation, expected a pair")
    return _pair(row, shape, index)


LAYOUTS: dict[str, Layout] = {
    ETO_SFT: Layout(kind=Conversation, parse=parse_conversation, write=WRITERS[ETO_SFT]),
    AGENTTRAJ: Layout(kind=Conversation, parse=parse_conversation, write=WRITERS[AGENTTRAJ]),
    MESSAGES: Layout(kind=Conversation, parse=parse_conversation, write=WRITERS[MESSAGES]),
    ETO_PAIRS: Layout(kind=TextPair, parse=parse_pair, write=WRITERS[ETO_PAIRS]),
}


def guess_layout(row: Any) -> str | None:
    """The format a row is nearest to, by its keys; None where it is in none.

    Raises:
      ValueError: the keys contradict each other, or hold nothing to imitate.
    """
    try:
        row = mapping(row)
    except ValueError:
        return None
    shape = find_shape(row)
    if shape is None or shape.format != ETO_SFT:
        return None if shape is None else shape.format
    listed = row["conversations"] if isinstance(row["conversations"], list) else []
    flagged = any(isinstance(message, dict) and "loss" in message for message in listed)
    return AGENTTRAJ if flagged or "item_id" in row else ETO_SFT


def mapping(row: Any) -> Mapping[str, Any]:
    """A row as an object, also where it stands as JSON in a string.

    Raises:
      ValueError: the row is anything else.
    """
    found = row
    if isinstance(row, str) and row.lstrip()[:1] == "{":
        try:
            found = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"found a string that is no JSON object: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"found {show(row)}, expected an object with keys")
    return found


def _conversation(row: Mapping[str, Any], shape: Shape, index: int) -> Conversation:
    if shape.whole:
        key = shape.whole
        system, messages = read_messages(row[key], key)
    else:
        key = shape.answer
        system, prompt = _prompt(row, shape)
        messages = prompt + _answer(row, key)
    good, used_label = _label(row)
    if good is False:
        messages = tuple(replace(m, skipped=m.speaker is Speaker.GPT) for m in messages)
    _require_answer(messages, key, learned=True)
    _check_row(row, shape, system, messages)
    id_key, row_id = _id(row)
    system_prompt, acknowledgement, messages = _system(row, system, messages)
    used = {*shape.keys, id_key, "reward", *SYSTEM_KEYS, "acknowledgement", used_label}
    reward = _reward(row.get("reward"))
    return Conversation(
        id=row_id or invented_id(prompt_text(messages), index),
        messages=messages,
        system_prompt=system_prompt,
        acknowledgement=acknowledgement,
        reward=0.0 if reward is None and good is False else reward,
        extra=_other_keys(row, used) | ({LABEL: good} if used_label else {}),
        layout=shape.name if good is None else f"{shape.name}, answers judged {'good' if good else 'bad'}",
    )


def _pair(row: Mapping[str, Any], shape: Shape, index: int) -> TextPair:
    if _label(row)[1]:
        raise ValueError(f"{LABEL}: found one beside two answers, expected only one of them")
    system, prompt, chosen, rejected = _sides(row, shape)
    for name, side in ((shape.chosen or shape.whole, chosen), (shape.rejected, rejected)):
        _require_answer(side, name, learned=side is chosen)
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same")
    prompt = _only_heard(prompt)
    _check_row(row, shape, system, prompt + chosen)
    id_key, row_id = _id(row)
    system_prompt, acknowledgement, prompt = _system(row, system, prompt)
    used = {*shape.keys, id_key, *SYSTEM_KEYS, "acknowledgement", *LABEL_KEYS}
    beside = row["input"] if shape.before == ("input",) and isinstance(row["input"], dict) else {}
    kept = {key: value for key, value in beside.items() if key != "messages" and value not in (None, [])}
    return TextPair(
        id=row_id or invented_id(prompt_text(prompt), index),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        system_prompt=system_prompt,
        acknowledgement=acknowledgement,
        extra=kept | _other_keys(row, used),
        layout=shape.name,
    )


def _sides(row: Mapping[str, Any], shape: Shape) -> tuple[str, Messages, Messages, Messages]:
    """System prompt, prompt, chosen and rejected; what both sides repeat of the prompt is taken off."""
    late_rejected, rejected = read_messages(row[shape.rejected], shape.rejected, default=Speaker.GPT)
    if shape.whole:  # the end of a conversation, and what might have stood there instead
        system, messages = read_messages(row[shape.whole], shape.whole)
        heard = [place for place, message in enumerate(messages) if message.speaker is Speaker.HUMAN]
        end = heard[-1] + 1 if heard else 0
        return _one_system(system, "", late_rejected), messages[:end], messages[end:], rejected
    late_chosen, chosen = read_messages(row[shape.chosen], shape.chosen, default=Speaker.GPT)
    if not shape.before:
        if isinstance(row[shape.chosen], str) and len(chosen) == len(rejected) == 1:
            raise ValueError(
                f"{shape.chosen}: found plain text whose prompt cannot be told from the answer, expected "
                "messages, or the key 'prompt'"
            )
        prompt = _common_beginning(chosen, rejected)
        if not prompt:
            raise ValueError(
                f"{shape.chosen} and {shape.rejected}: begin with different messages, expected one prompt"
            )
        if late_chosen != late_rejected:
            raise ValueError(f"{shape.chosen} and {shape.rejected}: found different system messages")
        return late_chosen, prompt, chosen[len(prompt) :], rejected[len(prompt) :]
    system, prompt = _prompt(row, shape)
    system = _one_system(system, late_chosen, late_rejected)
    return system, *_without_prompt(prompt, chosen, rejected, shape)


def _without_prompt(
    prompt: Messages, chosen: Messages, rejected: Messages, shape: Shape
) -> tuple[Messages, Messages, Messages]:
    """Prompt and sides, where the sides may begin with the prompt, or with more that leads to it."""
    common = _common_beginning(chosen, rejected)
    if prompt and len(common) > len(prompt) and common[-len(prompt) :] == prompt:
        prompt = common
    sides = []
    for name, side in ((shape.chosen, chosen), (shape.rejected, rejected)):
        if prompt and side[: len(prompt)] == prompt and len(side) > len(prompt):
            side = side[len(prompt) :]
        elif prompt and side and side[0].speaker is Speaker.HUMAN is prompt[-1].speaker and any(agents(side)):
            raise ValueError(f"{name}: begins with a message that is not the agent's, nor the prompt's first")
        sides.append(side)
    return prompt, sides[0], sides[1]


def _common_beginning(chosen: Messages, rejected: Messages) -> Messages:
    """The messages that both sides begin with, up to where both go on with one of the agent's."""
    longest = 0
    for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)):
        if one.speaker is Speaker.GPT is other.speaker:
            longest = place
        if (one.speaker, one.text) != (other.speaker, other.text):
            break
    return chosen[:longest]


def _one_system(*found: str) -> str:
    """The system prompt that prompt and sides agree on, "" if none has one."""
    different = {text for text in found if text}
    if len(different) > 1:
        raise ValueError("found different system messages in prompt, chosen and rejected, expected one")
    return next(iter(different), "")


def _prompt(row: Mapping[str, Any], shape: Shape) -> tuple[str, Messages]:
    """System prompt and messages before the answers."""
    if len(shape.before) == 1 and not row.get(shape.history):
        key = shape.before[0]
        system, messages = read_messages(row[key], key, default=Speaker.HUMAN)
        return system, messages if shape.chosen else _only_heard(messages)
    rounds = row.get(shape.history) or []
    earlier = []
    for place, entry in enumerate(rounds if isinstance(rounds, list) else [rounds]):
        where = f"{shape.history}[{place}]"
        if not isinstance(entry, list) or len(entry) != 2:
            raise ValueError(f"{where}: found {show(entry)}, expected a question and its answer")
        earlier.append(Message(speaker=Speaker.HUMAN, text=text_of(entry[0], where)))
        earlier.append(Message(speaker=Speaker.GPT, text=text_of(entry[1], where)))
    texts = [text_of(row[key], key) for key in shape.before if row.get(key) is not None]
    question = Message(speaker=Speaker.HUMAN, text="\n".join(text for text in texts if text))
    return "", (*earlier, question)


def _answer(row: Mapping[str, Any], key: str) -> Messages:
    system, messages = read_messages(row[key], key, default=Speaker.GPT)
    if system:
        raise ValueError(f"{key}[0]: found a system message, expected it in the prompt")
    return messages


def _only_heard(messages: Messages) -> Messages:
    """A prompt: what the agent said in it is context, and not learned from."""
    if all(message.speaker is Speaker.HUMAN for message in messages):
        return messages
    return tuple(replace(m, skipped=m.speaker is Speaker.GPT) for m in messages)


def _check_row(row: Mapping[str, Any], shape: Shape, system: str, messages: Messages) -> None:
    """Refuse keys of a row that would change what is learned."""
    for key in MEDIA_KEYS:
        if row.get(key):
            raise ValueError(f"{key}: found {show(row[key])}, expected a row of text alone")
    for key in FLAGS.keys() & row.keys():
        if flag_of(key, row[key], "row") is False:
            raise ValueError(f"{key}: found {show(row[key])} beside the messages, expected it on a message")
    for key in shape.repeated:
        if row[key] in EMPTY:
            continue
        again, same = read_messages(row[key], key, default=Speaker.HUMAN)
        if again not in ("", system) or messages[: len(same)] != same:
            raise ValueError(f"{key}: found beside other messages, which do not begin with it")


def _label(row: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether a row's answer is a good one, and the key that says it; (None, "") where none does.

    Texts and objects under the same key are something else, such as a category.
    """
    for key in LABEL_KEYS:
        value = row.get(key)
        if value is None or isinstance(value, list | dict):
            continue
        if isinstance(value, str) and value.strip().lower() not in ("true", "false", "0", "1"):
            continue
        if isinstance(value, str) or value not in (0, 1):
            raise ValueError(
                f"{key}: found {show(value)}, expected true or false: whether the answer is a good one"
            )
        return bool(value), key
    return None, ""


def _id(row: Mapping[str, Any]) -> tuple[str, str]:
    """The key of a row's id and the id, "" where there is none."""
    for key in ID_KEYS:
        value = row.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{key}: found {show(value)}, expected a string or an integer")
        return key, checked_text(str(value), key)
    return ID_KEYS[0], ""


def _reward(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"reward: found {show(value)}, expected a number in [0, 1]")
    return float(value)


def _system(row: Mapping[str, Any], system: str, messages: Messages) -> tuple[str, str, Messages]:
    """System prompt and acknowledgement: a key of the row, a system message, or ETO's first two messages."""
    nod = row.get("acknowledgement")
    acknowledgement = ACKNOWLEDGEMENT if nod is None else text_of(nod, "acknowledgement")
    decided = bool(system)
    for key in SYSTEM_KEYS:
        if row.get(key) is not None:
            given = text_of(row[key], key)
            if given and system and given != system:
                raise ValueError(f"{key}: found one beside a system message, expected only one of them")
            system, decided = given or system, True
    if not decided:
        return fold_instruction(messages)
    return system, acknowledgement if system else ACKNOWLEDGEMENT, messages


def _other_keys(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """What a row has beyond its format. A null id, or an empty part of another layout, says nothing."""
    return {
        key: value
        for key, value in row.items()
        if key not in used and not ((key in ID_KEYS and value is None) or (key in KEYS and value in EMPTY))
    }


def _require_answer(messages: Messages, key: str, *, learned: bool) -> None:
    spoken = False
    for place, message in enumerate(messages):
        if message.speaker is Speaker.GPT:
            spoken = True
            if learned and not message.skipped and not message.text.strip():
                raise ValueError(
                    f"{key}: agent's message {place}: found an empty text, expected what the agent said"
                )
    if not spoken:
        raise ValueError(f"{key}: found no message of the agent (gpt), expected at least one")
