"""The KV cache of S slots, and the forward pass that appends new tokens to it.

Layers are unrolled here, not scanned, each with its own buffers: a scan would copy a whole layer per token.
Legend: S slots, T new tokens, C cache length, K key/value heads, h head width, D hidden, I and O all axes in
and out of a projection, A agents, r rank of an adapter.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from coevo_jax.config.options import ModelConfig
from coevo_jax.models.attention import cached_attention
from coevo_jax.models.linear import linear
from coevo_jax.models.rotary import rotary_table
from coevo_jax.models.transformer import Block, Params, Transformer, layer_type


@struct.dataclass
class KVCache:
    """Keys and values of S slots by layer, and how many tokens each slot holds."""

    keys: tuple[jax.Array, ...]  # per layer [S, K, h, C]: scores of one query are then sums over whole rows
    values: tuple[jax.Array, ...]  # per layer [S, K, C, h]
    lengths: jax.Array  # int32 [S]: tokens each slot holds


def init_cache(config: ModelConfig, slots: int, length: int) -> KVCache:
    """An empty cache for `slots` episodes of at most `length` tokens."""
    K, h, layers = config.num_kv_heads, config.head_dim, range(config.num_layers)
    return KVCache(
        keys=tuple(jnp.zeros((slots, K, h, length), config.dtype) for _ in layers),
        values=tuple(jnp.zeros((slots, K, length, h), config.dtype) for _ in layers),
        lengths=jnp.zeros((slots,), jnp.int32),
    )


def grow_cache(cache: KVCache, length: int) -> KVCache:
    """Lengthen every slot to `length` tokens; what the slots hold stays."""

    def pad(layer: jax.Array, axis: int) -> jax.Array:
        widths = [(0, 0)] * layer.ndim
        widths[axis] = (0, length - layer.shape[axis])
        return jnp.pad(layer, widths)

    keys = tuple(pad(layer, 3) for layer in cache.keys)
    return KVCache(keys, tuple(pad(layer, 2) for layer in cache.values), cache.lengths)


def unstack(params: Params, config: ModelConfig) -> Params:
    """Parameters in the form decoding needs: one array per layer, matrices in the compute type.

    A program that reads a layer out of a stack copies it, for every token; and the casts of `linear` and of
    the head, to the same values, are then made once and not for every token. Norms and biases stay float32.
    Parameters whose layers are apart already come back as they are.
    """
    if isinstance(params["layers"], tuple):
        return params

    def cast(weight: jax.Array) -> jax.Array:
        return weight.astype(config.dtype) if weight.ndim > 1 else weight

    layers = tuple(
        jax.tree.map(lambda stacked, layer=layer: cast(stacked[layer]), params["layers"])
        for layer in range(config.num_layers)
    )
    return {**jax.tree.map(cast, {k: v for k, v in params.items() if k != "layers"}), "layers": layers}


def unstack_boxes(boxed: Params, layers: int) -> Params:
    """The boxes (`nn.LogicallyPartitioned`, of shapes) that belong to what `unstack` returns."""

    def of_layer(box: Any) -> Any:
        shape = jax.ShapeDtypeStruct(box.value.shape[1:], box.value.dtype)
        return nn.LogicallyPartitioned(shape, box.names[1:])

    layer = jax.tree.map(of_layer, boxed["layers"], is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    return {**boxed, "layers": (layer,) * layers}


def join_adapters(adapters: Sequence[Params]) -> Params:
    """Adapters of A agents side by side: {"a": [L, I, A * r], "b": [L, A * r, O]} by projection.

    A slot's low-rank share is that of its agent alone, because the others' part of the narrow product is set
    to zero: one batch serves all agents, and nothing is gathered per slot.
    """
    joined: dict[str, Any] = {}
    for name in adapters[0]["layers"]:
        of_agents = [one["layers"][name] for one in adapters]
        joined[name] = {
            "a": jnp.concatenate([factors["a"] for factors in of_agents], axis=-1),
            "b": jnp.concatenate([factors["b"] for factors in of_agents], axis=1),
        }
    return {"layers": joined}


class _SlotBlock(Block):
    """A block whose adapters are those of several agents side by side, and whose rows choose among them."""

    def _linear(self, name: str, x_BTI: jax.Array) -> jax.Array:
        I, y_BTO = x_BTI.shape[-1], self._whole(name, x_BTI)
        if name not in self.adapters:
            return y_BTO
        a, b = self.adapters[name]["a"], self.adapters[name]["b"]
        small_BTr = linear(x_BTI, a.reshape(I, -1))
        chosen: Any = self.get_variable("slots", "agent")
        of_B1r = jnp.arange(small_BTr.shape[-1]) // self.config.lora.rank == chosen[:, None, None]  # pyright: ignore[reportOptionalMemberAccess]
        own_BTr = jnp.where(of_B1r, small_BTr, 0)
        return y_BTO + self.adapter_scale * linear(own_BTr, b.reshape(b.shape[0], -1))


def _layer(params: Params, layer: int) -> Params:
    layers = params["layers"]
    return layers[layer] if isinstance(layers, tuple) else jax.tree.map(lambda x: x[layer], layers)


def forward_cached(
    model: Transformer,
    params: Params,
    cache: KVCache,
    tokens_ST: jax.Array,
    valid_S: jax.Array,
    adapters: Params | None = None,
    agent_S: jax.Array | None = None,
) -> tuple[jax.Array, KVCache]:
    """Append `valid[s]` tokens to each slot and return their hidden states.

    Args:
      params: with stacked layers, or as `unstack` gives them, which is faster.
      tokens_ST: int32 [S, T]; entries from `valid[s]` on are ignored.
      valid_S: int32 [S], 0 <= valid <= T and lengths + valid <= C (the engine's duty).
      adapters: None, or those of all agents by `join_adapters`, unstacked where `params` are.
      agent_S: int32 [S]: whose adapters a slot takes.

    Returns:
      Hidden states [S, T, D] (meaningless from `valid[s]` on) and the longer cache. Equals the full forward
      pass over the slot's tokens.
    """
    config = model.config
    whole = config.model_copy(update={"lora": None})
    block = Block(whole) if adapters is None else _SlotBlock(config)
    offset_T = jnp.arange(tokens_ST.shape[1])
    positions_ST = cache.lengths[:, None] + offset_T
    slot_S1 = jnp.arange(tokens_ST.shape[0])[:, None]
    # A position outside the cache is dropped, never clamped.
    write_ST = jnp.where(offset_T < valid_S[:, None], positions_ST, cache.keys[0].shape[3])
    rotary = {kind: rotary_table(config, kind, positions_ST) for kind in set(config.layer_types)}
    x_STD: Any = model.apply({"params": params}, tokens_ST, method=Transformer.embed)
    keys, values = [], []
    for layer in range(config.num_layers):
        kind = layer_type(config, layer)
        variables = {"params": _layer(params, layer)}
        if adapters is not None:
            variables |= {"adapters": _layer(adapters, layer), "slots": {"agent": agent_S}}
        projected: Any = block.apply(variables, x_STD, rotary[kind], method=Block.project)
        q, k, v = (part.astype(config.dtype) for part in projected)
        keys.append(cache.keys[layer].at[slot_S1, :, :, write_ST].set(k, mode="drop"))
        values.append(cache.values[layer].at[slot_S1, :, write_ST].set(v, mode="drop"))
        window = config.sliding_window if kind == "sliding" else None
        attended = cached_attention(q, keys[-1], values[-1], positions_ST, window)
        x_STD = block.apply(variables, x_STD, attended, method=Block.finish)
    hidden_STD: Any = model.apply({"params": params}, x_STD, method=Transformer.finish)
    return hidden_STD, KVCache(tuple(keys), tuple(values), cache.lengths + valid_S)
