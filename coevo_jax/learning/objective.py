"""The objective of one step: weighted preference losses plus the SFT term, and metrics per kind of pair.

Metrics are (numerator, denominator) so that sharding and accumulation never change them.
"""

import jax
import jax.numpy as jnp

from coevo_jax.batch import Array, PreferenceBatch, Scalar
from coevo_jax.learning.preference_losses import PreferenceLoss, logratio_margin
from coevo_jax.trajectory import PAIR_KINDS

Metrics = dict[str, tuple[Scalar, Scalar]]


def objective(
    policy_logps: jax.Array, batch: PreferenceBatch, *, beta: jax.Array, loss: PreferenceLoss
) -> tuple[jax.Array, Metrics]:
    """Sum of weight[p] * loss[p] over pairs minus sum of sft_weight[n] * logps[n] over trajectories.

    With weights folded by `data.packing`, this is METHOD's
    lambda_dpo * mean DPO + lambda_sft * mean SFT(chosen) (arXiv 2511.22254; ETO, arXiv 2403.02502).

    Args:
      policy_logps: float32 [N] in nats.
    """
    sides = (
        policy_logps[batch.chosen],
        policy_logps[batch.rejected],
        jnp.asarray(batch.reference_logps)[batch.chosen],
        jnp.asarray(batch.reference_logps)[batch.rejected],
    )
    pair_losses = loss(*sides, beta=beta)
    real = batch.weight > 0
    preference = jnp.sum(jnp.where(real, batch.weight * pair_losses, 0.0))
    sft = -jnp.sum(batch.sft_weight * policy_logps)
    total = preference + sft
    metrics = pair_metrics(sides, pair_losses, real, batch.kind, beta)
    one = jnp.float32(1)
    metrics |= {"loss": (total, one), "loss/preference": (preference, one), "loss/sft": (sft, one)}
    imitated = batch.sft_weight > 0
    metrics["sft/token_logp"] = (
        jnp.sum(jnp.where(imitated, policy_logps, 0.0)),
        jnp.sum(jnp.where(imitated, batch.token_count, 0)).astype(jnp.float32),
    )
    metrics["tokens"] = (jnp.sum(batch.token_count).astype(jnp.float32), one)
    metrics["pairs"] = (jnp.sum(real).astype(jnp.float32), one)
    return total, metrics


def pair_metrics(
    sides: tuple[jax.Array, ...], pair_losses: jax.Array, real: Array, kind: Array, beta: jax.Array
) -> Metrics:
    """TRL's pair metrics over all pairs and, with the kind's name appended, over each kind of pair."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = sides
    margin = beta * logratio_margin(*sides)
    values = {
        "loss/pair": pair_losses,
        "rewards/chosen": beta * (policy_chosen - reference_chosen),
        "rewards/rejected": beta * (policy_rejected - reference_rejected),
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).astype(jnp.float32),
        "logps/chosen": policy_chosen,
        "logps/rejected": policy_rejected,
    }
    groups = {"": real} | {f"/{name}": real & (kind == i) for i, name in enumerate(PAIR_KINDS)}
    return {
        name + suffix: (jnp.sum(jnp.where(mask, value, 0.0)), jnp.sum(mask).astype(jnp.float32))
        for suffix, mask in groups.items()
        for name, value in values.items()
    }
