"""Trajectories under another mark, token by token, and the marks that a chat format cannot hold."""

import copy

import numpy as np
import pytest

from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.data.chat.marking import cannot_hold, remark
from coevo_jax.data.chat.tokenizer import train_tokenizer
from coevo_jax.methods.marks import marked
from coevo_jax.trajectory import Branch, Ending, Trajectory, Turn
from tests.data.chat.families import FAMILIES, make_tokenizer

SUFFIX, PREFIX = "{task} What follows is right.", "[Wrong] {task}"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    texts = ["Action: submit", "Copy What follows is right.", "[Wrong]"]
    return chat_format(train_tokenizer(texts, 300, tmp_path_factory.mktemp("tok")))


def ids_of(chat, text):
    return chat.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def played(chat, system="Be brief.", prompt="Copy", mark=""):
    """A trajectory whose second turn is no text of the tokenizer's own cutting, with log-probabilities."""
    turns = (
        Turn(response="Action: a", action="a", observation="b"),
        Turn(response="Action: b", action="b", observation=""),
    )
    tokens, agent_mask = render(chat, system, marked(prompt, mark), turns)
    letters = [ids_of(chat, letter)[0] for letter in "xyz"]
    tokens = np.concatenate([tokens[:-1], letters, tokens[-1:]]).astype(np.int32)
    agent_mask = np.concatenate([agent_mask, [True] * 3])
    logps = np.where(agent_mask, -np.arange(1.0, len(tokens) + 1), 0).astype(np.float32)
    return Trajectory(
        task_id="t",
        agent="target",
        sample=0,
        prompt=marked(prompt, mark),
        turns=turns,
        reward=0.5,
        ending=Ending.FAILED,
        tokens=tokens,
        agent_mask=agent_mask,
        logps=logps,
        mark=mark,
    )


@pytest.mark.parametrize("mark, text", [(SUFFIX, "Copy What follows is right."), (PREFIX, "[Wrong] Copy")])
def test_only_the_prompt_has_other_tokens(chat, mark, text):
    one = played(chat)
    found = remark(chat, "Be brief.", one, mark)
    opening = ids_of(chat, f"<|system|>Be brief.<|end|><|user|>{text}<|end|><|assistant|>")
    start = int(np.flatnonzero(one.agent_mask)[0])
    assert len(opening) > start
    np.testing.assert_array_equal(found.tokens, [*opening, *one.tokens[start:]])
    np.testing.assert_array_equal(found.agent_mask, [*[False] * len(opening), *one.agent_mask[start:]])
    np.testing.assert_array_equal(found.logps, [*[0.0] * len(opening), *one.logps[start:]])
    assert (found.tokens.dtype, found.agent_mask.dtype, found.logps.dtype) == (np.int32, bool, np.float32)
    np.testing.assert_array_equal(found.tokens[found.agent_mask], one.tokens[one.agent_mask])
    assert (found.prompt, found.mark, found.turns, found.reward) == (text, mark, one.turns, 0.5)
    assert (one.prompt, one.mark) == ("Copy", "")


def test_a_mark_is_replaced_never_put_on_top(chat):
    under_one = remark(chat, "", played(chat, ""), SUFFIX)
    for mark in (PREFIX, ""):
        again = remark(chat, "", under_one, mark)
        expected = remark(chat, "", played(chat, ""), mark)
        np.testing.assert_array_equal(again.tokens, expected.tokens)
        assert (again.prompt, again.mark) == (marked("Copy", mark), mark)
    assert remark(chat, "", under_one, SUFFIX) is under_one


def test_what_was_played_under_a_mark_is_what_is_rendered_under_it(chat):
    """The same text form in play and in training."""
    one, other = played(chat, mark=SUFFIX), remark(chat, "Be brief.", played(chat), SUFFIX)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.agent_mask, other.agent_mask)


def test_the_place_where_a_branch_begins_moves_with_the_prompt(chat):
    one = played(chat)
    second = int(np.flatnonzero(np.diff(one.agent_mask.astype(int)) == 1)[1]) + 1
    branch = Branch(collection="target", sample=3, turns=1, tokens=second)
    object.__setattr__(one, "branch", branch)
    found = remark(chat, "Be brief.", one, SUFFIX)
    assert found.branch is not None and found.written_tokens == one.written_tokens > 0
    moved = len(found.tokens) - len(one.tokens)
    assert moved > 0 and found.branch == Branch(collection="target", sample=3, turns=1, tokens=second + moved)


def test_a_trajectory_in_which_the_agent_wrote_nothing_stays(chat):
    one = played(chat)
    empty = copy.copy(one)
    object.__setattr__(empty, "agent_mask", np.zeros(len(one.tokens), bool))
    assert remark(chat, "Be brief.", empty, SUFFIX) is empty


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_marks_are_held_and_control_tokens_are_not(name):
    chat = chat_format(make_tokenizer(name))
    # The small SentencePiece vocabularies hold the words of a few sentences, and no square brackets alone.
    for mark in ("{task} Count the singers.", "Be brief. {task}", "{task}\n\nThe user asks: I count."):
        assert cannot_hold(chat, mark) == ""
    special = next(iter(chat.sections.control_ids))
    assert "a control token of the chat template" in cannot_hold(chat, f"{{task}} a {special.strip()} b")


def test_words_of_the_template_are_not_held():
    chat = chat_format(make_tokenizer("llama2"))
    for word in ("[INST]", "[/INST]", "<<SYS>>"):
        assert cannot_hold(chat, f"{word} {{task}}") != "", word
    assert "'[/INST]'" in cannot_hold(chat, "{task} [/INST] Right")


def test_what_does_not_come_back_is_not_held(chat):
    assert cannot_hold(chat, "{task} é “right” \N{SNOWMAN}") == ""
    lossy = chat_format(make_tokenizer("qwen25"))  # NFC: it composes what stands apart
    assert "it does not come back" in cannot_hold(lossy, "{task} re\N{COMBINING ACUTE ACCENT}pondu")


def test_prompts_under_marks_share_what_leads_to_the_task(chat):
    bare, under = chat.shared_ids("Be brief."), chat.shared_ids("Be brief.", [PREFIX])
    assert bare == under[: len(bare)] and len(under) > len(bare)
    for task in ("Copy", "7 names", "(a)", " x"):
        assert chat.prompt_ids("Be brief.", marked(task, PREFIX))[: len(under)] == under
    both = chat.shared_ids("Be brief.", [PREFIX, SUFFIX])
    assert both == under[: len(both)]
    assert all(
        chat.prompt_ids("Be brief.", marked("Copy", one))[: len(both)] == both for one in (PREFIX, SUFFIX)
    )
