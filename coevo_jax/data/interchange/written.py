"""Rows of every layout that is written: records as plain JSON objects, which read back as they were."""

from collections.abc import Callable
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
from coevo_jax.data.interchange.shapes import AGENTTRAJ, ETO_PAIRS, ETO_SFT, MESSAGES


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
            **(message.extra or {}),
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
        messages.append({"role": "system", "content": conversation.system_prompt})
        if conversation.acknowledgement != ACKNOWLEDGEMENT:
            head["acknowledgement"] = conversation.acknowledgement
    elif fold_instruction(conversation.messages)[0]:
        head["system_prompt"] = ""  # not an instruction, although it looks like one
    for message in conversation.messages:
        flag = {"loss": False} if message.skipped else {}
        rest = message.extra or {}
        messages.append({"role": roles[message.speaker], "content": message.text, **flag, **rest})
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
        | (message.extra or {})
        for place, message in enumerate(messages)
    ]


def _with_rest(row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    """The row with the reward and the other keys, none of which replaces one of its own."""
    if conversation.reward is not None:
        row["reward"] = conversation.reward
    return row | {key: value for key, value in conversation.extra.items() if key not in row}


WRITERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    ETO_SFT: write_eto,
    AGENTTRAJ: write_agenttraj,
    MESSAGES: write_messages,
    ETO_PAIRS: write_pair,
}
