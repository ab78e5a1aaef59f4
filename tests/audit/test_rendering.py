"""The audit's own rendering of a conversation, against the tokens that playing and learning make of it."""

import numpy as np
import pytest

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.rendering import Rendering
from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.trajectory import Turn
from tests.data.chat.families import FAMILIES, make_tokenizer

TURNS = (
    Turn(response="Thought: I count.\nAction: SELECT 1", action="", observation=" [(3,)] \n"),
    Turn(response="Action: submit", action="", observation="x"),
    Turn(response="Action: last", action="", observation=""),
)


@pytest.mark.parametrize("system", ["Be brief.", ""])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_conversations_are_rendered_alike(family, system):
    tokenizer = make_tokenizer(family)
    tokens, mask = render(chat_format(tokenizer), system, "Count the singers.", TURNS)
    starts = np.flatnonzero(mask & ~np.insert(mask[:-1], 0, False))
    ends = np.flatnonzero(mask & ~np.append(mask[1:], False)) + 1
    ours = Rendering(tokenizer=tokenizer, system=system)
    expected = [ours.opening("Count the singers."), *(ours.answer(turn.observation) for turn in TURNS[:-1])]
    end = 0
    for turn, given, start, stop in zip(TURNS, expected, starts, ends, strict=True):
        assert given is not None and tokens[end:start].tolist() == list(given)
        assert ours.words(tokens[end:start].tolist(), tokens[start:stop].tolist()) in ours.said(turn.response)
        end = stop
    assert tokens[-1] == ours.end_id


@pytest.mark.parametrize("family", FAMILIES)
def test_turns_with_thoughts_and_without_are_the_formats(family):
    tokenizer = make_tokenizer(family)
    chat, ours = chat_format(tokenizer), Rendering(tokenizer=tokenizer, system="")
    compared = 0
    for text in ("Action: x", "<think>\na b\n</think>\n\nAction: x", "a b\n</think>\n\nAction: x"):
        try:
            spoken = ours.spoken(text)
        except NotCheckable:  # the prompt's last token would be another one before these words
            continue
        assert spoken == list(chat.response_ids(text))
        compared += 1
    assert compared >= 2


def test_a_text_that_looks_like_a_special_token_is_left_alone():
    ours = Rendering(tokenizer=make_tokenizer("qwen25"), system="")
    assert ours.answer("so <|im_end|> it ends") is None
    assert ours.opening("<|im_start|>") is None
