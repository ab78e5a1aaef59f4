"""Text as it is told piece by piece, for the chat formats of every family."""

import numpy as np
import pytest

from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.pieces import WINDOW, token_texts
from coevo_jax.openai_server.batcher import Job, Part
from coevo_jax.openai_server.conversation import Memory, conversation_ids
from coevo_jax.openai_server.fields import Message, SampledFields, read_fields
from coevo_jax.openai_server.refusal import Refusal
from coevo_jax.openai_server.telling import Telling
from coevo_jax.openai_server.wanted import Limits, wanted_texts
from tests.data.chat.families import FAMILIES, make_tokenizer

WORDS = (
    "Thought: I count 'größer' and 数える — twice…\nAction: execute[SELECT COUNT(*) FROM singer]",
    "  two spaces,\n\n\ttabs 🚪🚪 and \ufffd itself  \nAction: submit",
    "Action: " + "look at the kitchen table, " * 30,
)


@pytest.fixture(scope="module", params=FAMILIES)
def chat(request):
    return chat_format(make_tokenizer(request.param))


def told_of(chat, tokens, cuts, finish="stop", **fields):
    """What is told of tokens that come in parts."""
    limits = Limits(context=10_000, vocab_size=chat.vocab_size)
    asked = read_fields(SampledFields, fields)
    [wanted] = wanted_texts(asked, [[1]], limits, most=None, likeliest=0)
    telling, told, start = Telling(chat, job := Job(wanted=wanted)), [], 0
    for stop in [*cuts, len(tokens)]:
        part, last = list(tokens[start:stop]), stop == len(tokens)
        job.parts.put(
            Part(
                tokens=part,
                logps=[-1.0] * len(part),
                likeliest=[[] for _ in part],
                finish=finish if last else None,
            )
        )
        told.append(telling.next(lambda: True))
        start = stop
        if told[-1].finish is not None:
            break
    return told, telling


def cuts_of(rng, length):
    return sorted(set(rng.integers(1, length, 8).tolist()) - {length}) if length > 1 else []


@pytest.mark.parametrize("words", WORDS)
def test_the_pieces_of_a_response_are_its_text(chat, words):
    ids = chat.response_ids(words)
    rng = np.random.default_rng(0)
    whole = chat.decode_response(ids)
    assert "".join(token_texts(ids, chat.decode_response)) == whole
    for _ in range(5):
        told, telling = told_of(chat, ids, cuts_of(rng, len(ids)))
        assert "".join(one.text for one in told) == whole
        assert [token.id for one in told for token in one.tokens] == ids == telling.tokens
        assert "".join(token.text for one in told for token in one.tokens) == whole
        assert told[-1].finish == "stop" and telling.whole_turn


def test_random_tokens_are_told_as_they_are_decoded(chat):
    """Broken characters, control tokens, an end or none: what roll-outs would record."""
    rng = np.random.default_rng(1)
    for number in range(12):
        length = int(rng.integers(1, 4 * WINDOW))
        ids = [int(one) for one in rng.integers(0, chat.vocab_size, length) if one != chat.end_id]
        ids = ids or [1]
        ids += [chat.end_id] if number % 2 else []
        told, _ = told_of(chat, ids, cuts_of(rng, len(ids)), finish="stop" if number % 2 else "length")
        assert "".join(one.text for one in told) == chat.decode_response(ids)


@pytest.mark.parametrize("stop", ["count 'grö", "COUNT", "singer]", "\nAction", "u"])
def test_words_that_end_a_text_end_it_wherever_its_parts_end(chat, stop):
    ids = chat.response_ids(WORDS[0])
    whole = chat.decode_response(ids)
    expected = whole[: whole.index(stop)] if stop in whole else whole
    rng = np.random.default_rng(2)
    for number in range(8):
        cuts = cuts_of(rng, len(ids)) if number else range(1, len(ids))
        told, telling = told_of(chat, ids, cuts, stop=[stop, "never there"])
        assert "".join(one.text for one in told) == expected
        assert told[-1].stopped_by == (stop if stop in whole else None)
        assert "".join(token.text for one in told for token in one.tokens) == expected
        kept = chat.decode_response(telling.tokens)
        assert kept.startswith(expected) and telling.whole_turn == (stop not in whole)
        told, _ = told_of(chat, ids, cuts, stop=stop, include_stop_str_in_output=True)
        assert "".join(one.text for one in told) == expected + (stop if stop in whole else "")


def test_a_conversation_is_that_of_a_roll_out(chat):
    """System prompt, task, an answer that was written here, and one that was not."""
    memory, drawn = Memory(), [*chat.response_ids("Action: a")[:-1], 5, 6, chat.end_id]
    text = chat.decode_response(drawn)
    start = chat.prompt_ids("Be brief.", "Count.")
    memory.keep(start, text, drawn)
    said = [("system", "Be brief."), ("user", "Count."), ("assistant", text), ("user", "[('a',)]")]
    said += [("assistant", "Action: b"), ("user", "2")]
    messages = [Message(role=role, content=words) for role, words in said]
    first, reply = chat.observation_ids("[('a',)]"), chat.observation_ids("2")
    expected = [*start, *drawn, *first, *chat.response_ids("Action: b"), *reply]
    assert conversation_ids(chat, messages, memory) == expected
    assert conversation_ids(chat, messages[1:2], memory) == chat.prompt_ids("", "Count.")
    marked = conversation_ids(chat, messages[1:2], memory, "{task} Be right.")
    assert marked == chat.prompt_ids("", "Count. Be right.")


def test_a_turn_that_ended_with_its_action_is_closed(chat):
    memory, cut = Memory(), chat.response_ids("Action: a")[:-1]
    start, text = chat.prompt_ids("", "Count."), chat.decode_response(cut)
    memory.keep(start, text, cut)
    said = [("user", "Count."), ("assistant", text), ("user", "b")]
    messages = [Message(role=role, content=words) for role, words in said]
    expected = [*start, *cut, chat.end_id, *chat.observation_ids("b")]
    assert conversation_ids(chat, messages, memory) == expected


def test_a_memory_forgets_what_was_not_asked_for_longest():
    memory = Memory(most=2)
    for number in (1, 2):
        memory.keep([number], "a", [number])
    assert memory.find([1], "a") == [1] and memory.find([1], "b") is None
    memory.keep([3], "a", [3])
    assert [memory.find([number], "a") for number in (1, 2, 3)] == [[1], None, [3]]


def test_who_has_gone_is_noticed_and_who_ends_is_told():
    chat = chat_format(make_tokenizer(next(iter(FAMILIES))))
    limits = Limits(context=100, vocab_size=chat.vocab_size)
    [wanted] = wanted_texts(SampledFields(), [[1]], limits, most=5, likeliest=0)
    job = Job(wanted=wanted)
    with pytest.raises(ConnectionError):
        Telling(chat, job).next(lambda: False)
    assert job.given_up
    job.parts.put(Refusal(status=503, message="the server has ended"))
    with pytest.raises(Refusal) as found:
        Telling(chat, job).next(lambda: True)
    assert found.value.status == 503
