"""Sliding windows run along the path of a token, not along its row: packed trees, caches and meshes agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.options import MeshConfig, ModelConfig, RopeScaling
from coevo_jax.models.attention import Window, dense_attention
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.kv_cache import init_cache
from coevo_jax.models.rotary import frequencies
from coevo_jax.models.transformer import Transformer
from coevo_jax.models.tree_attention import tree_attention, visible_blocks
from coevo_jax.sharding import make_mesh
from tests.models.rows import VOCAB, advance, forward, random_tokens, random_trees

CONFIG = ModelConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    layer_types=("sliding", "full"),
    sliding_window=20,
    sliding_rope_theta=100.0,
)


def sees(visible_until):
    """Which token sees which by the tree alone, bool [B, T, T]."""
    place = np.arange(visible_until.shape[1])
    return (place[:, None] >= place) & (place[:, None] < visible_until[:, None, :])


def along_paths(visible_until):
    """Positions: how many tokens of its path stand before a token, int32 [B, T]."""
    return (sees(visible_until).sum(axis=-1) - 1).astype(np.int32)


@pytest.mark.parametrize("attention", [tree_attention, dense_attention])
@pytest.mark.parametrize("size", [1, 7, 70])
def test_attention_within_a_window_equals_the_plain_formula_with_its_gradient(attention, size):
    rng = np.random.default_rng(size)
    shapes = [(2, 150, 4, 8), (2, 150, 2, 8), (2, 150, 2, 8)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    visible = random_trees(rng, 2, 150)
    positions = along_paths(visible)
    mask = sees(visible) & (positions[:, :, None] - positions[:, None, :] < size)
    target = rng.normal(size=shapes[0]).astype(np.float32)

    def plain(q, k, v):
        k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8)
        weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhts,bshd->bthd", weights, v)

    def windowed(q, k, v):
        return attention(q, k, v, visible, Window(jnp.asarray(positions), jnp.int32(size)))

    def value_and_gradient(function):
        def total(*arrays):
            out = function(*arrays)
            return jnp.sum(out * target), out

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)

    (_, found), gradient = value_and_gradient(windowed)
    (_, expected), expected_gradient = value_and_gradient(plain)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def test_blocks_behind_the_window_are_not_visited():
    visible = jnp.full((1, 256), 256, jnp.int32)
    positions = jnp.arange(256)[None]
    counts = [
        int(visible_blocks(visible, 32, Window(positions, jnp.int32(size)))[1]) for size in (1, 33, 10**6)
    ]
    assert counts == [8, 8 + 7, 8 * 9 // 2]


def test_branches_of_a_shared_prefix_equal_whole_rows(model, params):
    prefix, first, second = (random_tokens(seed, 1, count) for seed, count in ((1, 70), (2, 50), (3, 50)))
    packed = np.concatenate([prefix, first, second], axis=1)
    visible = np.repeat([170, 120, 170], [70, 50, 50])[None].astype(np.int32)
    positions = np.concatenate([np.arange(120), np.arange(70, 120)])[None].astype(np.int32)
    hidden = forward(model, params, packed, positions, visible)
    whole = [forward(model, params, np.concatenate([prefix, branch], axis=1)) for branch in (first, second)]
    np.testing.assert_allclose(hidden[:, :120], whole[0], atol=2e-5)
    np.testing.assert_allclose(hidden[:, 120:], whole[1][:, 70:], atol=2e-5)


def test_what_lies_behind_all_windows_changes_nothing(params):
    """Two sliding layers of 20 look back 38 tokens and no further."""
    model = Transformer(CONFIG.model_copy(update={"layer_types": ("sliding",)}), VOCAB)
    tokens = random_tokens(4, 1, 120)
    changed = tokens.copy()
    changed[0, 10] = (changed[0, 10] + 1) % VOCAB
    before, after = (np.asarray(forward(model, params, row)) for row in (tokens, changed))
    np.testing.assert_array_equal(before[:, 49:], after[:, 49:])
    assert np.abs(before[:, 44:49] - after[:, 44:49]).max() > 1e-7


def test_cached_decode_equals_the_full_forward(model, params):
    tokens = random_tokens(5, 2, 60)
    full = forward(model, params, tokens)
    cache = init_cache(CONFIG, slots=2, length=64)
    hidden, start = [], 0
    for count in (37, 1, 22):
        part = tokens[:, start : start + count]
        out, cache = advance(model, params, cache, part, np.full(2, count, np.int32))
        hidden.append(np.asarray(out))
        start += count
    np.testing.assert_allclose(np.concatenate(hidden, axis=1), full, atol=2e-5)


def test_a_mesh_changes_nothing(model, params):
    mesh = make_mesh(MeshConfig(data=2, tensor=2))
    split = Transformer(CONFIG, VOCAB, choose_attention(CONFIG, mesh))
    tokens = random_tokens(6, 2, 60)
    with jax.set_mesh(mesh):
        found = jax.jit(lambda params, tokens: forward(split, params, tokens))(params, tokens)
    np.testing.assert_allclose(found, forward(model, params, tokens), atol=2e-5)


def test_stretched_frequencies_by_hand():
    """Base 100, width 8, context 20: turns 3.18, 1.01, 0.32, 0.10; between 1 and 3 they are blended."""
    plain = np.array([1, 100**-0.25, 100**-0.5, 100**-0.75])
    scaling = RopeScaling(
        kind="llama3", factor=4, low_freq_factor=1, high_freq_factor=3, original_max_positions=20
    )
    share = (20 * plain[1] / (2 * np.pi) - 1) / 2
    expected = [1.0, plain[1] * (share + (1 - share) / 4), plain[2] / 4, plain[3] / 4]
    np.testing.assert_allclose(frequencies(8, 100.0, scaling), expected, rtol=1e-6)
    linear = RopeScaling(kind="linear", factor=2)
    np.testing.assert_allclose(frequencies(8, 100.0, linear), plain / 2, rtol=1e-6)
