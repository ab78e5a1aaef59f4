"""Properties of the transformer: packing changes nothing, the cache equals the full pass, nothing leaks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config import ModelConfig
from coevo_jax.models.attention import packed_attention
from coevo_jax.models.kv_cache import forward_cached, init_cache
from coevo_jax.models.transformer import Transformer, init_params, output_logits

CONFIG = ModelConfig(
    hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)
VOCAB = 50


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def params(model):
    return nn.unbox(init_params(model, jax.random.key(0)))


def forward(model, params, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return model.apply({"params": params}, tokens, positions, jnp.ones_like(tokens))


def random_tokens(seed, *shape):
    return np.random.default_rng(seed).integers(0, VOCAB, shape).astype(np.int32)


def test_packed_segments_equal_separate_rows(model, params):
    first, second = random_tokens(1, 1, 150), random_tokens(2, 1, 60)
    packed = np.concatenate([first, second, np.zeros((1, 14), np.int32)], axis=1)
    segment_ids = np.repeat([1, 2, 0], [150, 60, 14])[None].astype(np.int32)
    positions = np.concatenate([np.arange(150), np.arange(60), np.arange(14)])[None].astype(np.int32)
    hidden = model.apply({"params": params}, packed, positions, segment_ids)
    np.testing.assert_allclose(hidden[:, :150], forward(model, params, first), atol=2e-5)
    np.testing.assert_allclose(hidden[:, 150:210], forward(model, params, second), atol=2e-5)


def test_attention_is_causal(model, params):
    tokens = random_tokens(3, 1, 200)
    changed = tokens.copy()
    changed[0, 140] = (changed[0, 140] + 1) % VOCAB
    before, after = forward(model, params, tokens), forward(model, params, changed)
    np.testing.assert_array_equal(before[:, :140], after[:, :140])
    assert np.abs(np.asarray(before[:, 140:] - after[:, 140:])).max() > 1e-3


def test_blocked_attention_equals_the_plain_formula():
    rng = np.random.default_rng(4)
    q, k, v = (rng.normal(size=(2, 300, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    segment_ids = np.sort(rng.integers(1, 4, (2, 300)), axis=1).astype(np.int32)
    found = packed_attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), jnp.asarray(segment_ids))
    k, v = np.repeat(k, 2, axis=2), np.repeat(v, 2, axis=2)
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8)
    visible = np.tril(np.ones((300, 300), bool)) & (segment_ids[:, :, None] == segment_ids[:, None, :])
    scores = np.where(visible[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, np.einsum("bhts,bshd->bthd", weights, v), atol=1e-5)


def test_cached_decode_equals_the_full_forward(model, params):
    tokens = random_tokens(5, 3, 40)
    full = forward(model, params, tokens)
    cache = init_cache(CONFIG, slots=3, length=48)
    step = jax.jit(forward_cached, static_argnums=0)
    hidden, start = [], 0
    for count in (17, 1, 1, 20, 1):
        part = np.pad(tokens[:, start : start + count], ((0, 0), (0, 3)), constant_values=7)
        out, cache = step(model, params, cache, part, np.full(3, count, np.int32))
        hidden.append(np.asarray(out[:, :count]))
        start += count
    np.testing.assert_array_equal(cache.lengths, [40, 40, 40])
    np.testing.assert_allclose(np.concatenate(hidden, axis=1), full, atol=2e-5)


def test_slots_advance_on_their_own_and_never_write_past_the_end(model, params):
    tokens = random_tokens(6, 2, 10)
    cache = init_cache(CONFIG, slots=2, length=10)
    _, cache = forward_cached(model, params, cache, tokens[:, :8], np.array([8, 3], np.int32))
    part = np.stack([np.pad(tokens[0, 8:], (0, 5)), tokens[1, 3:10]])
    out, cache = forward_cached(model, params, cache, part, np.array([2, 7], np.int32))
    np.testing.assert_array_equal(cache.lengths, [10, 10])
    full = forward(model, params, tokens)
    np.testing.assert_allclose(out[0, :2], full[0, 8:], atol=2e-5)
    np.testing.assert_allclose(out[1], full[1, 3:], atol=2e-5)


@pytest.mark.parametrize("changes", [{"remat": "full"}, {"tie_embeddings": False}, {"qk_norm": False}])
def test_switches_build_and_differ_only_where_they_should(changes):
    other = Transformer(CONFIG.model_copy(update=changes), VOCAB)
    params = nn.unbox(init_params(other, jax.random.key(0)))
    tokens = random_tokens(7, 2, 20)
    logits = output_logits(params, forward(other, params, tokens))
    assert logits.shape == (2, 20, VOCAB) and np.isfinite(logits).all()
    assert ("head" in params) == (changes.get("tie_embeddings") is False)
    if changes == {"remat": "full"}:
        plain = Transformer(CONFIG, VOCAB)
        np.testing.assert_allclose(forward(other, params, tokens), forward(plain, params, tokens), atol=1e-6)


def test_bfloat16_computes_close_to_float32_with_float32_logits(model, params):
    low = Transformer(CONFIG.model_copy(update={"dtype": "bfloat16"}), VOCAB)
    tokens = random_tokens(8, 2, 30)
    hidden = forward(low, params, tokens)
    assert hidden.dtype == jnp.bfloat16
    logits = output_logits(params, hidden)
    assert logits.dtype == jnp.float32
    full = output_logits(params, forward(model, params, tokens))
    assert np.abs(np.asarray(logits - full)).mean() < 0.03 * np.abs(np.asarray(full)).mean() + 0.02
