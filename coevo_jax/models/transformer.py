"""The decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, gated feed-forward.

Switches of `ModelConfig` make it the block of Llama, Mistral, Qwen2, Qwen3 or Gemma 3. Layers are stacked and
scanned, and what differs between them (the window, the rotary base) is data of the scan, so that one compiled
block serves all; parameters carry logical axes. Pure init/apply, no state.
Legend: L layers, B rows, T tokens, D hidden, H query heads, K key/value heads, h head width, F feed-forward,
V vocabulary, I and O all axes in and out of a projection, r rank of an adapter.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from coevo_jax.config.options import ModelConfig
from coevo_jax.models.attention import Window, rotate
from coevo_jax.models.linear import linear
from coevo_jax.models.remat import HIDDEN, QKV, remat
from coevo_jax.models.rms_norm import rms_norm
from coevo_jax.models.rotary import Rotary, rotary_table
from coevo_jax.models.tree_attention import tree_attention

Params = Any


def _weight(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int
) -> jax.Array:
    """A float32 master weight with a truncated-normal start of variance 1 / fan_in."""
    init = nn.with_logical_partitioning(nn.initializers.truncated_normal(fan_in**-0.5), axes)
    weight: Any = module.param(name, init, shape, jnp.float32)  # unboxed, unlike its initializer's type
    return weight


def _small_weight(shape: tuple[int, ...], axes: tuple[str, ...], bound: float) -> Callable[..., Any]:
    """Initializer of one matrix of an adapter: uniform within the bound, zero where the bound is."""

    def start(key: jax.Array, *_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return nn.with_logical_partitioning(start, axes)


# Logical axes of each projection: those that go in, those that come out.
Axes = tuple[tuple[str, ...], tuple[str, ...]]
PROJECTIONS: dict[str, Axes] = {
    "query": (("embed",), ("heads", "head_dim")),
    "key": (("embed",), ("kv_heads", "head_dim")),
    "value": (("embed",), ("kv_heads", "head_dim")),
    "output": (("heads", "head_dim"), ("embed",)),
    "gate": (("embed",), ("mlp",)),
    "up": (("embed",), ("mlp",)),
    "down": (("mlp",), ("embed",)),
}
BIASED = ("query", "key", "value")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "gelu_tanh": partial(nn.gelu, approximate=True),
}
UNLIMITED = np.iinfo(np.int32).max  # the window of a layer that sees all


def axis_sizes(config: ModelConfig, axes: tuple[str, ...]) -> tuple[int, ...]:
    """The sizes of the logical axes."""
    sizes = {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "mlp": config.intermediate_size,
    }
    return tuple(sizes[axis] for axis in axes)


def layer_type(config: ModelConfig, layer: int) -> str:
    """The type of a layer, "full" or "sliding": the pattern of `layer_types` repeats over the layers."""
    return config.layer_types[layer % len(config.layer_types)]


class RMSNorm(nn.Module):
    """The root-mean-square norm over the last axis, scaled by weight + offset."""

    epsilon: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = nn.initializers.constant(1.0 - self.offset)
        scale: Any = self.param(
            "scale", nn.with_logical_partitioning(start, ("norm",)), (x.shape[-1],), jnp.float32
        )
        return rms_norm(x, scale + self.offset if self.offset else scale, self.epsilon)


@struct.dataclass
class Places:
    """Arrays that all layers share of a packed batch; what only some need is None where no layer does."""

    rotary: Rotary  # of full layers
    sliding_rotary: Rotary | None  # of sliding layers, where their base differs
    visible_until_BT: Any  # or what the attention prepares of it, once for all layers
    positions_BT: jax.Array | None  # where some layer has a window


@struct.dataclass
class LayerKinds:
    """How layers differ, one entry per layer; fields are None where they do not."""

    window: jax.Array | None  # int32 [L]
    sliding: jax.Array | None  # bool [L]: takes `sliding_rotary`


def layer_kinds(config: ModelConfig) -> LayerKinds:
    """The differences between the layers, one entry per layer."""
    if "sliding" not in config.layer_types:
        return LayerKinds(window=None, sliding=None)
    sliding = np.array([layer_type(config, layer) == "sliding" for layer in range(config.num_layers)])
    window = jnp.asarray(np.where(sliding, config.sliding_window or UNLIMITED, UNLIMITED), jnp.int32)
    return LayerKinds(
        window=window, sliding=None if config.sliding_rope_theta is None else jnp.asarray(sliding)
    )


def places(config: ModelConfig, positions_BT: jax.Array, visible_until_BT: jax.Array) -> Places:
    """What all layers share of a packed batch with these positions."""
    windows, two_bases = "sliding" in config.layer_types, config.sliding_rope_theta is not None
    return Places(
        rotary=rotary_table(config, "full", positions_BT),
        sliding_rotary=rotary_table(config, "sliding", positions_BT) if windows and two_bases else None,
        visible_until_BT=visible_until_BT,
        positions_BT=positions_BT if windows else None,
    )


class Block(nn.Module):
    """One transformer block, split at the attention so that rows and caches share all of its weights."""

    config: ModelConfig
    attention: Callable[..., jax.Array] = tree_attention

    def setup(self) -> None:
        c = self.config
        norm = partial(RMSNorm, c.rms_norm_eps, c.norm_offset)
        self.attention_norm, self.mlp_norm = norm(), norm()
        if c.post_norms:
            self.attention_post_norm, self.mlp_post_norm = norm(), norm()
        if c.qk_norm:
            self.query_norm, self.key_norm = norm(), norm()
        self.weights = {name: self._projection(name, axes) for name, axes in PROJECTIONS.items()}
        self.biases = {name: self._bias(name) for name in BIASED if c.qkv_bias}
        targets, rank = (c.lora.target_modules, c.lora.rank) if c.lora else ((), 0)
        self.adapters = {name: self._adapter(name, PROJECTIONS[name], rank) for name in targets}
        self.adapter_scale = c.lora.scale if c.lora else 0.0

    def _projection(self, name: str, axes: Axes) -> jax.Array:
        into, out = axes
        fan_in = math.prod(axis_sizes(self.config, into))
        return _weight(self, name, axis_sizes(self.config, into + out), into + out, fan_in)

    def _bias(self, name: str) -> jax.Array:
        out = PROJECTIONS[name][1]
        init = nn.with_logical_partitioning(nn.initializers.zeros, out)
        bias: Any = self.param(f"{name}_bias", init, axis_sizes(self.config, out), jnp.float32)
        return bias

    def _adapter(self, name: str, axes: Axes, rank: int) -> dict[str, jax.Array]:
        """Both factors of a low-rank update: `a` [I, r] starts as PEFT's does, `b` [r, O] at zero."""
        into, out = axes
        sizes_in, sizes_out = axis_sizes(self.config, into), axis_sizes(self.config, out)
        a = _small_weight((*sizes_in, rank), (*into, "rank"), math.prod(sizes_in) ** -0.5)
        b = _small_weight((rank, *sizes_out), ("rank", *out), 0.0)

        def start() -> dict[str, jax.Array]:
            return {"a": a(self.make_rng("params")), "b": b(self.make_rng("params"))}

        factors: Any = self.variable("adapters", name, start).value
        return factors

    def _whole(self, name: str, x_BTI: jax.Array) -> jax.Array:
        """A projection over the last axis, with its bias where it has one."""
        y_BTO = linear(x_BTI, self.weights[name].reshape(x_BTI.shape[-1], -1))
        return y_BTO + self.biases[name].reshape(-1).astype(y_BTO.dtype) if name in self.biases else y_BTO

    def _linear(self, name: str, x_BTI: jax.Array) -> jax.Array:
        """The same plus its adapter's low-rank share, without a merged weight."""
        I, y_BTO = x_BTI.shape[-1], self._whole(name, x_BTI)
        if name not in self.adapters:
            return y_BTO
        a, b = self.adapters[name]["a"], self.adapters[name]["b"]
        small_BTr = linear(x_BTI, a.reshape(I, -1))
        return y_BTO + self.adapter_scale * linear(small_BTr, b.reshape(b.shape[0], -1))

    def project(self, x_BTD: jax.Array, rotary: Rotary) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries [B, T, H, h] and keys, and values [B, T, K, h]."""
        c, x = self.config, self.attention_norm(x_BTD)
        q, k, v = (
            checkpoint_name(self._linear(name, x).reshape(*x.shape[:2], -1, c.head_dim), QKV)
            for name in ("query", "key", "value")
        )
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        if c.query_scale is not None:
            q *= c.query_scale * c.head_dim**0.5  # attention divides by the root of the width
        return rotate(q, rotary), rotate(k, rotary), v

    def finish(self, x_BTD: jax.Array, attended_BTHh: jax.Array) -> jax.Array:
        """Output projection, residual and feed-forward."""
        c = self.config
        y = self._linear("output", attended_BTHh.reshape(*x_BTD.shape[:2], -1))
        x = x_BTD + (self.attention_post_norm(y) if c.post_norms else y)
        y = self.mlp_norm(x)
        gate, up = (checkpoint_name(self._linear(name, y), HIDDEN) for name in ("gate", "up"))
        y = self._linear("down", ACTIVATIONS[c.activation](gate) * up)
        return x + (self.mlp_post_norm(y) if c.post_norms else y)

    def __call__(self, x_BTD: jax.Array, own: LayerKinds, shared: Places):
        rotary, window = shared.rotary, ()
        if own.sliding is not None:
            rotary = jax.tree.map(partial(jnp.where, own.sliding), shared.sliding_rotary, shared.rotary)
        if own.window is not None and shared.positions_BT is not None:
            window = (Window(shared.positions_BT, own.window),)  # not every attention takes one
        q, k, v = self.project(x_BTD, rotary)
        return self.finish(x_BTD, self.attention(q, k, v, shared.visible_until_BT, *window)), None


class Transformer(nn.Module):
    """The decoder from token ids to final hidden states [B, T, D]; the head makes the logits in chunks."""

    config: ModelConfig
    vocab_size: int
    attention: Callable[..., jax.Array] = tree_attention  # see models.attention_kinds

    def setup(self) -> None:
        c = self.config
        self.embedding_VD = _weight(
            self, "embedding", (self.vocab_size, c.hidden_size), ("vocab", "embed"), c.hidden_size
        )
        if not c.tie_embeddings:
            self.head_VD = _weight(
                self, "head", (self.vocab_size, c.hidden_size), ("vocab", "embed"), c.hidden_size
            )
        scanned = nn.scan(
            remat(Block, c.remat),
            variable_axes={"params": 0, "adapters": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]  # its type says int
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        self.layers = scanned(c, self.attention)
        self.final_norm = RMSNorm(c.rms_norm_eps, c.norm_offset)

    def embed(self, tokens_BT: jax.Array) -> jax.Array:
        x_BTD = jnp.take(self.embedding_VD, tokens_BT, axis=0).astype(self.config.dtype)
        return (
            x_BTD * jnp.asarray(self.config.hidden_size**0.5, x_BTD.dtype)
            if self.config.embedding_scale
            else x_BTD
        )

    def finish(self, x_BTD: jax.Array) -> jax.Array:
        return self.final_norm(x_BTD)

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, visible_until_BT: jax.Array
    ) -> jax.Array:
        shared = places(self.config, positions_BT, visible_until_BT)
        prepare = getattr(self.attention, "prepare", None)
        if prepare is not None and shared.positions_BT is None:  # a window differs from layer to layer
            made = prepare(visible_until_BT, self.config.head_dim, self.config.dtype)
            shared = dataclasses.replace(shared, visible_until_BT=made)
        x_BTD, _ = self.layers(self.embed(tokens_BT), layer_kinds(self.config), shared)
        return self.finish(x_BTD)


def init_params(model: Transformer, key: jax.Array) -> Params:
    """Random parameters, boxed with their logical axes (`nn.unbox` gives the plain tree)."""
    return init_variables(model, key)["params"]


def init_variables(model: Transformer, key: jax.Array) -> dict[str, Any]:
    """All variables of a model, boxed, from a pass without attention, which has none and is slow to trace."""
    one = jnp.ones((1, 1), jnp.int32)
    return dict(model.clone(attention=_no_attention).init(key, one, one, one))


def _no_attention(queries: jax.Array, *_: Any) -> jax.Array:
    return queries


def output_head(params: Params) -> jax.Array:
    """The matrix [V, D] that turns hidden states into logits: the embedding where it is tied."""
    return params["head"] if "head" in params else params["embedding"]


def output_logits(params: Params, hidden_BTD: jax.Array) -> jax.Array:
    """Float32 logits [..., V]; only for the few positions that are sampled from, never for [B, T]."""
    head_VD = output_head(params).astype(hidden_BTD.dtype)
    return jnp.einsum("...d,vd->...v", hidden_BTD, head_VD, preferred_element_type=jnp.float32)
