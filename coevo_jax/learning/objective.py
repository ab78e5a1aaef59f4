"""The objective of one optimizer step: preference losses, the SFT term and the surrogate, and their metrics.

Metrics are (numerator, denominator), so that sharding and accumulation over microbatches never change them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from coevo_jax.batch import Array, PreferenceBatch, Scalar
from coevo_jax.learning.loss_terms import HARMLESS, HARMLESS_LOGP, Sides
from coevo_jax.learning.preference_losses import (
    PreferenceLoss,
    call_loss,
    is_coupled,
    logratio_margin,
    wpo_weight,
)
from coevo_jax.learning.surrogate import Surrogate, reinforce

Metrics = dict[str, tuple[Scalar, Scalar]]


@dataclass(frozen=True, kw_only=True)
class AgentLoss:
    """What an agent minimises over its pairs; equal ones share a compiled program."""

    kinds: tuple[str, ...]  # of pairs, in the order of their numbers in a batch
    by_kind: tuple[PreferenceLoss, ...]  # one per kind
    wpo: bool = False  # weigh pairs by the policy's confidence in both sides
    surrogate: Surrogate | None = None  # of what is reinforced; None where nothing is

    @property
    def coupled(self) -> bool:
        """Whether a pair's loss depends on the other pairs of its optimizer step."""
        return any(is_coupled(loss) for loss in self.by_kind)


def one_loss(loss: PreferenceLoss, kinds: Sequence[str]) -> AgentLoss:
    """An agent's loss that treats every kind of pair with the same loss."""
    return AgentLoss(kinds=tuple(kinds), by_kind=(loss,) * len(kinds))


def objective(
    policy_logps: jax.Array,
    confidence: jax.Array | None,
    batch: PreferenceBatch,
    *,
    beta: jax.Array,
    loss: AgentLoss,
    token_logps: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """Sum of weight[p] * loss[p] over pairs minus sum of sft_weight[n] * logps[n] over views.

    Where a batch has a reinforcement, its surrogate is added.

    With weights folded by `data.packing`, this is METHOD's
    lambda_dpo * mean DPO + lambda_sft * mean SFT(chosen) (arXiv 2511.22254; ETO, arXiv 2403.02502).

    Args:
      policy_logps: float32 [N] in nats.
      confidence: float32 [N] where the loss weighs by WPO (see `logps.view_logps`), else None.
      token_logps: float32 [B, K] in nats, of the scored tokens; what a reinforcement needs.
    """
    sides = pair_sides(policy_logps, batch)
    real = jnp.asarray(batch.weight) > 0
    losses = pair_losses(sides, batch, beta, loss)
    if loss.wpo:
        assert confidence is not None
        losses *= wpo_weight(confidence[batch.chosen], confidence[batch.rejected])
    preference = jnp.sum(jnp.where(real, batch.weight * losses, 0.0))
    sft = -jnp.sum(batch.sft_weight * policy_logps)
    total = preference + sft
    metrics = pair_metrics(sides, losses, real, batch.kind, beta, loss.kinds)
    share = jnp.asarray(batch.step_share)
    metrics |= {"loss": (total, share), "loss/preference": (preference, share), "loss/sft": (sft, share)}
    # By the SFT term's own weights: a trajectory that stands in two microbatches has a share in each.
    metrics["sft/token_logp"] = (-sft, jnp.sum(batch.sft_weight * batch.token_count))
    metrics["tokens"] = (jnp.sum(batch.tokens.scored).astype(jnp.float32), share)
    metrics["pairs"] = (jnp.sum(real).astype(jnp.float32), share)
    if batch.reinforcement is not None:
        assert token_logps is not None and loss.surrogate is not None
        term, own = reinforce(token_logps, batch, loss.surrogate)
        total += term
        metrics |= own | {"loss": (total, share)}
    return total, metrics


def pair_sides(policy_logps: jax.Array, batch: PreferenceBatch) -> Sides:
    """The sides of a batch's pairs, out of the log-probabilities of its views, [N]."""
    reference = jnp.asarray(batch.reference_logps)
    return Sides(
        policy_chosen=policy_logps[batch.chosen],
        policy_rejected=policy_logps[batch.rejected],
        reference_chosen=reference[batch.chosen],
        reference_rejected=reference[batch.rejected],
    )


def pair_losses(sides: Sides, batch: PreferenceBatch, beta: jax.Array, loss: AgentLoss) -> jax.Array:
    """Each pair's loss by its kind, [P]; a loss sees only pairs of its own kinds with a weight above 0.

    In the place of all others it sees harmless ones: a value that is left out afterwards still has a
    gradient, and 0 times an infinite one (of a division by a reward gap of 0, say) is not a number.
    """
    tokens = jnp.asarray(batch.token_count).astype(jnp.float32)
    reward, kind = jnp.asarray(batch.reward), jnp.asarray(batch.kind)
    arrays = {
        "chosen_tokens": tokens[batch.chosen],
        "rejected_tokens": tokens[batch.rejected],
        "chosen_reward": reward[batch.chosen],
        "rejected_reward": reward[batch.rejected],
    }
    losses = jnp.zeros(kind.shape, jnp.float32)
    for one in dict.fromkeys(loss.by_kind):
        kinds = jnp.asarray([i for i, other in enumerate(loss.by_kind) if other == one])
        own = (kind[:, None] == kinds).any(axis=1)
        weight = jnp.where(own, batch.weight, 0.0)
        seen = own & (weight > 0)
        shown = Sides(*(jnp.where(seen, side, HARMLESS_LOGP) for side in sides))
        named = {name: jnp.where(seen, array, HARMLESS[name]) for name, array in arrays.items()}
        values = call_loss(one, shown, beta, named | {"weight": weight})
        losses = jnp.where(seen, values, losses)
    return losses


def pair_metrics(
    sides: Sides,
    pair_losses: jax.Array,
    real: Array,
    kind: Array,
    beta: jax.Array,
    kinds: Sequence[str],
) -> Metrics:
    """TRL's pair metrics over all pairs and, with the kind's name appended, over each kind of pair."""
    margin = beta * logratio_margin(*sides)
    values = {
        "loss/pair": pair_losses,
        "rewards/chosen": beta * (sides.policy_chosen - sides.reference_chosen),
        "rewards/rejected": beta * (sides.policy_rejected - sides.reference_rejected),
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).astype(jnp.float32),
        "logps/chosen": sides.policy_chosen,
        "logps/rejected": sides.policy_rejected,
    }
    groups = {"": real} | {f"/{name}": real & (kind == i) for i, name in enumerate(kinds)}
    return {
        name + suffix: (jnp.sum(jnp.where(mask, value, 0.0)), jnp.sum(mask).astype(jnp.float32))
        for suffix, mask in groups.items()
        for name, value in values.items()
    }
