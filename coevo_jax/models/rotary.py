"""Rotary position embeddings: the frequencies of a model, plain or stretched, and their tables for positions.

Legend: B rows, T tokens, h width of a head.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.config.options import ModelConfig, RopeScaling

Rotary = tuple[jax.Array, jax.Array]  # cosines and sines of the angles, float32 [B, T, h / 2]


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """The angle in radians by which a position turns each pair of dimensions, float32 [h / 2]."""
    plain = theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return plain.astype(np.float32)
    if scaling.kind == "linear":
        return (plain / scaling.factor).astype(np.float32)
    # Llama 3.1 (arXiv 2407.21783): turns within the original context tell fast frequencies, which stay, from
    # slow ones, which are divided.
    turns = scaling.original_max_positions * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - kept) * plain / scaling.factor + kept * plain).astype(np.float32)


def rotary_table(config: ModelConfig, layer_type: str, positions_BT: jax.Array) -> Rotary:
    """The angles of every position in layers of a type, "full" or "sliding"."""
    theta, scaling = config.rope_theta, config.rope_scaling
    if layer_type == "sliding" and config.sliding_rope_theta is not None:
        theta, scaling = config.sliding_rope_theta, None
    angle = positions_BT[..., None].astype(jnp.float32) * frequencies(config.head_dim, theta, scaling)
    return jnp.cos(angle), jnp.sin(angle)
