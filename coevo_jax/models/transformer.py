"""The decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Qwen3's block).

Layers are stacked and scanned; parameters carry logical axes. Pure init/apply, no state.
Legend: B rows, T tokens, D hidden, H query heads, K key/value heads, h head width, F feed-forward,
V vocabulary, I and O all axes in and out of a projection, r rank of an adapter.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from coevo_jax.config import ModelConfig
from coevo_jax.models.attention import rotate
from coevo_jax.models.linear import linear
from coevo_jax.models.remat import HIDDEN, QKV, remat
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


def axis_sizes(config: ModelConfig, axes: tuple[str, ...]) -> tuple[int, ...]:
    """Sizes of logical axes."""
    sizes = {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "mlp": config.intermediate_size,
    }
    return tuple(sizes[axis] for axis in axes)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, in float32 (arXiv 1910.07467)."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale: Any = self.param("scale", init, (x.shape[-1],), jnp.float32)
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return (normed * scale).astype(x.dtype)


class Block(nn.Module):
    """One transformer block, split at the attention so that rows and caches share all of its weights."""

    config: ModelConfig
    attention: Callable[..., jax.Array] = tree_attention

    def setup(self) -> None:
        c = self.config
        self.attention_norm = RMSNorm(c.rms_norm_eps)
        self.mlp_norm = RMSNorm(c.rms_norm_eps)
        if c.qk_norm:
            self.query_norm = RMSNorm(c.rms_norm_eps)
            self.key_norm = RMSNorm(c.rms_norm_eps)
        self.weights = {name: self._projection(name, axes) for name, axes in PROJECTIONS.items()}
        targets, rank = (c.lora.target_modules, c.lora.rank) if c.lora else ((), 0)
        self.adapters = {name: self._adapter(name, PROJECTIONS[name], rank) for name in targets}
        self.adapter_scale = c.lora.scale if c.lora else 0.0

    def _projection(self, name: str, axes: Axes) -> jax.Array:
        into, out = axes
        fan_in = math.prod(axis_sizes(self.config, into))
        return _weight(self, name, axis_sizes(self.config, into + out), into + out, fan_in)

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

    def _linear(self, name: str, x_BTI: jax.Array) -> jax.Array:
        """A projection over the last axis, plus its adapter's low-rank share, without a merged weight."""
        I = x_BTI.shape[-1]
        y_BTO = linear(x_BTI, self.weights[name].reshape(I, -1))
        if name not in self.adapters:
            return y_BTO
        a, b = self.adapters[name]["a"], self.adapters[name]["b"]
        small_BTr = linear(x_BTI, a.reshape(I, -1))
        return y_BTO + self.adapter_scale * linear(small_BTr, b.reshape(b.shape[0], -1))

    def project(self, x_BTD: jax.Array, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries [B, T, H, h] and keys, and values [B, T, K, h]."""
        c, x = self.config, self.attention_norm(x_BTD)
        q, k, v = (
            checkpoint_name(self._linear(name, x).reshape(*x.shape[:2], -1, c.head_dim), QKV)
            for name in ("query", "key", "value")
        )
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, positions_BT, c.rope_theta), rotate(k, positions_BT, c.rope_theta), v

    def finish(self, x_BTD: jax.Array, attended_BTHh: jax.Array) -> jax.Array:
        """Output projection, residual and feed-forward."""
        x = x_BTD + self._linear("output", attended_BTHh.reshape(*x_BTD.shape[:2], -1))
        y = self.mlp_norm(x)
        gate, up = (checkpoint_name(self._linear(name, y), HIDDEN) for name in ("gate", "up"))
        return x + self._linear("down", nn.silu(gate) * up)

    def __call__(self, x_BTD: jax.Array, positions_BT: jax.Array, visible_until_BT: jax.Array):
        q, k, v = self.project(x_BTD, positions_BT)
        return self.finish(x_BTD, self.attention(q, k, v, visible_until_BT)), None


class Transformer(nn.Module):
    """Token ids to final hidden states [B, T, D]; logits are the head's business, chunk by chunk."""

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
            in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]  # its type says int
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        self.layers = scanned(c, self.attention)
        self.final_norm = RMSNorm(c.rms_norm_eps)

    def embed(self, tokens_BT: jax.Array) -> jax.Array:
        return jnp.take(self.embedding_VD, tokens_BT, axis=0).astype(self.config.dtype)

    def finish(self, x_BTD: jax.Array) -> jax.Array:
        return self.final_norm(x_BTD)

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, visible_until_BT: jax.Array
    ) -> jax.Array:
        x_BTD, _ = self.layers(self.embed(tokens_BT), positions_BT, visible_until_BT)
        return self.finish(x_BTD)


def init_params(model: Transformer, key: jax.Array) -> Params:
    """Random parameters, boxed with their logical axes (`nn.unbox` gives the plain tree)."""
    one = jnp.ones((1, 1), jnp.int32)
    alone = model.clone(attention=tree_attention)  # one row cannot be split over devices
    return alone.init(key, one, one, one)["params"]


def output_head(params: Params) -> jax.Array:
    """The matrix [V, D] that turns hidden states into logits: the embedding where it is tied."""
    return params["head"] if "head" in params else params["embedding"]


def output_logits(params: Params, hidden_BTD: jax.Array) -> jax.Array:
    """Float32 logits [..., V]; only for the few positions that are sampled from, never for [B, T]."""
    head_VD = output_head(params).astype(hidden_BTD.dtype)
    return jnp.einsum("...d,vd->...v", hidden_BTD, head_VD, preferred_element_type=jnp.float32)
