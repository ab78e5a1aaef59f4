"""AdamW without a learning rate: the rate is data of each step, so that both agents share one program."""

import numpy as np
import optax

from coevo_jax.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip, Adam's direction, decoupled weight decay; `train_step` multiplies by minus the learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.adam_b1, b2=config.adam_b2),
        optax.add_decayed_weights(config.weight_decay),
    )


def warmup_steps(steps: int, fraction: float) -> int:
    return int(np.ceil(steps * fraction))


def constant_rate(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Learning rate of step 0 <= step < steps: linear warm-up, then constant."""
    warmup = warmup_steps(steps, warmup_fraction)
    return peak * min(1.0, (step + 1) / warmup) if warmup else peak


def cosine_rate(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Learning rate of step 0 <= step < steps: linear warm-up, then a cosine that ends at zero."""
    warmup = warmup_steps(steps, warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup + 1) / max(1, steps - warmup + 1)
    return float(peak * 0.5 * (1.0 + np.cos(np.pi * progress)))
