"""Preference losses in which a pair's value depends on the other pairs of its optimizer step.

All ask for `weight` (float32 [P], 0 for padding): a pair with weight 0 never changes another's value, and
weights that differ count as the masses of the step's empirical distribution.
"""

import jax
import jax.numpy as jnp

from coevo_jax.learning.loss_terms import (
    at_least_one,
    coupled,
    coupled_unless,
    nll,
    require,
    smoothed_logistic,
    step_mean,
)

# Below this an average log-probability of a token is taken for certainty: log(1 - p) stays finite.
NEAREST_TO_CERTAIN = -1e-6


@coupled
def aot(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    weight,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """AOT on pairs: the logistic loss between the sorted margins of the policy and those of the reference.

    Melnyk et al., arXiv 2406.05882, section 3: -log sigmoid(beta * (u_(i) - v_(i))) with u = log pi(chosen) -
    log pi(rejected), v the same under the reference, (i) the i-th smallest. The value stands at the pair
    whose u_(i) it is. Differing weights move mass along the quantiles (see `_transport`).
    `label_smoothing`: share of pairs taken as labelled the wrong way round.
    """
    _check_smoothing(label_smoothing)
    policy = policy_chosen - policy_rejected
    return _transport(policy, reference_chosen - reference_rejected, weight, beta, label_smoothing)


@coupled
def aot_unpaired(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    weight,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """AOT without pairs: the logistic loss between sorted chosen and sorted rejected log-ratios.

    Melnyk et al., arXiv 2406.05882, section 3: the chosen side's distribution of log pi / pi_ref shall
    dominate the rejected side's. The value stands at the pair of the chosen side.
    `label_smoothing`: share of pairs taken as labelled the wrong way round.
    """
    _check_smoothing(label_smoothing)
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    return _transport(chosen, rejected, weight, beta, label_smoothing)


def _transport(
    upper: jax.Array, lower: jax.Array, weight: jax.Array, beta: jax.Array, label_smoothing: float
) -> jax.Array:
    """The cost per pair of the optimal (monotone) transport between two weighted samples [P].

    Each sample is a step function of the quantile, item i holding an interval as long as its weight. The
    cost of item i of `upper` is the mean of the logistic cost over the items of `lower` its interval meets;
    with equal weights that is exactly the item of equal rank.
    """
    real = weight > 0
    # Equal weights become exactly 1, so that the intervals' ends are exact integers.
    mass = jnp.where(real, weight, 0.0) / jnp.maximum(jnp.max(weight), jnp.finfo(jnp.float32).tiny)
    start, end = _intervals(upper, mass)
    other_start, other_end = _intervals(lower, mass)
    shared = jnp.minimum(end[:, None], other_end) - jnp.maximum(start[:, None], other_start)  # [P, P]
    shared = jnp.maximum(shared, 0.0) / jnp.where(real, mass, 1.0)[:, None]
    cost = smoothed_logistic(beta * (upper[:, None] - lower), label_smoothing)
    return jnp.sum(jnp.where(shared > 0, shared * cost, 0.0), axis=1)


def _intervals(values: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where each item's mass begins and ends when the items stand in ascending order [P]."""
    order = jnp.argsort(jax.lax.stop_gradient(values))
    end = jnp.zeros_like(mass).at[order].set(jnp.cumsum(mass[order]))
    return end - mass, end


@coupled
def kto(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    weight,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> jax.Array:
    """KTO on pairs: each side's own value against the policy's drift from the reference, no margin.

    Ethayarajh et al., arXiv 2402.01306, eq. 7: the mean over the two sides of
    lambda_D * (1 - sigmoid(beta * (u_chosen - z))) and lambda_U * (1 - sigmoid(beta * (z - u_rejected))),
    u = log pi / pi_ref. z = max(0, mean of u over mismatched completions), without gradient: here a prompt's
    mismatched completion is the other side of its pair, so z is the mean over both sides of the step.
    `desirable_weight`, `undesirable_weight`: lambda_D and lambda_U.
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    drift = jax.lax.stop_gradient(jnp.maximum(step_mean((chosen + rejected) / 2, weight), 0.0))
    desirable = desirable_weight * jax.nn.sigmoid(-beta * (chosen - drift))
    undesirable = undesirable_weight * jax.nn.sigmoid(-beta * (drift - rejected))
    return (desirable + undesirable) / 2


@coupled_unless("average", "trajectory", "sum")
def sft(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_tokens,
    weight,
    average: str = "step",
) -> jax.Array:
    """Behaviour cloning of the chosen side, as TRL's loss type of that name; for mixtures.

    -log pi(chosen), averaged by `average`: "step" (TRL's: over all chosen tokens of the step together),
    "trajectory" (over its own tokens) or "sum". Only "step" is coupled. beta does not matter.
    """
    return nll(policy_chosen, chosen_tokens, weight, average)


@coupled_unless("average", "trajectory", "sum")
def cpo(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_tokens,
    weight,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
    average: str = "step",
) -> jax.Array:
    """CPO: DPO with a uniform reference plus behaviour cloning of the chosen side.

    Xu et al., arXiv 2401.08417, eq. 3: -log sigmoid(beta * (log pi(chosen) - log pi(rejected))) +
    alpha * NLL(chosen). The reference does not matter.
    `alpha`: weight of the NLL (TRL's cpo_alpha). `label_smoothing`: share of pairs labelled the wrong way
    round. `average`: how the NLL is averaged, see `sft`; "step" as TRL, "sum" as the paper writes it.
    """
    _check_smoothing(label_smoothing)
    preference = smoothed_logistic(beta * (policy_chosen - policy_rejected), label_smoothing)
    return preference + alpha * nll(policy_chosen, chosen_tokens, weight, average)


@coupled_unless("average", "trajectory", "sum")
def orpo(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_tokens,
    rejected_tokens,
    weight,
    average: str = "step",
) -> jax.Array:
    """ORPO: behaviour cloning of the chosen side plus beta times a log odds ratio loss.

    Hong et al., arXiv 2403.07691, eq. 4 to 7: NLL(chosen) - beta * log sigmoid(log odds(chosen) -
    log odds(rejected)), odds = p / (1 - p) with p the geometric mean of the tokens' probabilities.
    beta is the paper's lambda. The reference does not matter.
    `average`: how the NLL is averaged, see `sft`; "step" as TRL (which counts the prompt's tokens too, no
    trained tokens here), "trajectory" as the paper.
    """
    chosen = _log_odds(policy_chosen / at_least_one(chosen_tokens))
    rejected = _log_odds(policy_rejected / at_least_one(rejected_tokens))
    ratio = -jax.nn.log_sigmoid(chosen - rejected)
    return nll(policy_chosen, chosen_tokens, weight, average) + beta * ratio


def _log_odds(logp: jax.Array) -> jax.Array:
    """log(p / (1 - p)) from log p <= 0."""
    logp = jnp.minimum(logp, NEAREST_TO_CERTAIN)
    near = logp > -0.6931472  # either form loses digits on the other's half
    small = jnp.log(-jnp.expm1(jnp.where(near, logp, -1.0)))
    large = jnp.log1p(-jnp.exp(jnp.where(near, -1.0, logp)))
    return logp - jnp.where(near, small, large)


def _check_smoothing(label_smoothing: float) -> None:
    require(
        0.0 <= label_smoothing < 0.5,
        f"label_smoothing: found {label_smoothing}, expected a share of pairs from 0 to below 0.5",
    )
