"""The kernels of attention for NVIDIA GPUs, interpreted: equal to dense attention, outputs and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.attention import ROWS, row_of
from coevo_jax.config.options import ModelConfig
from coevo_jax.models.attention import Window, dense_attention
from coevo_jax.models.attention_kinds import PreparedAttention
from coevo_jax.models.flash_attention_gpu import (
    Places,
    block_length,
    block_lists,
    flash_attention_gpu,
    prepare,
)
from coevo_jax.models.transformer import Transformer, init_params
from tests.models.rows import (
    assert_bfloat16_is_close,
    assert_what_no_query_sees_is_not_read,
    forward,
    path_positions,
    random_arrays,
    random_tokens,
    random_trees,
    value_and_gradient,
)


def assert_equals_dense(*shape, window=None):
    arrays, visible, cotangent = random_arrays(*shape)
    back = () if window is None else (Window(jnp.asarray(path_positions(visible)), jnp.int32(window)),)

    def both(attention):
        return value_and_gradient(lambda *x: attention(*x, *back), arrays, visible, cotangent)

    (found, found_gradient), (expected, expected_gradient) = both(flash_attention_gpu), both(dense_attention)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(found_gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def test_kernels_equal_dense_attention_with_its_gradient():
    assert_equals_dense(2, 150, 4, 2, 8, window=30)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 90])
@pytest.mark.parametrize(
    "shape",
    [(3, 500, 8, 8, 64), (2, 320, 6, 2, 128), (1, 450, 7, 1, 64), (1, 300, 3, 1, 96), (1, 130, 2, 1, 256)],
)
def test_kernels_equal_dense_attention_in_other_shapes(shape, window):
    assert_equals_dense(*shape, window=window)


def test_bfloat16_inputs_give_bfloat16_close_to_float32():
    assert_bfloat16_is_close(flash_attention_gpu, dense_attention, 1, 130, 2, 1, 16)


@pytest.mark.parametrize("window", [None, 5, 11])
def test_lists_name_the_blocks_that_are_seen_whole_then_those_seen_in_part(window):
    visible = random_trees(np.random.default_rng(9), 3, 64)
    positions, place = path_positions(visible), np.arange(64)
    seen = (place[:, None] >= place) & (place[:, None] < visible[:, None, :])
    if window is not None:
        seen &= positions[:, :, None] - positions[:, None, :] < window
    blocks = seen.reshape(3, 8, 8, 8, 8)
    whole, some = blocks.all(axis=(2, 4)), blocks.any(axis=(2, 4))
    told = (None, None) if window is None else (jnp.asarray(positions), jnp.asarray([window]))
    listed = block_lists(Places(jnp.asarray(visible), *told), 8)
    for lists, whole_nn, some_nn in zip(
        listed, (whole, whole.swapaxes(1, 2)), (some, some.swapaxes(1, 2)), strict=True
    ):
        order, counts = (np.asarray(x) for x in lists)
        for row, block in np.ndindex(3, 8):
            first, second = counts[row, block]
            assert set(order[row, block, :first]) <= set(np.flatnonzero(whole_nn[row, block]))
            found = set(order[row, block, : first + second])
            needed = set(np.flatnonzero(some_nn[row, block]))
            assert needed <= found if window is not None else needed == found  # bounds of a window are rough
            if window is None:
                assert set(order[row, block, :first]) == set(np.flatnonzero(whole_nn[row, block]))


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("kind", ROWS)
def test_the_work_is_at_most_a_tenth_above_that_of_the_visible_blocks(kind, window):
    visible, place = row_of(kind, 2048)[None], np.arange(2048)
    positions = path_positions(visible)
    seen = (place[:, None] >= place) & (place[:, None] < visible[:, None, :])
    if window is not None:
        seen &= positions[:, :, None] - positions[:, None, :] < window
    needed = seen.reshape(1, 32, 64, 32, 64).any(axis=(2, 4)).sum()
    told = (None, None) if window is None else (jnp.asarray(positions), jnp.asarray([window]))
    for lists in block_lists(Places(jnp.asarray(visible), *told), 64):
        assert needed <= lists.counts_Bn2.sum() <= 1.1 * needed


def test_what_no_query_sees_is_not_read():
    assert_what_no_query_sees_is_not_read(flash_attention_gpu, 64)


def test_wide_heads_have_shorter_blocks():
    assert [block_length(width, "bfloat16") for width in (16, 64, 128, 256)] == [64, 64, 64, 32]
    assert [block_length(width, "float32") for width in (16, 64, 128)] == [64, 64, 32]


@pytest.mark.slow
def test_a_model_that_prepares_once_for_all_layers_has_the_hidden_states_of_dense_attention():
    config = ModelConfig(num_layers=3, hidden_size=32, num_heads=4, num_kv_heads=2, head_dim=8)
    dense = Transformer(config, 11, dense_attention)
    params = nn.unbox(init_params(dense, jax.random.key(0)))
    visible = random_trees(np.random.default_rng(5), 2, 70)
    arrays = (random_tokens(1, 2, 70) % 11, path_positions(visible), jnp.asarray(visible))
    expected = forward(dense, params, *arrays)
    found = forward(Transformer(config, 11, PreparedAttention(flash_attention_gpu, prepare)), params, *arrays)
    np.testing.assert_allclose(found, expected, atol=1e-5)
