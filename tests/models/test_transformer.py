"""Properties of the transformer: packing changes nothing, the cache equals the full pass, nothing leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.options import ModelConfig
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.kv_cache import init_cache
from coevo_jax.models.linear import linear
from coevo_jax.models.remat import KEPT
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.models.tree_attention import tree_attention, visible_blocks
from tests.fresh import fresh_params
from tests.models.rows import VOCAB, advance, forward, plain_attention, random_tokens, random_trees

CONFIG = ModelConfig(
    hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)


def test_packed_trajectories_equal_separate_rows(model, params):
    first, second = random_tokens(1, 1, 150), random_tokens(2, 1, 60)
    packed = np.concatenate([first, second, np.zeros((1, 14), np.int32)], axis=1)
    visible = np.concatenate([np.full(150, 150), np.full(60, 210), np.arange(210, 224) + 1])[None]
    positions = np.concatenate([np.arange(150), np.arange(60), np.arange(14)])[None].astype(np.int32)
    hidden = forward(model, params, packed, positions, visible.astype(np.int32))
    np.testing.assert_allclose(hidden[:, :150], forward(model, params, first), atol=2e-5)
    np.testing.assert_allclose(hidden[:, 150:210], forward(model, params, second), atol=2e-5)


def test_branches_of_a_shared_prefix_equal_whole_rows(model, params):
    """A prefix of 70 with branches of 80 and 50: a branch never sees its sibling."""
    prefix, first, second = (random_tokens(seed, 1, count) for seed, count in ((1, 70), (2, 80), (3, 50)))
    packed = np.concatenate([prefix, first, second], axis=1)
    visible = np.repeat([200, 150, 200], [70, 80, 50])[None].astype(np.int32)
    positions = np.concatenate([np.arange(150), np.arange(70, 120)])[None].astype(np.int32)
    hidden = forward(model, params, packed, positions, visible)
    whole = [forward(model, params, np.concatenate([prefix, branch], axis=1)) for branch in (first, second)]
    np.testing.assert_allclose(hidden[:, :150], whole[0], atol=2e-5)
    np.testing.assert_allclose(hidden[:, 150:], whole[1][:, 70:], atol=2e-5)


def test_attention_is_causal(model, params):
    tokens = random_tokens(3, 1, 200)
    changed = tokens.copy()
    changed[0, 140] = (changed[0, 140] + 1) % VOCAB
    before, after = forward(model, params, tokens), forward(model, params, changed)
    np.testing.assert_array_equal(before[:, :140], after[:, :140])
    assert np.abs(np.asarray(before[:, 140:] - after[:, 140:])).max() > 1e-3


@pytest.mark.parametrize("attention", [tree_attention, dense_attention])
@pytest.mark.parametrize(("length", "heads", "kv_heads"), [(300, 4, 2), (128, 2, 2), (40, 3, 1)])
def test_attention_equals_the_plain_formula_with_its_gradient(attention, length, heads, kv_heads):
    rng = np.random.default_rng(length)
    shapes = [(2, length, heads, 8), (2, length, kv_heads, 8), (2, length, kv_heads, 8)]
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    visible = random_trees(rng, 2, length)
    target = rng.normal(size=shapes[0]).astype(np.float32)

    def value_and_gradient(function):
        def total(q, k, v):
            out = function(q, k, v, visible)
            return jnp.sum(out * target), out

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    (_, found), found_gradient = value_and_gradient(attention)
    (_, expected), expected_gradient = value_and_gradient(plain_attention)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(found_gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def test_only_blocks_with_something_to_see_are_visited():
    visible = random_trees(np.random.default_rng(9), 3, 64)
    pairs, count = visible_blocks(jnp.asarray(visible), 8)
    place = np.arange(64)
    seen = (place[:, None] >= place) & (place[:, None] < visible[:, None, :])
    expected = np.argwhere(seen.reshape(3, 8, 8, 8, 8).any(axis=(2, 4)))
    np.testing.assert_array_equal(pairs[: int(count)], expected)
    siblings = np.concatenate([np.full(64, 64), np.full(64, 128)])[None].astype(np.int32)
    assert int(visible_blocks(jnp.asarray(siblings), 32)[1]) == 6  # three for each of two trajectories


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_and_its_backward_pass_equal_automatic_differentiation(dtype):
    rng = np.random.default_rng(0)
    for tokens, inner, outer in ((5, 6, 10), (5, 10, 6), (700, 64, 32)):
        x = jnp.asarray(rng.normal(size=(2, tokens, inner)), dtype)
        weight = jnp.asarray(rng.normal(size=(inner, outer)), jnp.float32)
        dy = jnp.asarray(rng.normal(size=(2, tokens, outer)), dtype) / tokens
        found, pull = jax.jit(lambda x, w: jax.vjp(linear, x, w))(x, weight)
        expected, plain_pull = jax.vjp(lambda x, w: x @ w.astype(x.dtype), x, weight)
        tolerance = {"rtol": 2e-2, "atol": 5e-2} if dtype == "bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(found, expected, **tolerance)
        for one, other in zip(jax.jit(pull)(dy), plain_pull(dy), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), **tolerance)


def test_cached_decode_equals_the_full_forward(model, params):
    tokens = random_tokens(5, 3, 40)
    full = forward(model, params, tokens)
    cache = init_cache(CONFIG, slots=3, length=48)
    hidden, start = [], 0
    for count in (17, 1, 1, 20, 1):
        part = np.pad(tokens[:, start : start + count], ((0, 0), (0, 3)), constant_values=7)
        out, cache = advance(model, params, cache, part, np.full(3, count, np.int32))
        hidden.append(np.asarray(out[:, :count]))
        start += count
    np.testing.assert_array_equal(cache.lengths, [40, 40, 40])
    np.testing.assert_allclose(np.concatenate(hidden, axis=1), full, atol=2e-5)


def test_slots_advance_on_their_own_and_never_write_past_the_end(model, params):
    tokens = random_tokens(6, 2, 10)
    cache = init_cache(CONFIG, slots=2, length=10)
    _, cache = advance(model, params, cache, tokens[:, :8], np.array([8, 3], np.int32))
    part = np.stack([np.pad(tokens[0, 8:], (0, 5)), tokens[1, 3:10]])
    out, cache = advance(model, params, cache, part, np.array([2, 7], np.int32))
    np.testing.assert_array_equal(cache.lengths, [10, 10])
    full = forward(model, params, tokens)
    np.testing.assert_allclose(out[0, :2], full[0, 8:], atol=2e-5)
    np.testing.assert_allclose(out[1], full[1, 3:], atol=2e-5)


@pytest.mark.parametrize("changes", [{"tie_embeddings": False}, {"qk_norm": False}])
def test_switches_build_and_differ_only_where_they_should(changes):
    other = Transformer(CONFIG.model_copy(update=changes), VOCAB)
    params = fresh_params(other)
    tokens = random_tokens(7, 2, 20)
    logits = output_logits(params, forward(other, params, tokens))
    assert logits.shape == (2, 20, VOCAB) and np.isfinite(logits).all()
    assert ("head" in params) == (changes.get("tie_embeddings") is False)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [tree_attention, pytest.param(dense_attention, marks=pytest.mark.slow)])
def test_a_remat_policy_changes_what_is_kept_and_nothing_else(params, attention):
    tokens = random_tokens(7, 2, 20)

    def compiled(policy):
        model = Transformer(CONFIG.model_copy(update={"remat": policy}), VOCAB, attention)
        gradient = jax.jit(jax.grad(lambda params: jnp.square(forward(model, params, tokens)).sum()))
        program = gradient.lower(params).compile()
        return program(params), program.memory_analysis().temp_size_in_bytes

    expected, everything = compiled("none")
    sizes = []
    for policy in KEPT:
        found, size = compiled(policy)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-5), found, expected)
        sizes.append(size)
    assert everything > sizes[0] > sizes[1] > sizes[2]


def test_bfloat16_computes_close_to_float32_with_float32_logits(model, params):
    low = Transformer(CONFIG.model_copy(update={"dtype": "bfloat16"}), VOCAB)
    tokens = random_tokens(8, 2, 30)
    hidden = forward(low, params, tokens)
    assert hidden.dtype == jnp.bfloat16
    logits = output_logits(params, hidden)
    assert logits.dtype == jnp.float32
    full = output_logits(params, forward(model, params, tokens))
    assert np.abs(np.asarray(logits - full)).mean() < 0.03 * np.abs(np.asarray(full)).mean() + 0.02
