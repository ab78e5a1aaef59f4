"""Encode the text between control tokens as the tokenizer does in a whole text.

A tokenizer cuts a text at its control tokens and treats each section on its own: SentencePiece kinds put a
space in front, of every section or of the first. Text that goes on in a section must get none. Three copies
of the tokenizer, with other rules for that space, encode any piece of a conversation in its place.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast


class Place(StrEnum):
    """The place of a piece of text in a section."""

    START = "start"  # at the very start of a text
    BEHIND = "behind"  # behind a control token
    INSIDE = "inside"  # goes on where other text ended


@dataclass(frozen=True, kw_only=True, eq=False)
class Sections:
    """Encoders of text by its place, and the control tokens that cut a text into sections."""

    encoders: Mapping[Place, Tokenizer]
    control: re.Pattern[str]
    control_ids: Mapping[str, int]
    forbidden: frozenset[int]  # ids that no text may yield

    def cut(self, text: str) -> tuple[str | int, ...]:
        """Cut a template's own text into control tokens (their ids) and the text between them."""
        parts: list[str | int] = []
        at = 0
        for match in self.control.finditer(text):
            parts += [text[at : match.start()], self.control_ids[match[0].strip()]]
            at = match.end()
        return tuple(part for part in [*parts, text[at:]] if part != "")

    def encode(self, text: str, place: Place) -> list[int]:
        """Encode text in which nothing is a control token, whatever it looks like."""
        ids = self.encoders[place].encode(text, add_special_tokens=False).ids
        if len(text) < 2 or self.forbidden.isdisjoint(ids):
            return ids
        # The tokenizer does not call it special, or its vocabulary holds it as a word too: take it apart.
        found = self.control.search(text)
        at = max(1, found.start() + 1 if found else len(text) // 2)
        return [*self.encode(text[:at], place), *self.encode(text[at:], Place.INSIDE)]

    def join(self, parts: Sequence[str | int], place: Place = Place.BEHIND) -> list[int]:
        """Encode control tokens and text; neighbouring texts are one section. `place` is the first's."""
        ids: list[int] = []
        text = ""
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            ids += self.encode(text, place) if text else []
            ids.append(part)
            text, place = "", Place.BEHIND
        return [*ids, *self.encode(text, place)] if text else ids


def make_sections(tokenizer: PreTrainedTokenizerFast, control_ids: Mapping[str, int]) -> Sections:
    """Copies of a tokenizer by place; `control_ids` are the ids by text that only a template may write."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {"truncation": None, "padding": None, "post_processor": None}
    tokens = {token["content"]: token for token in state["added_tokens"]}
    encoders: dict[Place, Tokenizer] = {}
    built: dict[str, Tokenizer] = {}
    for place in Place:
        front = {key: _set_front_space(state[key], place) for key in ("normalizer", "pre_tokenizer")}
        rules = json.dumps(front)
        if rules not in built:
            built[rules] = Tokenizer.from_str(json.dumps({**state, **front}))
            built[rules].encode_special_tokens = True
        encoders[place] = built[rules]
    words = [
        r"\s*" * tokens[text]["lstrip"] + re.escape(text) + r"\s*" * tokens[text]["rstrip"]
        for text in sorted(control_ids, key=len, reverse=True)
    ]
    return Sections(
        encoders=encoders,
        control=re.compile("|".join(words)),
        control_ids=control_ids,
        forbidden=frozenset(id for text, id in control_ids.items() if text != tokenizer.unk_token),
    )


def _set_front_space(node: Any, place: Place) -> Any:
    """A normalizer or pre-tokenizer (as tokenizer.json has it) with the front space of a piece at `place`."""
    if node is None or place is Place.START:
        return node
    for key in ("normalizers", "pretokenizers"):
        if key in node:
            kept = [_set_front_space(part, place) for part in node[key]]
            return {**node, key: [part for part in kept if part is not None]}
    if node["type"] == "Metaspace" and (place is Place.INSIDE or node["prepend_scheme"] == "first"):
        return {**node, "prepend_scheme": "never"}
    if node["type"] == "Prepend" and place is Place.INSIDE:
        return None
    if node["type"] == "ByteLevel" and place is Place.INSIDE and "add_prefix_space" in node:
        return {**node, "add_prefix_space": False}
    return node
