"""Sampling against numpy, and the invariants of prefill and decode over slots."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.models.transformer import output_logits
from coevo_jax.sampling.decode import decode_block, grow, init_state, nucleus, prefill, sample, turn_keys
from tests.scripted_env import CONFIG, MODEL, VOCAB, random_params

PARAMS = random_params()
PREFILL = jax.jit(partial(prefill, MODEL))
DECODE = jax.jit(partial(decode_block, MODEL))


def full_logits(tokens: np.ndarray) -> np.ndarray:
    """Next-token scores after every token of one sequence, by the learner's forward pass. [L, V]"""
    row = np.zeros((1, 16), np.int32)  # one length for all: what comes later changes nothing before
    row[0, : len(tokens)] = tokens
    positions = np.arange(row.shape[1], dtype=np.int32)[None]
    hidden = jax.jit(MODEL.apply)({"params": PARAMS}, row, positions, np.full_like(row, row.shape[1]))
    return np.asarray(output_logits(PARAMS, hidden)[0, : len(tokens)])


def numpy_distribution(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    p = np.exp(logits / temperature - np.max(logits / temperature))
    p /= p.sum()
    kept, total = np.zeros_like(p), 0.0
    for token in np.argsort(-p):
        kept[token] = p[token]
        total += p[token]
        if total >= top_p:
            break
    return kept / kept.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.5, 0.5)])
def test_draws_follow_the_distribution_numpy_computes(temperature, top_p):
    logits = np.random.default_rng(0).normal(size=6).astype(np.float32) * 1.5
    draws = 20_000
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(draws))
    tokens, logps = jax.jit(sample)(jnp.tile(logits, (draws, 1)), keys, temperature, top_p)
    expected = numpy_distribution(logits, temperature, top_p)
    found = np.bincount(np.asarray(tokens), minlength=6) / draws
    assert np.all(found[expected == 0] == 0)
    np.testing.assert_allclose(found, expected, atol=0.015)
    unfiltered = np.log(numpy_distribution(logits, 1.0, 1.0))
    np.testing.assert_allclose(np.asarray(logps[0]), unfiltered, atol=1e-5)


def test_temperature_and_top_p_hold_per_slot():
    logits = jnp.log(jnp.array([[0.4, 0.35, 0.25]] * 300))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2), jnp.arange(300))
    temperature = jnp.repeat(jnp.array([0.0, 1.0, 1.0]), 100)
    top_p = jnp.repeat(jnp.array([1.0, 0.5, 1.0]), 100)
    tokens = np.asarray(sample(logits, keys, temperature, top_p)[0])
    assert set(tokens[:100]) == {0}
    assert set(tokens[100:200]) == {0, 1}
    assert set(tokens[200:]) == {0, 1, 2}


def test_the_nucleus_by_hand():
    scores = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]] * 3))
    kept = np.isfinite(np.asarray(nucleus(scores, jnp.array([0.4, 0.6, 0.8]))))
    assert kept.tolist() == [
        [False, True, False, False],
        [False, True, False, True],
        [False, True, True, True],
    ]


def test_turn_keys_differ_in_every_part():
    ids = [[a, b, c] for a in (0, 1, 2**32 - 1) for b in (0, 1) for c in (0, 1)]
    data = np.asarray(jax.random.key_data(turn_keys(jax.random.key(0), jnp.array(ids, jnp.uint32))))
    assert len({tuple(row) for row in data.tolist()}) == len(ids)


def test_prefill_in_chunks_over_some_slots_equals_the_full_forward():
    rng = np.random.default_rng(3)
    texts = {0: rng.integers(0, VOCAB, 11), 2: rng.integers(0, VOCAB, 5)}
    state = init_state(CONFIG, VOCAB, 3, 16)
    steps = [  # rows (3 is unused), valid, fresh; the first fills slot 2 with text that is then forgotten
        ([2, 3], [[9, 9, 9, 9, 9, 9], [0] * 6], [6, 0], [True, False]),
        ([0, 2], [texts[0][:6], [*texts[2], 7]], [6, 5], [True, True]),
        ([3, 0], [[0] * 6, [*texts[0][6:], 7]], [0, 5], [False, False]),
    ]
    for rows, tokens, valid, fresh in steps:
        arrays = (np.array(rows, np.int32), np.array(tokens, np.int32), np.array(valid), np.array(fresh))
        state = PREFILL(PARAMS, state, *arrays)
    assert state.cache.lengths.tolist() == [11, 0, 5]
    for slot, text in texts.items():
        np.testing.assert_allclose(state.logits[slot], full_logits(text)[-1], atol=1e-4)
    assert not np.any(state.logits[1])


def decode(state, budgets, script, *, quota=9, temperature=1.0, end_id=1):
    slots = len(budgets)
    ids = jnp.stack([jnp.arange(slots), jnp.zeros(slots), jnp.zeros(slots)], axis=1).astype(jnp.uint32)
    root = jax.random.key(0)
    return DECODE(
        PARAMS,
        state,
        jnp.array(budgets, jnp.int32),
        jnp.array(script, jnp.int32),
        ids,
        root,
        temperature,
        1.0,
        end_id,
        quota,
    )


def start(length=16):
    slots = 4
    state = init_state(CONFIG, VOCAB, slots, length)
    rows, tokens = np.arange(slots, dtype=np.int32), np.full((slots, 2), 5, np.int32)
    return PREFILL(PARAMS, state, rows, tokens, np.full(slots, 2), np.ones(slots, bool))


def test_slots_stop_at_the_end_token_the_budget_and_the_quota():
    script = [[7, 1, 7, 7, 7, 7], [7, 7, 7, 7, 7, 7], [7, 7, 7, 1, 7, 7], [7, 7, 7, 7, 7, 7]]
    state, out = decode(start(), [5, 3, 5, 0], script)
    assert out.counts.tolist() == [2, 3, 4, 0]
    assert out.ended.tolist() == [True, False, True, False]
    assert int(out.iterations) == 4
    assert state.cache.lengths.tolist() == [4, 5, 6, 2]
    assert out.tokens[2, :4].tolist() == [7, 7, 7, 1]
    assert int(decode(start(), [5, 3, 5, 0], script, quota=1)[1].iterations) == 2
    assert int(decode(start(), [5, 3, 5, 0], script, quota=2)[1].iterations) == 3
    assert int(decode(start(), [0, 0, 0, 0], script)[1].iterations) == 0
    assert int(decode(start(), [9, 9, 9, 9], np.full((4, 6), 7))[1].iterations) == 6


def test_every_produced_token_enters_the_cache_the_end_token_too():
    script = [[7, 8, 1, -1, -1, -1], [-1] * 6, [-1] * 6, [1, *[-1] * 5]]
    state, out = decode(start(), [4, 4, 6, 6], script)
    for slot, count in enumerate(out.counts.tolist()):
        tokens = np.concatenate([[5, 5], out.tokens[slot, :count]])
        logits = full_logits(tokens)
        np.testing.assert_allclose(state.logits[slot], logits[-1], atol=1e-4)
        logps = jax.nn.log_softmax(logits[1:-1])[np.arange(count), tokens[2:]]
        np.testing.assert_allclose(out.logps[slot, :count], logps, atol=1e-4)


def test_blocks_of_any_size_draw_the_same_tokens():
    _, whole = decode(start(), [6] * 4, np.full((4, 6), -1), end_id=-5)
    state, parts = start(), []
    for size in (1, 3, 2):
        state, out = decode(state, [size] * 4, np.full((4, 6), -1), end_id=-5)
        parts.append(out.tokens[:, :size])
    np.testing.assert_array_equal(whole.tokens, np.concatenate(parts, axis=1))
    assert len({tuple(row) for row in whole.tokens.tolist()}) == 4


def test_growing_keeps_what_the_slots_hold():
    short, long = start(8), grow(start(8), 16)
    assert long.cache.keys[0].shape[2] == 16
    np.testing.assert_array_equal(
        decode(short, [6] * 4, np.full((4, 6), -1))[1].tokens,
        decode(long, [6] * 4, np.full((4, 6), -1))[1].tokens,
    )
