"""What preference losses are made of: the margin, means over a step's pairs, and safe exponentials.

Log-probabilities are float32 [P] in nats; "side" arguments stand in the order policy_chosen,
policy_rejected, reference_chosen, reference_rejected everywhere.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

PreferenceLoss = Callable[..., jax.Array]
F = TypeVar("F", bound=PreferenceLoss)

# What a loss may ask for by naming it as a keyword-only parameter; each float32 [P].
PAIR_ARRAYS = ("chosen_tokens", "rejected_tokens", "chosen_reward", "rejected_reward", "weight")

# What a loss is given for a pair that is not there: one token a side, the chosen one of more reward.
HARMLESS_LOGP = -1.0
HARMLESS = {"chosen_tokens": 1.0, "rejected_tokens": 1.0, "chosen_reward": 1.0, "rejected_reward": 0.0}

EXP_LIMIT = 30.0


class Sides(NamedTuple):
    """Log-probabilities of the two sides of pairs, each float32 [P] in nats."""

    policy_chosen: jax.Array
    policy_rejected: jax.Array
    reference_chosen: jax.Array
    reference_rejected: jax.Array


def coupled(loss: F) -> F:
    """Mark a loss whose value for one pair depends on the other pairs of its optimizer step.

    Such a loss must ask for `weight` (0 for padding), so that padding never counts.
    """
    loss.coupled = True  # pyright: ignore[reportFunctionMemberAccess]
    return loss


def coupled_unless(option: str, *values: str) -> Callable[[F], F]:
    """Mark a loss as coupled unless an option of it has one of the values given."""

    def mark(loss: F) -> F:
        loss.uncoupled_by = (option, values)  # pyright: ignore[reportFunctionMemberAccess]
        return coupled(loss)

    return mark


def logratio_margin(
    policy_chosen: jax.Array,
    policy_rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
) -> jax.Array:
    """How much more the policy prefers the chosen side than the reference does, in nats [P]."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def mean_margin(
    policy_chosen: jax.Array,
    policy_rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    chosen_tokens: jax.Array,
    rejected_tokens: jax.Array,
) -> jax.Array:
    """The margin with each side's log-ratio averaged over its trained tokens, in nats per token [P]."""
    chosen = (policy_chosen - reference_chosen) / at_least_one(chosen_tokens)
    return chosen - (policy_rejected - reference_rejected) / at_least_one(rejected_tokens)


def smoothed_logistic(logits: jax.Array, label_smoothing: float) -> jax.Array:
    """-(1 - e) log sigmoid(x) - e log sigmoid(-x), written so that x = 0 gives exactly ln 2 for every e."""
    return -jax.nn.log_sigmoid(logits) + label_smoothing * logits


def at_least_one(tokens: jax.Array) -> jax.Array:
    """The token counts as divisors: a padding pair has none, and must not become 0 / 0."""
    return jnp.maximum(tokens, 1.0)


def step_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """The mean of [P] values over the step's pairs by their weights; 0 where no pair has a weight."""
    real = weight > 0
    # Divided by the largest first, so that equal weights are exactly 1 whatever is folded into them.
    share = jnp.where(real, weight, 0.0) / jnp.maximum(jnp.max(weight), jnp.finfo(jnp.float32).tiny)
    return jnp.sum(share * jnp.where(real, values, 0.0)) / jnp.maximum(jnp.sum(share), 1.0)


def bounded_expm1(x: jax.Array) -> jax.Array:
    """exp(x) - 1 up to x = 30, and its tangent there beyond: finite, and never without a gradient."""
    return jnp.expm1(jnp.minimum(x, EXP_LIMIT)) + jnp.exp(EXP_LIMIT) * jax.nn.relu(x - EXP_LIMIT)


def nll(policy_chosen: jax.Array, chosen_tokens: jax.Array, weight: jax.Array, average: str) -> jax.Array:
    """The negative log-likelihood of the chosen side, averaged as `average` says [P].

    Args:
      policy_chosen: float32 [P], summed over trained tokens, in nats.
      chosen_tokens: float32 [P], trained tokens of the chosen side.
      weight: float32 [P], 0 for padding.
      average: "step": over all chosen tokens of the step together, as TRL (long trajectories count for
        more; coupled); "trajectory": over each trajectory's own tokens; "sum": not at all.

    Raises:
      ValueError: another `average`.
    """
    if average == "step":
        return -policy_chosen / at_least_one(step_mean(chosen_tokens, weight))
    if average == "trajectory":
        return -policy_chosen / at_least_one(chosen_tokens)
    if average == "sum":
        return -policy_chosen
    raise ValueError(f"average: found {average!r}, expected 'step', 'trajectory' or 'sum'")


def require(holds: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition on an option holds."""
    if not holds:
        raise ValueError(message)
