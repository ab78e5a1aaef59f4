"""Answers of servers by the hundred: each is tokens and log-probabilities, or one error that names it."""

import copy
import math
import random

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.rollout import endpoint
from coevo_jax.rollout.endpoint import Answer, Endpoint, base_model, list_models, read_completion

BODY = {"prompt": [1, 2, 3], "max_tokens": 4}
WHERE = "http://127.0.0.1:1/v1/completions"
GOOD = {
    "choices": [
        {
            "token_ids": [5, 6, 7],
            "logprobs": {"token_logprobs": [-0.5, -1.0, 0.0], "tokens": ["a", "b", "c"]},
            "prompt_token_ids": [1, 2, 3],
            "finish_reason": "stop",
        }
    ]
}
MODELS = {"data": [{"id": "base", "max_model_len": 512}, {"id": "adapter", "parent": "base"}]}
ODD = [None, True, -1, 10**400, 2**31, 1.5, math.nan, -math.inf, "", "7", [], {}, [None], [[5]], {"a": 1}]
SEEDS = [range(60), pytest.param(range(60, 400), marks=pytest.mark.slow)]


def edited(data, rng: random.Random):
    """A copy with one or two of its values others or gone."""
    whole = {"": copy.deepcopy(data)}
    for _ in range(rng.choice((1, 1, 2))):
        inside, last = whole, ""
        while isinstance(inside[last], dict | list) and inside[last] and rng.random() < 0.85:
            inside = inside[last]
            last = rng.choice(list(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
        if inside is whole or rng.random() < 0.8:
            inside[last] = copy.deepcopy(rng.choice(ODD))
        else:
            del inside[last]
    return whole[""]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("vocab_size", [None, 300])
def test_a_completion_is_read_or_named(seeds, vocab_size):
    refused = 0
    for seed in seeds:
        data = edited(GOOD, random.Random(seed))
        try:
            tokens, logps = read_completion(data, BODY, WHERE, vocab_size=vocab_size)
        except ConfigError as error:
            assert WHERE in str(error)
            refused += 1
        else:
            assert 0 < len(tokens) == len(logps) <= 4
            assert all(type(token) is int and 0 <= token < (vocab_size or 2**31) for token in tokens)
            assert all(math.isfinite(logp) and logp <= 0 for logp in logps)
    assert refused > len(seeds) / 3


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_list_of_models_is_read_or_named(seeds, monkeypatch):
    server = Endpoint(url="http://127.0.0.1:1/v1", timeout=1.0)
    for seed in seeds:
        data = edited(MODELS, random.Random(seed))
        monkeypatch.setattr(endpoint, "ask", lambda *_, data=data, **__: Answer(data, 1))
        try:
            assert all(isinstance(one.longest, int | None) for one in list_models(server))
            base_model(server, 64)
        except ConfigError as error:
            assert server.url in str(error)


def test_an_answer_nested_too_deeply_is_text():
    text = "[" * 100_000
    assert endpoint._parsed(text) == text
