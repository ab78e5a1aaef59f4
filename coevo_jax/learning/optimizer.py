"""AdamW without a learning rate: the rate is data of each step, so that both agents share one program."""

import math
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import optax

from coevo_jax.config.options import OptimizerConfig

Params = Any


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradient clipping, Adam's direction, decoupled weight decay; `train_step` applies the learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.adam_b1, b2=config.adam_b2),
        optax.stateless(lambda updates, params: _decay(updates, params, config.weight_decay)),
    )


def _decay(updates: Params, params: Params, weight_decay: float) -> Params:
    if weight_decay == 0:
        return updates
    return jax.tree.map(
        lambda update, param, decays: update + weight_decay * param if decays else update,
        updates,
        params,
        decayed(params),
    )


def decayed(params: Params) -> Params:
    """Which parameters weight decay pulls to zero: matrices, by their names; True or False for each leaf.

    The weights of norms and the biases of projections are left alone (Loshchilov & Hutter, arXiv 1711.05101,
    leave it open; GPT-3's recipe and its successors decay matrices alone). Their number of axes does not tell
    them apart: layers are stacked, so that a stack of norms is a matrix, too.
    """

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        name = path[-1].key
        return name not in ("scale", "bias") and not name.endswith("_bias")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def warmup_steps(steps: int, fraction: float) -> int:
    """The number of warm-up steps: the share of all steps, rounded up exactly (100 * 0.07 > 7 in floats)."""
    return math.ceil(steps * Fraction(str(fraction)))


def constant_rate(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """The learning rate of step 0 <= step < steps: linear warm-up, then constant."""
    warmup = warmup_steps(steps, warmup_fraction)
    return peak * min(1.0, (step + 1) / warmup) if warmup else peak


def cosine_rate(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """The learning rate of step 0 <= step < steps: linear warm-up, then a cosine that ends at zero."""
    warmup = warmup_steps(steps, warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup + 1) / max(1, steps - warmup + 1)
    return float(peak * 0.5 * (1.0 + np.cos(np.pi * progress)))
