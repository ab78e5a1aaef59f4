"""A stored agent behind OpenAI's own client: what it writes is what it plays."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import openai
import pytest

from coevo_jax.envs.env import parse_response
from coevo_jax.envs.pool import EnvPool
from coevo_jax.learning.head import scored_logps
from coevo_jax.models.transformer import Transformer, output_head
from coevo_jax.rollout import play
from coevo_jax.rollout.endpoint import Endpoint, base_model, probe
from coevo_jax.stored.serve import load_served
from tests.letters_env import LettersOptions, make_letters
from tests.old_run import unpack
from tests.openai_server.served import MODEL, post, running

ATOL = 1e-4  # as tests/rollout/test_play.py has it beside the learner's forward pass
IDS = {"return_token_ids": True}
COPY = [{"role": "user", "content": "Copy"}]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = unpack(tmp_path_factory.mktemp("run"))
    with running(load_served(folder, agent="target", slots=3)) as server:
        yield server


def chat(toy, messages=COPY, **options):
    return toy.client.chat.completions.create(model=MODEL, messages=messages, **options)


def complete(toy, prompt, **options):
    return toy.client.completions.create(model=MODEL, prompt=prompt, **options)


def play_by_api(toy, env, task):
    """Play an episode as an environment of others does: tokens, which are the agent's, and their logps."""
    messages = [{"role": "user", "content": env.reset(task)}]
    tokens, mask, logps = [], [], []
    for _ in range(env.max_turns(task)):
        answer = chat(toy, messages, temperature=0, logprobs=True, extra_body=IDS)
        [choice] = answer.choices
        read, written = answer.prompt_token_ids, choice.token_ids
        assert read[: len(tokens)] == tokens
        mask += [False] * (len(read) - len(tokens)) + [True] * len(written)
        logps += [0.0] * (len(read) - len(tokens)) + [one.logprob for one in choice.logprobs.content]
        tokens = read + written
        messages.append(choice.message.model_dump())
        parsed = parse_response(choice.message.content)
        result = env.step(parsed[1])
        if result.done:
            return tokens, mask, logps, result.reward
        messages.append({"role": "user", "content": result.observation})
    return tokens, mask, logps, env.reward_at_limit()


def test_an_episode_over_http_is_the_one_that_is_played_token_by_token(toy):
    env, served = make_letters(LettersOptions()), toy.served
    tasks = env.tasks("test")[:6]
    with ThreadPoolExecutor(4) as threads:  # beside each other: six episodes over three slots
        played = list(threads.map(lambda task: play_by_api(toy, make_letters(LettersOptions()), task), tasks))
    engine = load_engine(served)
    with EnvPool(lambda: make_letters(LettersOptions()), workers=1, step_timeout=10) as pool:
        expected, _ = play(
            engine,
            served.weights.params,
            pool,
            served.chat,
            tasks,
            agent="target",
            samples=1,
            temperature=0.0,
            seed=0,
            phase=0,
        )
    score = learner_of(served.engine.model, served.weights.params)
    for (tokens, mask, logps, reward), trajectory in zip(played, expected, strict=True):
        assert len(trajectory.turns) == 2
        assert tokens == trajectory.tokens.tolist() and mask == trajectory.agent_mask.tolist()
        assert reward == trajectory.reward
        np.testing.assert_allclose(logps, trajectory.logps, atol=ATOL)
        np.testing.assert_allclose(np.array(logps)[mask], score(tokens)[np.array(mask)[1:]], atol=ATOL)


def load_engine(served):
    """Another engine of the same programs."""
    return served.engine.twin()


def learner_of(model: Transformer, params):
    """The learner's forward pass over one row: log-probability of every token but the first."""
    layers = params["layers"]
    stacked = {**params, "layers": jax.tree.map(lambda *parts: np.stack(parts), *layers)}

    def score(tokens):
        row, length = np.array([tokens], np.int32), len(tokens)
        positions = np.arange(length, dtype=np.int32)[None]
        hidden = model.apply({"params": stacked}, row, positions, np.full_like(positions, length))
        logps = scored_logps(output_head(stacked), hidden[:, :-1], row[:, 1:], np.array([length - 1]))
        return np.asarray(logps[0])

    return score


def drawn(toy, seed, **options):
    return complete(
        toy,
        [5, 6, 7],
        temperature=1.5,
        seed=seed,
        max_tokens=24,
        extra_body=IDS | {"min_p": 0.001},
        **options,
    )


def test_a_seed_gives_the_same_text_whatever_else_is_written(toy):
    alone = [drawn(toy, seed).choices[0] for seed in range(4)]
    with ThreadPoolExecutor(12) as threads:
        beside = list(threads.map(lambda seed: drawn(toy, seed % 8).choices[0], range(24)))
    for number, one in enumerate(beside):
        if number % 8 < 4:
            assert one.token_ids == alone[number % 8].token_ids
            assert one.text == alone[number % 8].text
    assert len({tuple(one.token_ids) for one in beside}) == 8
    assert len({tuple(drawn(toy, None).choices[0].token_ids) for _ in range(3)}) == 3


def test_n_texts_are_draws_of_their_own_and_the_first_is_that_of_one(toy):
    several, one = drawn(toy, 5, n=5), drawn(toy, 5)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3, 4]
    assert several.choices[0].token_ids == one.choices[0].token_ids
    assert len({tuple(choice.token_ids) for choice in several.choices}) == 5
    written = sum(len(choice.token_ids) for choice in several.choices)
    assert several.usage.completion_tokens == written and several.usage.prompt_tokens == 3


@pytest.mark.parametrize("stop", [None, ["o"], ["a b", " c"]])
def test_streamed_or_whole_it_is_the_same(toy, stop):
    options = {"temperature": 1.4, "seed": 11, "n": 3, "logprobs": True, "top_logprobs": 2, "stop": stop}
    whole = chat(toy, max_tokens=30, extra_body=IDS, **options)
    pieces = list(
        chat(
            toy, max_tokens=30, extra_body=IDS, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert pieces[0].prompt_token_ids == whole.prompt_token_ids
    assert [one.choices[0].delta.role for one in pieces[:3]] == ["assistant"] * 3
    assert pieces[-1].usage == whole.usage and pieces[-1].choices == []
    for choice in whole.choices:
        own = [one.choices[0] for one in pieces[:-1] if one.choices[0].index == choice.index]
        assert "".join(one.delta.content for one in own) == choice.message.content
        assert [id for one in own[1:] for id in one.token_ids] == choice.token_ids
        content = [entry for one in own if one.logprobs for entry in one.logprobs.content]
        assert content == choice.logprobs.content
        assert "".join(bytes(entry.bytes).decode() for entry in content) == choice.message.content
        assert [one.finish_reason for one in own] == [None] * (len(own) - 1) + [choice.finish_reason]


def test_the_likeliest_tokens_and_their_log_probabilities(toy):
    answer = chat(toy, temperature=0, logprobs=True, top_logprobs=20, extra_body=IDS)
    score = learner_of(toy.served.engine.model, toy.served.weights.params)
    content = answer.choices[0].logprobs.content
    tokens = answer.prompt_token_ids + answer.choices[0].token_ids
    np.testing.assert_allclose(
        [one.logprob for one in content], score(tokens)[len(answer.prompt_token_ids) - 1 :], atol=ATOL
    )
    for one in content:
        logps = [other.logprob for other in one.top_logprobs]
        assert len(logps) == 20 and logps == sorted(logps, reverse=True)
        assert one.top_logprobs[0].token == one.token and logps[0] == one.logprob  # it was greedy
        assert np.exp(logps).sum() <= 1 + 1e-5
    named = complete(toy, answer.prompt_token_ids, temperature=0, logprobs=2, max_tokens=3)
    rows = named.choices[0].logprobs
    assert rows.tokens == [one.token for one in content[:3]]
    assert [max(row.values()) for row in rows.top_logprobs] == rows.token_logprobs
    assert rows.text_offset == [0, 6, 7]


def test_words_and_tokens_that_end_a_text(toy):
    plain = chat(toy, temperature=0).choices[0]
    assert (plain.message.content, plain.finish_reason, plain.stop_reason) == ("Action: look", "stop", None)
    cut = chat(toy, temperature=0, stop="loo", extra_body=IDS).choices[0]
    assert (cut.message.content, cut.finish_reason, cut.stop_reason) == ("Action: ", "stop", "loo")
    assert len(cut.token_ids) == 3  # with the one that completed the words
    kept = chat(toy, temperature=0, stop=[":", "zz"], extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].message.content == "Action:"
    ids = chat(toy, temperature=0, extra_body=IDS).choices[0].token_ids
    named = chat(toy, temperature=0, extra_body=IDS | {"stop_token_ids": [ids[1]]}).choices[0]
    assert (named.token_ids, named.stop_reason, named.finish_reason) == (ids[:2], ids[1], "stop")
    short = chat(toy, temperature=0, max_completion_tokens=2).choices[0]
    assert (short.message.content, short.finish_reason) == ("Action:", "length")


def test_what_it_wrote_comes_back_as_the_tokens_that_it_wrote(toy):
    """A text has many spellings; the drawn one stands in the next prompt, others are spelt as an expert's."""
    spelt = None
    for seed in range(40):
        first = chat(toy, temperature=1.6, seed=seed, max_tokens=30, extra_body=IDS)
        choice = first.choices[0]
        drawn_ids = choice.token_ids
        if choice.finish_reason == "stop" and drawn_ids != toy.served.chat.response_ids(
            choice.message.content
        ):
            spelt = first
            break
    assert spelt is not None
    messages = [*COPY, choice.message.model_dump(), {"role": "user", "content": "a b"}]
    again = chat(toy, messages, max_tokens=1, extra_body=IDS)
    start = spelt.prompt_token_ids + drawn_ids
    assert again.prompt_token_ids[: len(start)] == start
    toy.service.memory._answers.clear()
    fresh = chat(toy, messages, max_tokens=1, extra_body=IDS)
    own = toy.served.chat.response_ids(choice.message.content)
    assert fresh.prompt_token_ids[: len(spelt.prompt_token_ids) + len(own)] == spelt.prompt_token_ids + own
    messages[1] |= {"prompt_token_ids": spelt.prompt_token_ids, "generation_token_ids": drawn_ids}
    told = chat(toy, messages, max_tokens=1, extra_body=IDS)
    assert told.prompt_token_ids == again.prompt_token_ids


def test_the_fields_that_other_hubs_read(toy):
    """verifiers: token ids and /tokenize; NeMo Gym: ids in the place of tokens; our own client of servers."""
    named = chat(
        toy,
        temperature=0,
        logprobs=True,
        top_logprobs=0,
        extra_body={"return_tokens_as_token_ids": True, "metadata": {"a": "b"}, **IDS},
    )
    ids = [int(one.token.removeprefix("token_id:")) for one in named.choices[0].logprobs.content]
    assert ids == named.choices[0].token_ids
    _, raw = post(toy.url, "/tokenize", json.dumps({"model": MODEL, "messages": COPY}).encode())
    assert json.loads(raw)["tokens"] == named.prompt_token_ids
    body = {"model": MODEL, "messages": COPY, "tokens": named.prompt_token_ids, "temperature": 0} | IDS
    status, raw = post(toy.url, "/v1/chat/completions/tokens", json.dumps(body).encode())
    assert status == 200 and json.loads(raw)["choices"][0]["token_ids"] == named.choices[0].token_ids
    by_ids = complete(toy, [named.prompt_token_ids] * 2, temperature=0, extra_body=IDS)
    assert [one.prompt_token_ids for one in by_ids.choices] == [named.prompt_token_ids] * 2
    assert [one.token_ids for one in by_ids.choices] == [named.choices[0].token_ids] * 2
    by_text = complete(toy, "<|user|>Copy<|end|><|assistant|>", temperature=0, extra_body=IDS)
    assert by_text.choices[0].token_ids == named.choices[0].token_ids
    endpoint = Endpoint(url=toy.url, timeout=20)
    served = base_model(endpoint, longest=toy.served.limits.context)
    probe(served, named.prompt_token_ids, vocab_size=toy.served.limits.vocab_size)


def test_a_client_of_many_threads_gets_every_answer(toy):
    async def ask():
        async with openai.AsyncOpenAI(base_url=toy.url, api_key="none", max_retries=0) as client:
            calls = [
                client.chat.completions.create(model=MODEL, messages=COPY, temperature=0) for _ in range(30)
            ]
            return await asyncio.gather(*calls)

    answers = asyncio.run(ask())
    assert {one.choices[0].message.content for one in answers} == {"Action: look"}
    assert len({one.id for one in answers}) == 30
