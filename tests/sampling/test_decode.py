"""Sampling against numpy, and the invariants of prefill and decode over slots."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.models.kv_cache import unstack
from coevo_jax.models.transformer import output_logits
from coevo_jax.sampling.action_line import MARKER, never_stop, stop_table
from coevo_jax.sampling.decode import Prefill, Weights, decode_block, grow, init_state, prefill
from coevo_jax.sampling.draw import Filters, filters, first_maximum, keep, logps_of, sample, turn_keys
from tests.scripted_env import CONFIG, MODEL, VOCAB, random_params

PARAMS = random_params()
PREFILL = jax.jit(partial(prefill, MODEL))
DECODE = jax.jit(partial(decode_block, MODEL))
WEIGHTS = Weights(unstack(PARAMS, CONFIG))
SAMPLE, KEEP = jax.jit(sample), jax.jit(keep)


def full_logits(tokens: np.ndarray) -> np.ndarray:
    """Next-token scores after every token of one sequence, by the learner's forward pass. [L, V]"""
    row = np.zeros((1, 16), np.int32)  # one length for all: what comes later changes nothing before
    row[0, : len(tokens)] = tokens
    positions = np.arange(row.shape[1], dtype=np.int32)[None]
    hidden = jax.jit(MODEL.apply)({"params": PARAMS}, row, positions, np.full_like(row, row.shape[1]))
    return np.asarray(output_logits(PARAMS, hidden)[0, : len(tokens)])


def numpy_distribution(
    logits: np.ndarray, temperature: float, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> np.ndarray:
    """Probabilities after the filters, one sort and one filter after the other."""
    p = np.exp(logits / temperature - np.max(logits / temperature))
    p[np.argsort(-p)[top_k or len(p) :]] = 0
    p /= p.sum()
    kept, total = np.zeros_like(p), 0.0
    for token in np.argsort(-p):
        kept[token] = p[token]
        total += p[token]
        if total >= top_p:
            break
    kept[kept < min_p * kept.max()] = 0
    return kept / kept.sum()


DISTRIBUTIONS = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.5},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 1.3, "min_p": 0.3},
    {"temperature": 1.2, "top_k": 4, "top_p": 0.8, "min_p": 0.2},
]


@pytest.mark.parametrize("chosen", DISTRIBUTIONS)
def test_draws_follow_the_distribution_numpy_computes(chosen):
    logits = np.random.default_rng(0).normal(size=6).astype(np.float32) * 1.5
    draws = 20_000
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(draws))
    tokens = SAMPLE(jnp.tile(logits, (draws, 1)), keys, filters(**chosen))
    expected = numpy_distribution(logits, **chosen)
    found = np.bincount(np.asarray(tokens), minlength=6) / draws
    assert np.all(found[expected == 0] == 0)
    np.testing.assert_allclose(found, expected, atol=0.015)


@pytest.mark.parametrize("seed", range(4))
def test_filters_keep_what_a_sort_keeps(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, 300)).astype(np.float32) * rng.uniform(0.1, 20)
    logits[0, 7], logits[1] = 0.0, -np.abs(logits[1])
    for chosen in ({"top_k": 7}, {"top_p": 0.6}, {"min_p": 0.1}, {"top_k": 40, "top_p": 0.9, "min_p": 0.02}):
        kept = np.isfinite(np.asarray(KEEP(logits, filters(1.0, **chosen))))
        for row, scores in zip(kept, logits, strict=True):
            expected = numpy_distribution(scores.astype(np.float64), 1.0, **chosen)
            np.testing.assert_array_equal(row, expected > 0)


def test_logps_are_those_of_the_whole_distribution():
    logits = np.random.default_rng(0).normal(size=(3, 9)).astype(np.float32) * 4
    tokens = np.array([0, 5, 8])
    expected = [
        np.log(numpy_distribution(row, 1.0)[token]) for row, token in zip(logits, tokens, strict=True)
    ]
    np.testing.assert_allclose(logps_of(jnp.array(logits), jnp.array(tokens)), expected, atol=1e-5)


def test_filters_hold_per_slot():
    logits = jnp.log(jnp.array([[0.4, 0.35, 0.25]] * 400))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2), jnp.arange(400))
    chosen = Filters(
        temperature=jnp.repeat(jnp.array([0.0, 1.0, 1.0, 1.0]), 100),
        top_k=jnp.repeat(jnp.array([0, 0, 0, 1]), 100),
        top_p=jnp.repeat(jnp.array([1.0, 0.5, 1.0, 1.0]), 100),
        min_p=jnp.zeros(400),
    )
    tokens = np.asarray(sample(logits, keys, chosen))
    assert [set(tokens[start : start + 100]) for start in (0, 100, 200, 300)] == [
        {0},
        {0, 1},
        {0, 1, 2},
        {0},
    ]


def test_equal_scores_stay_or_go_together_and_the_likeliest_always_stays():
    scores = jnp.log(jnp.array([[0.3, 0.1, 0.3, 0.3], [0.1, 0.5, 0.15, 0.25]]))
    assert np.isfinite(KEEP(scores, filters(1.0, top_k=2))).tolist() == [
        [True, False, True, True],
        [False, True, False, True],
    ]
    assert np.isfinite(KEEP(scores, filters(1.0, top_p=1e-6))).tolist() == [
        [True, False, True, True],
        [False, True, False, False],
    ]


def test_the_first_of_equal_maxima_is_taken():
    scores = jnp.array([[1.0, 3.0, 3.0], [-jnp.inf, -2.0, -jnp.inf]])
    assert first_maximum(scores).tolist() == [1, 1]


def test_turn_keys_differ_in_every_part():
    ids = [[p, a, b, c] for p in (0, 3) for a in (0, 1, 2**32 - 1) for b in (0, 1) for c in (0, 1)]
    data = np.asarray(jax.random.key_data(turn_keys(jax.random.key(0), jnp.array(ids, jnp.uint32))))
    assert len({tuple(row) for row in data.tolist()}) == len(ids)


def test_prefill_in_chunks_over_some_slots_equals_the_full_forward():
    rng = np.random.default_rng(3)
    texts = {0: rng.integers(0, VOCAB, 11), 2: rng.integers(0, VOCAB, 5)}
    state = init_state(CONFIG, VOCAB, 3, 16)
    nothing = np.zeros(2, np.int32)
    steps = [  # rows (3 is unused), starts, valid; the first fills slot 2 with text that is then forgotten
        ([2, 3], [0, 0], [[9, 9, 9, 9, 9, 9], [0] * 6], [6, 0]),
        ([0, 2], [0, 0], [texts[0][:6], [*texts[2], 7]], [6, 5]),
        ([3, 0], [0, 6], [[0] * 6, [*texts[0][6:], 7]], [0, 5]),
    ]
    for rows, starts, tokens, valid in steps:
        arrays = [np.array(part, np.int32) for part in (rows, rows, starts, tokens, valid)]
        state, _ = PREFILL(WEIGHTS, state, Prefill(*arrays, nothing))
    assert state.cache.lengths.tolist() == [11, 0, 5]
    for slot, text in texts.items():
        np.testing.assert_allclose(state.logits[slot], full_logits(text)[-1], atol=1e-4)
    assert not np.any(state.logits[1])


def test_a_row_may_begin_as_a_copy_of_another():
    rng = np.random.default_rng(4)
    text, other = rng.integers(0, VOCAB, 9), rng.integers(0, VOCAB, 3)
    state = init_state(CONFIG, VOCAB, 3, 16)

    def row(slot, source, start, tokens):
        padded = np.pad(tokens, (0, 9 - len(tokens)))[None]
        numbers = [np.array([n], np.int32) for n in (slot, source, start)]
        return Prefill(*numbers, padded.astype(np.int32), np.array([len(tokens)]), np.array([0]))

    state, _ = PREFILL(WEIGHTS, state, row(1, 1, 0, text))
    state, _ = PREFILL(WEIGHTS, state, row(2, 1, 6, other))
    assert state.cache.lengths.tolist() == [0, 9, 9]
    expected = full_logits(np.concatenate([text[:6], other]))[-1]
    np.testing.assert_allclose(state.logits[2], expected, atol=1e-4)
    np.testing.assert_allclose(state.logits[1], full_logits(text)[-1], atol=1e-4)


def decode(state, budgets, script, *, quota=9, temperature=1.0, end_id=1, stop=None):
    slots = len(budgets)
    ids = np.zeros((slots, 4), np.uint32)
    ids[:, 1] = np.arange(slots)
    root = jax.random.key(0)
    return DECODE(
        WEIGHTS,
        state,
        jnp.array(budgets, jnp.int32),
        jnp.array(script, jnp.int32),
        ids,
        root,
        filters(temperature),
        end_id,
        never_stop() if stop is None else stop,
        quota,
    )


def start(length=16):
    slots = 4
    state = init_state(CONFIG, VOCAB, slots, length)
    rows, tokens = np.arange(slots, dtype=np.int32), np.full((slots, 2), 5, np.int32)
    nothing = np.zeros(slots, np.int32)
    return PREFILL(WEIGHTS, state, Prefill(rows, rows, nothing, tokens, np.full(slots, 2), nothing))[0]


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
    assert (long.cache.keys[0].shape[3], long.cache.values[0].shape[2]) == (16, 16)
    np.testing.assert_array_equal(
        decode(short, [6] * 4, np.full((4, 6), -1))[1].tokens,
        decode(long, [6] * 4, np.full((4, 6), -1))[1].tokens,
    )


def ends_after(texts, written):
    """Number of tokens after which the table ends a turn; None where it goes on."""
    table, state = stop_table(texts), 0
    for count, text in enumerate(written, start=1):
        state = int(table[state, texts.index(text)])
        if state == len(table):
            return count
    return None


def test_a_turn_stops_at_the_end_of_its_actions_line_however_it_is_cut_into_tokens():
    texts = [
        "\n",
        " ",
        "a",
        "Act",
        "ion",
        ":",
        "Action:",
        "A",
        "x\n",
        "Action: b\nc",
        "Act\n",
        ": q",
        "AAction:",
    ]
    assert ends_after(texts, ["a", "\n", "Act", "ion", ":", " ", "a", "a", "\n", "a"]) == 9
    assert ends_after(texts, ["Action:", "\n", "a", "x\n"]) == 4  # an action may begin on the next line
    assert ends_after(texts, ["a", "Action: b\nc"]) == 2
    assert ends_after(texts, ["Act\n", "ion", ": q", "\n"]) is None
    assert ends_after(texts, ["A", "Action:", "a", "\n"]) == 4
    assert ends_after(texts, ["AAction:", " ", "\n", "\n"]) is None  # nothing but spaces is no action yet
    assert MARKER in texts


def test_the_device_follows_the_table_and_remembers_its_state_between_blocks():
    stop = np.zeros((2, VOCAB), np.int8)  # any two tokens end a turn: 0 -> 1 -> end
    stop[0], stop[1] = 1, 2
    state, first = decode(
        start(), [1, 6, 0, 6], [[-1] * 6, [-1] * 6, [-1] * 6, [7] * 6], end_id=-5, stop=stop
    )
    assert first.counts.tolist() == [1, 2, 0, 6]  # scripted tokens never stop
    assert first.ended.tolist() == [False, True, False, False]
    _, second = decode(state, [6, 0, 6, 0], np.full((4, 6), -1), end_id=-5, stop=stop)
    assert (second.counts.tolist(), second.ended.tolist()) == ([1, 0, 2, 0], [True, False, True, False])
