"""Random rows of tokens, alone and as trees, and the passes over them that tests compare."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.models.kv_cache import forward_cached

VOCAB = 50

advance = jax.jit(forward_cached, static_argnums=0)


@partial(jax.jit, static_argnums=0)  # operation by operation, every call would compile its loops again
def forward(model, params, tokens, positions=None, visible=None):
    """Hidden states; of whole rows, if `positions` and `visible` are not given."""
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        visible = jnp.full_like(tokens, tokens.shape[1])
    return model.apply({"params": params}, tokens, positions, visible)


def random_tokens(seed, *shape):
    return np.random.default_rng(seed).integers(0, VOCAB, shape).astype(np.int32)


def random_trees(rng, rows, length):
    """visible_until of rows of random forests in depth-first order, padding at the end."""

    def fill(visible, start, stop):
        while start < stop:
            end = int(rng.integers(start + 1, stop + 1))
            own = int(rng.integers(start + 1, end + 1))
            visible[start:own] = end
            fill(visible, own, end)
            start = end

    visible = np.tile(np.arange(length, dtype=np.int32) + 1, (rows, 1))
    for row in visible:
        fill(row, 0, int(rng.integers(1, length + 1)))
    return visible


def plain_attention(q, k, v, visible_until):
    """The formula on whole matrices."""
    k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    place = np.arange(q.shape[1])
    visible = (place[:, None] >= place) & (place[:, None] < visible_until[:, None, :])
    weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def path_positions(visible_until):
    """The place of each token on the path from its tree's root, of rows in depth-first order."""
    positions = np.zeros_like(visible_until)
    for row, found in zip(visible_until, positions, strict=True):
        above: list[int] = []
        for place in range(row.shape[0]):
            while above and row[above[-1]] <= place:
                above.pop()
            found[place] = len(above)
            above.append(place)
    return positions


def value_and_gradient(function, arrays, visible, cotangent):
    """The output, and the gradient of its product with a cotangent."""

    def total(q, k, v):
        out = function(q, k, v, visible)
        return jnp.sum(out.astype(jnp.float32) * cotangent), out

    (_, out), gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return out, gradient


def random_arrays(rows, length, heads, kv_heads, width):
    """Queries, keys and values; random forests; a cotangent."""
    rng = np.random.default_rng([rows, length, heads])
    shapes = [(rows, length, heads, width), *[(rows, length, kv_heads, width)] * 2]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return arrays, random_trees(rng, rows, length), rng.normal(size=shapes[0]).astype(np.float32)


def assert_what_no_query_sees_is_not_read(attention, block):
    """Keys and values of an invisible block may be anything, NaN too."""
    arrays, _, _ = random_arrays(1, 3 * block, 2, 1, 8)
    visible = np.repeat([block, 2 * block, 3 * block], block)[None].astype(np.int32)
    expected = attention(*arrays, visible)
    poisoned = [x.copy() for x in arrays]
    for x in poisoned[1:]:
        x[:, block : 2 * block] = np.nan
    found = np.asarray(attention(*poisoned, visible))
    np.testing.assert_array_equal(found[:, :block], expected[:, :block])
    np.testing.assert_array_equal(found[:, 2 * block :], expected[:, 2 * block :])
    assert np.isnan(found[:, block : 2 * block]).all()


def assert_bfloat16_is_close(attention, plain, *shape):
    """Outputs and gradients of inputs in bfloat16 are of that type, and near those of the plain formula."""
    arrays, visible, cotangent = random_arrays(*shape)
    low = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
    found, found_gradient = value_and_gradient(attention, low, visible, cotangent)
    rounded = [x.astype(jnp.float32) for x in low]
    expected, expected_gradient = value_and_gradient(plain, rounded, visible, cotangent)
    for one, other in zip((found, *found_gradient), (expected, *expected_gradient), strict=True):
        assert one.dtype == jnp.bfloat16
        off = np.asarray(one, np.float32) - np.asarray(other)
        assert np.abs(off).max() < 0.03 * np.abs(np.asarray(other)).max()
