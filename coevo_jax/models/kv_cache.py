"""The KV cache of S slots, and the forward pass that appends new tokens to it.

Layers are unrolled here, not scanned, each with its own buffers: a scan would copy a whole layer per token.
Legend: S slots, T new tokens, C cache length, K key/value heads, h head width, D hidden.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from coevo_jax.config import ModelConfig
from coevo_jax.models.attention import cached_attention
from coevo_jax.models.rotary import rotary_table
from coevo_jax.models.transformer import Block, Params, Transformer, layer_type


@struct.dataclass
class KVCache:
    keys: tuple[jax.Array, ...]  # per layer [S, K, C, h]
    values: tuple[jax.Array, ...]  # per layer [S, K, C, h]
    lengths: jax.Array  # int32 [S]: tokens each slot holds


def init_cache(config: ModelConfig, slots: int, length: int) -> KVCache:
    """An empty cache for `slots` episodes of at most `length` tokens."""
    shape = (slots, config.num_kv_heads, length, config.head_dim)
    return KVCache(
        keys=tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_layers)),
        values=tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_layers)),
        lengths=jnp.zeros((slots,), jnp.int32),
    )


def _append(buffer_SKCh: jax.Array, new_STKh: jax.Array, write_ST: jax.Array) -> jax.Array:
    """Write new entries at their positions; a position outside the cache is dropped, never clamped."""
    slot_S1 = jnp.arange(buffer_SKCh.shape[0])[:, None]
    return buffer_SKCh.at[slot_S1, :, write_ST].set(new_STKh.astype(buffer_SKCh.dtype), mode="drop")


def forward_cached(
    model: Transformer, params: Params, cache: KVCache, tokens_ST: jax.Array, valid_S: jax.Array
) -> tuple[jax.Array, KVCache]:
    """Append `valid[s]` tokens to each slot and return their hidden states.

    Args:
      tokens_ST: int32 [S, T]; entries from `valid[s]` on are ignored.
      valid_S: int32 [S], 0 <= valid <= T and lengths + valid <= C (the engine's duty).

    Returns:
      Hidden states [S, T, D] (meaningless from `valid[s]` on) and the longer cache. Equals the full forward
      pass over the slot's tokens.
    """
    config, block = model.config, Block(model.config)
    offset_T = jnp.arange(tokens_ST.shape[1])
    positions_ST = cache.lengths[:, None] + offset_T
    write_ST = jnp.where(offset_T < valid_S[:, None], positions_ST, cache.keys[0].shape[2])
    rotary = {kind: rotary_table(config, kind, positions_ST) for kind in set(config.layer_types)}
    x_STD: Any = model.apply({"params": params}, tokens_ST, method=Transformer.embed)
    keys, values = [], []
    for layer in range(config.num_layers):
        kind = layer_type(config, layer)
        variables = {"params": jax.tree.map(lambda stacked, layer=layer: stacked[layer], params["layers"])}
        projected: Any = block.apply(variables, x_STD, rotary[kind], method=Block.project)
        q, k, v = projected
        keys.append(_append(cache.keys[layer], k, write_ST))
        values.append(_append(cache.values[layer], v, write_ST))
        window = config.sliding_window if kind == "sliding" else None
        attended = cached_attention(q, keys[-1], values[-1], positions_ST, window)
        x_STD = block.apply(variables, x_STD, attended, method=Block.finish)
    hidden_STD: Any = model.apply({"params": params}, x_STD, method=Transformer.finish)
    return hidden_STD, KVCache(tuple(keys), tuple(values), cache.lengths + valid_S)
