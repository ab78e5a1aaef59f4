"""Attention along the paths of packed prefix trees, block by block: the work is that of the visible blocks.

The memory of scores is one block's, forward and backward (FlashAttention-2, arXiv 2307.08691, algorithms 1
and 2), and blocks in which no query sees a key are never touched: siblings of a tree, other trees of a row.

Legend: B rows, T tokens, H query heads, K key/value heads, G = H/K, h width, n blocks a row, t tokens a
block, P pairs of a query block and a key block.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from coevo_jax.models.attention import Window
from coevo_jax.models.remat import ATTENDED

BLOCK = 64  # tokens; 32 and 128 cost more on the CPU
MASKED = -1e30


def seen_blocks(visible_until_BT: jax.Array, block: int, window: Window | None = None) -> jax.Array:
    """Whether some query of block i may see some key of block j, bool [B, n, n] (i, j)."""
    B, T = visible_until_BT.shape
    n = T // block
    latest_Bn = visible_until_BT.reshape(B, n, block).max(axis=-1)
    first_n = jnp.arange(n) * block
    seen_Bnn = (latest_Bn[:, None, :] > first_n[:, None]) & (jnp.arange(n) <= jnp.arange(n)[:, None])
    if window is None:
        return seen_Bnn
    positions_Bnt = window.positions_BT.reshape(B, n, block)
    nearest_Bnn = positions_Bnt.min(axis=-1)[:, :, None] - positions_Bnt.max(axis=-1)[:, None, :]
    return seen_Bnn & (nearest_Bnn < window.size)


def visible_blocks(
    visible_until_BT: jax.Array, block: int, window: Window | None = None
) -> tuple[jax.Array, jax.Array]:
    """Row, query block and key block of every visible pair, int32 [B*n*n, 3] sorted, and their number."""
    seen_Bnn = seen_blocks(visible_until_BT, block, window)
    pairs = jnp.stack(jnp.nonzero(seen_Bnn, size=seen_Bnn.size, fill_value=0), axis=-1)
    return pairs.astype(jnp.int32), seen_Bnn.sum()


def tree_attention(
    q_BTHh: jax.Array,
    k_BTKh: jax.Array,
    v_BTKh: jax.Array,
    visible_until_BT: jax.Array,
    window: Window | None = None,
) -> jax.Array:
    """Softmax attention in which q sees k when k <= q < visible_until[k]; scores are float32.

    Every token sees itself (visible_until[k] > k).

    Args:
      window: narrows that to the last tokens of each query's path.

    Returns [B, T, H, h].
    """
    B, T, H, h = q_BTHh.shape
    K = k_BTKh.shape[2]
    block = min(BLOCK, T)
    pad = -T % block
    if pad:
        q_BTHh, k_BTKh, v_BTKh = (
            jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (q_BTHh, k_BTKh, v_BTKh)
        )
        alone = jnp.broadcast_to(jnp.arange(T, T + pad, dtype=jnp.int32) + 1, (B, pad))
        visible_until_BT = jnp.concatenate([visible_until_BT, alone], axis=1)
        if window is not None:
            window = Window(jnp.pad(window.positions_BT, ((0, 0), (0, pad))), window.size)
    n = (T + pad) // block
    scaled = q_BTHh * jnp.asarray(h**-0.5, q_BTHh.dtype)
    q_BnKGth = scaled.reshape(B, n, block, K, H // K, h).transpose(0, 1, 3, 4, 2, 5)
    k_BnKth, v_BnKth = (x.reshape(B, n, block, K, h).swapaxes(2, 3) for x in (k_BTKh, v_BTKh))
    out_BnKGth = _attend(q_BnKGth, k_BnKth, v_BnKth, visible_until_BT.reshape(B, n, block), window)
    return out_BnKGth.transpose(0, 1, 4, 2, 3, 5).reshape(B, T + pad, H, h)[:, :T]


@jax.custom_vjp
def _attend(q, k, v, until_Bnt, window):
    return _attend_forward(q, k, v, until_Bnt, window)[0]


def _attend_forward(q, k, v, until_Bnt, window):
    B, n, K, G, t, h = q.shape
    pairs, count = visible_blocks(until_Bnt.reshape(B, n * t), t, window)

    def visit(p, carry):
        out, peak, total = carry
        b, i, j = pairs[p, 0], pairs[p, 1], pairs[p, 2]
        mask_tt = _mask(until_Bnt, window, b, i, j)
        scores = jnp.einsum("kgth,ksh->kgts", _at(q, b, i), _at(k, b, j), preferred_element_type=jnp.float32)
        old_peak = _at(peak, b, i)
        new_peak = jnp.maximum(old_peak, jnp.where(mask_tt, scores, MASKED).max(axis=-1))
        weights = jnp.where(mask_tt, jnp.exp(scores - new_peak[..., None]), 0.0)
        decay = jnp.exp(old_peak - new_peak)
        new_total = _at(total, b, i) * decay + weights.sum(axis=-1)
        mixed = jnp.einsum(
            "kgts,ksh->kgth", weights.astype(v.dtype), _at(v, b, j), preferred_element_type=jnp.float32
        )
        new_out = _at(out, b, i) * decay[..., None] + mixed
        return _set(out, new_out, b, i), _set(peak, new_peak, b, i), _set(total, new_total, b, i)

    shape = (B, n, K, G, t)
    start = jnp.zeros((*shape, h), jnp.float32), jnp.full(shape, MASKED), jnp.zeros(shape, jnp.float32)
    out, peak, total = jax.lax.fori_loop(0, count, visit, start)
    out = checkpoint_name((out / total[..., None]).astype(q.dtype), ATTENDED)
    normaliser = checkpoint_name(peak + jnp.log(total), ATTENDED)
    return out, (q, k, v, until_Bnt, window, out, normaliser)


def _attend_backward(kept, d_out):
    q, k, v, until_Bnt, window, out, normaliser = kept
    pairs, count = visible_blocks(until_Bnt.reshape(until_Bnt.shape[0], -1), until_Bnt.shape[-1], window)
    inner = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def visit(p, grads):
        dq, dk, dv = grads
        b, i, j = pairs[p, 0], pairs[p, 1], pairs[p, 2]
        mask_tt = _mask(until_Bnt, window, b, i, j)
        q_i, k_j, d_i = _at(q, b, i), _at(k, b, j), _at(d_out, b, i)
        scores = dot("kgth,ksh->kgts", q_i, k_j)
        weights = jnp.where(mask_tt, jnp.exp(scores - _at(normaliser, b, i)[..., None]), 0.0)
        d_weights = dot("kgth,ksh->kgts", d_i, _at(v, b, j))
        d_scores = (weights * (d_weights - _at(inner, b, i)[..., None])).astype(q.dtype)
        dv = _add(dv, dot("kgts,kgth->ksh", weights.astype(q.dtype), d_i), b, j)
        dk = _add(dk, dot("kgts,kgth->ksh", d_scores, q_i), b, j)
        dq = _add(dq, dot("kgts,ksh->kgth", d_scores, k_j), b, i)
        return dq, dk, dv

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    dq, dk, dv = jax.lax.fori_loop(0, count, visit, start)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _mask(until_Bnt, window, b, i, j):
    """Which of the block's queries see which of its keys, [t, t]."""
    t = until_Bnt.shape[-1]
    query_t1 = i * t + jnp.arange(t)[:, None]
    mask_tt = (j * t + jnp.arange(t) <= query_t1) & (query_t1 < _at(until_Bnt, b, j))
    if window is None:
        return mask_tt
    positions_Bnt = window.positions_BT.reshape(until_Bnt.shape)
    return mask_tt & (_at(positions_Bnt, b, i)[:, None] - _at(positions_Bnt, b, j) < window.size)


def _at(x, b, i):
    return jax.lax.dynamic_slice(x, (b, i) + (0,) * (x.ndim - 2), (1, 1, *x.shape[2:]))[0, 0]


def _set(x, value, b, i):
    return jax.lax.dynamic_update_slice(x, value[None, None].astype(x.dtype), (b, i) + (0,) * (x.ndim - 2))


def _add(x, value, b, i):
    return _set(x, _at(x, b, i) + value, b, i)
