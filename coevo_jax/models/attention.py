"""Attention over packed rows and over a KV cache, with rotary positions.

Legend: B rows or slots, T new tokens, C cache length, H query heads, K key/value heads, G = H/K, h width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from coevo_jax.models.remat import ATTENDED
from coevo_jax.models.rotary import Rotary

QUERY_BLOCK = 128  # a block stops at the diagonal; measured about twice as fast as one full product on CPU
MASKED = -1e30


class Window(NamedTuple):
    """The positions and width of a sliding layer: how far back along its path a token sees."""

    positions_BT: jax.Array  # int32 [B, T], along the path of each token
    size: jax.Array  # int32 []: q sees k when position(q) - position(k) < size


def rotate(x_BTHh: jax.Array, rotary: Rotary) -> jax.Array:
    """Apply rotary position embedding (arXiv 2104.09864, half-split layout), computed in float32."""
    cos, sin = (table[:, :, None] for table in rotary)
    first, second = jnp.split(x_BTHh.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTHh.dtype)


def _attend(q_BKGTh: jax.Array, k_BKSh: jax.Array, v_BKSh: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """Softmax attention with float32 scores; rows that see nothing return an average, never NaN."""
    scale = q_BKGTh.shape[-1] ** -0.5
    scores = jnp.einsum("bkgth,bksh->bkgts", q_BKGTh * scale, k_BKSh, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask_BTS[:, None, None], scores, MASKED), axis=-1)
    return jnp.einsum("bkgts,bksh->bkgth", weights.astype(v_BKSh.dtype), v_BKSh)


def _group(q_BTHh: jax.Array, kv_heads: int) -> jax.Array:
    """[B, T, H, h] -> [B, K, G, T, h]."""
    B, T, H, h = q_BTHh.shape
    return q_BTHh.reshape(B, T, kv_heads, H // kv_heads, h).transpose(0, 2, 3, 1, 4)


def _ungroup(out_BKGTh: jax.Array) -> jax.Array:
    B, K, G, T, h = out_BKGTh.shape
    return out_BKGTh.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, h)


def dense_attention(
    q_BTHh: jax.Array,
    k_BTKh: jax.Array,
    v_BTKh: jax.Array,
    visible_until_BT: jax.Array,
    window: Window | None = None,
) -> jax.Array:
    """Attention in which q sees k when k <= q < visible_until[k], as products of whole rows and a mask.

    Args:
      window: narrows that to the last tokens of each query's path.

    Returns [B, T, H, h].
    """
    T, kv_heads = q_BTHh.shape[1], k_BTKh.shape[2]
    q, k, v = _group(q_BTHh, kv_heads), k_BTKh.swapaxes(1, 2), v_BTKh.swapaxes(1, 2)
    blocks = []
    for start in range(0, T, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, T)
        query_t1 = jnp.arange(start, stop)[:, None]
        causal = query_t1 >= jnp.arange(stop)
        mask_Bts = causal & (query_t1 < visible_until_BT[:, None, :stop])
        if window is not None:
            own_Bt1 = window.positions_BT[:, start:stop, None]
            mask_Bts &= own_Bt1 - window.positions_BT[:, None, :stop] < window.size
        blocks.append(_attend(q[:, :, :, start:stop], k[:, :, :stop], v[:, :, :stop], mask_Bts))
    return checkpoint_name(_ungroup(jnp.concatenate(blocks, axis=3)), ATTENDED)


def cached_attention(
    q_BTHh: jax.Array,
    keys_BKhC: jax.Array,
    values_BKCh: jax.Array,
    positions_BT: jax.Array,
    window: int | None = None,
) -> jax.Array:
    """Attention of new queries over a cache that holds their own keys; causal by position; [B, T, H, h].

    Keys come transposed: a query's scores then read rows of the cache, six times as fast on a CPU.

    Args:
      window: how many of the last tokens a query sees, itself among them; None for all.
    """
    q, scale = _group(q_BTHh, keys_BKhC.shape[1]), q_BTHh.shape[-1] ** -0.5
    back_BTC = positions_BT[..., None] - jnp.arange(keys_BKhC.shape[3])
    mask_BTC = back_BTC >= 0 if window is None else (back_BTC >= 0) & (back_BTC < window)
    scores = jnp.einsum("bkgth,bkhc->bkgtc", q * scale, keys_BKhC, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask_BTC[:, None, None], scores, MASKED), axis=-1)
    return _ungroup(jnp.einsum("bkgtc,bkch->bkgth", weights.astype(values_BKCh.dtype), values_BKCh))
