"""The decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Qwen3's block).

Layers are stacked and scanned; parameters carry logical axes. Pure init/apply, no state.
Legend: B rows, T tokens, D hidden, H query heads, K key/value heads, h head width, F feed-forward,
V vocabulary.
"""

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


def _heads(x_BTD: jax.Array, weight_DHh: jax.Array) -> jax.Array:
    """Project to heads: [B, T, D] -> [B, T, H, h]."""
    D, H, h = weight_DHh.shape
    return linear(x_BTD, weight_DHh.reshape(D, H * h)).reshape(*x_BTD.shape[:2], H, h)


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
        D, H, K, h, F = c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.intermediate_size
        self.attention_norm = RMSNorm(c.rms_norm_eps)
        self.mlp_norm = RMSNorm(c.rms_norm_eps)
        if c.qk_norm:
            self.query_norm = RMSNorm(c.rms_norm_eps)
            self.key_norm = RMSNorm(c.rms_norm_eps)
        self.query_DHh = _weight(self, "query", (D, H, h), ("embed", "heads", "head_dim"), D)
        self.key_DKh = _weight(self, "key", (D, K, h), ("embed", "kv_heads", "head_dim"), D)
        self.value_DKh = _weight(self, "value", (D, K, h), ("embed", "kv_heads", "head_dim"), D)
        self.output_HhD = _weight(self, "output", (H, h, D), ("heads", "head_dim", "embed"), H * h)
        self.gate_DF = _weight(self, "gate", (D, F), ("embed", "mlp"), D)
        self.up_DF = _weight(self, "up", (D, F), ("embed", "mlp"), D)
        self.down_FD = _weight(self, "down", (F, D), ("mlp", "embed"), F)

    def project(self, x_BTD: jax.Array, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries [B, T, H, h] and keys, and values [B, T, K, h]."""
        c, x = self.config, self.attention_norm(x_BTD)
        weights = (self.query_DHh, self.key_DKh, self.value_DKh)
        q, k, v = (checkpoint_name(_heads(x, weight), QKV) for weight in weights)
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, positions_BT, c.rope_theta), rotate(k, positions_BT, c.rope_theta), v

    def finish(self, x_BTD: jax.Array, attended_BTHh: jax.Array) -> jax.Array:
        """Output projection, residual and feed-forward."""
        B, T, D = x_BTD.shape
        x = x_BTD + linear(attended_BTHh.reshape(B, T, -1), self.output_HhD.reshape(-1, D))
        y = self.mlp_norm(x)
        gate, up = (checkpoint_name(linear(y, weight), HIDDEN) for weight in (self.gate_DF, self.up_DF))
        return x + linear(nn.silu(gate) * up, self.down_FD)

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
            variable_axes={"params": 0},
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
