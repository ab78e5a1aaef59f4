"""The clipped surrogate of what is reinforced: a policy gradient on stored tokens, with a signed weight each.

A ratio compares what the policy says of a token with what its record says that the player said of it, both at
temperature 1. Sampled at another temperature, or from a nucleus, tokens came up with other probabilities than
those: the ratio still begins at 1 and bounds the step, but the gradient is that of another distribution.

Legend: B rows, K scored tokens a row, S views a row, N = B * S views.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from coevo_jax.batch import PreferenceBatch, Scalar
from coevo_jax.learning.loss_terms import bounded_expm1


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """How what is reinforced is learned from; equal ones share a compiled program."""

    clip_low: float  # below 1: the ratio is clipped at 1 - clip_low
    clip_high: float  # and at 1 + clip_high
    kl: float = 0.0  # weight of the divergence from the reference


def clipped_surrogate(
    ratio: jax.Array, advantage: jax.Array, *, clip_low: float, clip_high: float
) -> jax.Array:
    """PPO's clipped loss of every token: -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A).

    Proximal Policy Optimization (arXiv 1707.06347, eq. 7), with a bound of its own on either side. A token
    that already is as much likelier, or rarer, as the clip allows has no gradient.
    """
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    return jnp.maximum(-advantage * ratio, -advantage * clipped)


def k3(logps: jax.Array, reference_logps: jax.Array) -> jax.Array:
    """exp(d) - d - 1 with d = log pi_ref - log pi of every token, never below 0.

    GRPO's estimator (arXiv 2402.03300, eq. 4): the mean over tokens that the policy drew estimates its
    divergence KL(pi || pi_ref), in nats.
    """
    d = reference_logps - logps
    return bounded_expm1(d) - d


def reinforce(
    logps_BK: jax.Array, batch: PreferenceBatch, surrogate: Surrogate
) -> tuple[jax.Array, dict[str, tuple[Scalar, Scalar]]]:
    """The surrogate's share of the objective, float32 [], and its metrics as (numerator, denominator).

    Places that are no token of a reinforced view see equal log-probabilities, a ratio of 1, before anything
    is left out: 0 times an infinite gradient is not a number.

    Args:
      logps_BK: of every scored token under the policy, in nats.
      batch: with a reinforcement.
    """
    given = batch.reinforcement
    assert given is not None
    rows, views = batch.view_weight.shape[:2]
    weight_BSK = jnp.asarray(batch.view_weight) * jnp.reshape(given.weight, (rows, views))[..., None]
    seen = weight_BSK > 0
    advantage = jnp.where(seen, given.advantage, 0.0)
    difference = jnp.where(seen, logps_BK[:, None] - given.old_logps, 0.0)
    ratio = 1 + bounded_expm1(difference)
    clip = {"clip_low": surrogate.clip_low, "clip_high": surrogate.clip_high}
    loss = jnp.sum(weight_BSK * clipped_surrogate(ratio, advantage, **clip))
    low = (ratio < 1 - surrogate.clip_low) & (advantage < 0)
    high = (ratio > 1 + surrogate.clip_high) & (advantage > 0)
    count, share = jnp.sum(seen).astype(jnp.float32), jnp.asarray(batch.step_share)

    def mean(values: jax.Array) -> tuple[Scalar, Scalar]:
        return jnp.sum(jnp.where(seen, values, 0)).astype(jnp.float32), count

    metrics: dict[str, tuple[Scalar, Scalar]] = {
        "loss/surrogate": (loss, share),
        "ratio": mean(ratio),
        "clip_ratio/low_mean": mean(low),
        "clip_ratio/high_mean": mean(high),
        "clip_ratio/region_mean": mean(low | high),
        "advantages": mean(advantage),
    }
    if surrogate.kl:
        assert given.reference_logps is not None
        weight_BK = jnp.sum(weight_BSK, axis=1)
        reference = jnp.where(weight_BK > 0, given.reference_logps, 0.0)
        divergence = k3(jnp.where(weight_BK > 0, logps_BK, 0.0), reference)
        penalty = surrogate.kl * jnp.sum(weight_BK * divergence)
        metrics |= {
            "loss/kl": (penalty, share),
            "kl": mean(jnp.broadcast_to(divergence[:, None], seen.shape)),
        }
        loss += penalty
    return loss, metrics
