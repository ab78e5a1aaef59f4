"""Preference losses: pure functions from summed log-probabilities to one loss per pair, and their names.

Every loss has the signature
`loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta, ...) -> [P]`
with float32 [P] arguments in nats, summed over trained tokens. Its other keyword-only parameters are arrays
it asks for by name (`PAIR_ARRAYS`) or options with defaults. Names and defaults are those of TRL 1.16 unless
a docstring says otherwise; u_chosen and u_rejected are the log-ratios log pi - log pi_ref of the two sides.
"""

import jax
import jax.numpy as jnp

from coevo_jax.learning.coupled_losses import aot, aot_unpaired, cpo, kto, orpo, sft
from coevo_jax.learning.loss_calls import call_loss, is_coupled
from coevo_jax.learning.loss_terms import (
    PAIR_ARRAYS,
    PreferenceLoss,
    at_least_one,
    coupled,
    logratio_margin,
    mean_margin,
    require,
    smoothed_logistic,
)

__all__ = [
    "PAIR_ARRAYS",
    "PREFERENCE_LOSSES",
    "PreferenceLoss",
    "call_loss",
    "coupled",
    "is_coupled",
    "logratio_margin",
    "wpo_weight",
]

SMALLEST_REWARD_GAP = 1e-6


def sigmoid(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """DPO: -log sigmoid(beta * margin). Rafailov et al., arXiv 2305.18290, eq. 7.

    `label_smoothing`: share e of pairs taken as labelled the wrong way round (conservative DPO, Mitchell
    2023): (1 - e) * loss + e * loss of the swapped pair. TRL 1.16 no longer has it on this loss.
    """
    require(0.0 <= label_smoothing < 0.5, f"label_smoothing: found {label_smoothing}, expected [0, 0.5)")
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return smoothed_logistic(beta * margin, label_smoothing)


def hinge(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """SLiC's hinge on the scaled margin: max(0, 1 - beta * margin). arXiv 2309.06657, eq. 10."""
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return jax.nn.relu(1.0 - beta * margin)


def ipo(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_tokens,
    rejected_tokens,
    average: bool = True,
) -> jax.Array:
    """IPO: (margin - 1 / (2 beta))^2, beta being the paper's tau. Azar et al., arXiv 2310.12036, eq. 17.

    `average`: the log-ratios are means over each side's trained tokens, as in TRL (whose authors had it
    confirmed by the paper's); false for sums, as eq. 17 reads.
    """
    sides = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    margin = mean_margin(*sides, chosen_tokens, rejected_tokens) if average else logratio_margin(*sides)
    return jnp.square(margin - 1.0 / (2.0 * beta))


def sigmoid_norm(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_tokens,
    rejected_tokens,
) -> jax.Array:
    """DPO on log-ratios averaged over each side's trained tokens, so that length earns nothing.

    Lambert et al., "Tulu 3", arXiv 2411.15124, length-normalised DPO: -log sigmoid(beta * (u_chosen /
    |chosen| - u_rejected / |rejected|)). beta is larger than DPO's by about the length (Tulu 3: 5).
    """
    sides = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -jax.nn.log_sigmoid(beta * mean_margin(*sides, chosen_tokens, rejected_tokens))


def exo_pair(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    label_smoothing: float = 1e-3,
) -> jax.Array:
    """EXO on pairs: the reverse KL from the policy's preference to the smoothed label.

    Ji et al., arXiv 2402.00856, eq. 16: KL((s, 1 - s) || (1 - e, e)), s = sigmoid(beta * margin).
    `label_smoothing`: e, above 0 (the KL is infinite at 0); 1e-3 as the paper (TRL has no default).
    """
    require(0.0 < label_smoothing < 0.5, f"label_smoothing: found {label_smoothing}, expected (0, 0.5)")
    logits = beta * logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    right = jax.nn.sigmoid(logits) * (jax.nn.log_sigmoid(logits) - jnp.log1p(-label_smoothing))
    return right + jax.nn.sigmoid(-logits) * (jax.nn.log_sigmoid(-logits) - jnp.log(label_smoothing))


def nca_pair(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """NCA on pairs: raises the chosen log-ratio itself and holds both down, noise-contrastively.

    Chen et al., arXiv 2402.05369, section 4.1, with K = 2: -log sigmoid(r_chosen) -
    (log sigmoid(-r_chosen) + log sigmoid(-r_rejected)) / 2, r = beta * u.
    """
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    held = jax.nn.log_sigmoid(-chosen) + jax.nn.log_sigmoid(-rejected)
    return -jax.nn.log_sigmoid(chosen) - 0.5 * held


def robust(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    label_smoothing: float = 0.1,
) -> jax.Array:
    """Robust DPO: an unbiased estimate of the DPO loss when labels are flipped at random.

    Chowdhury et al., arXiv 2403.00409, section 3.1: ((1 - e) * loss - e * loss of the swapped pair) /
    (1 - 2 e).
    `label_smoothing`: e, the probability of a flip, below 0.5; 0.1 as the paper (TRL: 0, which is DPO).
    """
    require(0.0 <= label_smoothing < 0.5, f"label_smoothing: found {label_smoothing}, expected [0, 0.5)")
    logits = beta * logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    clean, flipped = -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
    return ((1.0 - label_smoothing) * clean - label_smoothing * flipped) / (1.0 - 2.0 * label_smoothing)


def bco_pair(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    delta: float = 0.0,
) -> jax.Array:
    """BCO on pairs: two binary classifications, chosen against the shift and rejected against the shift.

    Jung et al., arXiv 2404.04656, section 4: -log sigmoid(beta * u_chosen - delta) -
    log sigmoid(-(beta * u_rejected - delta)).
    `delta`: the reward shift, a number here; 0 as in TRL 1.16, whereas the paper moves it with the mean of
    the rewards beta * u, which is 0 at the start of a round.
    """
    chosen = beta * (policy_chosen - reference_chosen) - delta
    rejected = beta * (policy_rejected - reference_rejected) - delta
    return -jax.nn.log_sigmoid(chosen) - jax.nn.log_sigmoid(-rejected)


def sppo_hard(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """SPPO with hard labels: both log-ratios regress to a target. Wu et al., arXiv 2405.00675, eq. 4.7.

    (u_chosen - 1 / (2 beta))^2 + (u_rejected + 1 / (2 beta))^2: the paper's eta is 1 / beta, and the win
    probabilities are 1 and 0.
    """
    target = 0.5 / beta
    chosen = jnp.square(policy_chosen - reference_chosen - target)
    return chosen + jnp.square(policy_rejected - reference_rejected + target)


def apo_zero(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """APO-zero: chosen up and rejected down, for chosen sides better than the policy's own.

    D'Oosterlinck et al., arXiv 2408.06266, eq. 7: 1 - sigmoid(r_chosen) + sigmoid(r_rejected), r = beta * u
    (the 1 is TRL's, so that the loss is never negative).
    """
    chosen = jax.nn.sigmoid(-beta * (policy_chosen - reference_chosen))
    return chosen + jax.nn.sigmoid(beta * (policy_rejected - reference_rejected))


def apo_down(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """APO-down: chosen down and rejected further down, for chosen sides worse than the policy's own.

    D'Oosterlinck et al., arXiv 2408.06266, eq. 8: sigmoid(r_chosen) + 1 - sigmoid(r_chosen - r_rejected),
    r = beta * u (the 1 is TRL's).
    """
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return jax.nn.sigmoid(beta * (policy_chosen - reference_chosen)) + jax.nn.sigmoid(-beta * margin)


def discopop(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    tau: float = 0.05,
) -> jax.Array:
    """DiscoPOP, the log-ratio modulated loss: logistic and exponential blended by the margin's sign.

    Lu et al., arXiv 2406.08414, eq. 5: (1 - m) * -log sigmoid(x) + m * exp(-x), x = beta * margin and
    m = sigmoid(x / tau). `tau`: temperature of the blend (TRL's discopop_tau), above 0 and at most 1.
    """
    require(0.0 < tau <= 1.0, f"tau: found {tau}, expected (0, 1]")
    logits = beta * logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    logistic = -jax.nn.log_sigmoid(logits) * jax.nn.sigmoid(-logits / tau)
    # One exponential of a number never above 0, where the product would be 0 * inf for very negative x.
    return logistic + jnp.exp(jax.nn.log_sigmoid(logits / tau) - logits)


def simpo(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_tokens,
    rejected_tokens,
    gamma: float = 0.5,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """SimPO: the logistic loss on average log-probabilities with a target margin; no reference.

    Meng et al., arXiv 2405.14734, eq. 6: -log sigmoid(beta * (log pi(chosen) / |chosen| -
    log pi(rejected) / |rejected|) - gamma).
    `gamma`: the target margin (TRL's simpo_gamma). `label_smoothing`: share of pairs labelled the wrong way
    round. TRL's CPOTrainer adds an NLL unless cpo_alpha is 0; here that is a mixture with `sft`.
    """
    require(0.0 <= label_smoothing < 0.5, f"label_smoothing: found {label_smoothing}, expected [0, 0.5)")
    margin = policy_chosen / at_least_one(chosen_tokens) - policy_rejected / at_least_one(rejected_tokens)
    return smoothed_logistic(beta * margin - gamma, label_smoothing)


def dpop(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    penalty: float = 50.0,
) -> jax.Array:
    """DPO-Positive: DPO with a penalty on a chosen side less likely than under the reference.

    Pal et al., "Smaug", arXiv 2402.13228, eq. 3: -log sigmoid(beta * (margin - penalty * max(0,
    log pi_ref(chosen) - log pi(chosen)))). `penalty`: the paper's lambda.
    """
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    lost = jax.nn.relu(reference_chosen - policy_chosen)
    return -jax.nn.log_sigmoid(beta * (margin - penalty * lost))


def odpo(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_reward,
    rejected_reward,
    alpha: float = 1.0,
    scale: str = "log",
) -> jax.Array:
    """ODPO: DPO with an offset that grows with how much better the environment found the chosen side.

    Amini et al., arXiv 2402.10571, section 3: -log sigmoid(beta * margin - alpha * f(reward gap)).
    `alpha`: weight of the offset. `scale`: f, "log" as the paper (a gap below 1e-6 counts as 1e-6) or
    "linear". With rewards in [0, 1] a logarithmic offset is never positive: it lets near ties be.
    """
    require(scale in ("log", "linear"), f"scale: found {scale!r}, expected 'log' or 'linear'")
    gap = chosen_reward - rejected_reward
    offset = alpha * (jnp.log(jnp.maximum(gap, SMALLEST_REWARD_GAP)) if scale == "log" else gap)
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -jax.nn.log_sigmoid(beta * margin - offset)


PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {
    "sigmoid": sigmoid,
    "hinge": hinge,
    "ipo": ipo,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "robust": robust,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "sft": sft,
    "sigmoid_norm": sigmoid_norm,
    "simpo": simpo,
    "orpo": orpo,
    "cpo": cpo,
    "dpop": dpop,
    "kto": kto,
    "odpo": odpo,
}


def wpo_weight(
    chosen_logweight: jax.Array, rejected_logweight: jax.Array, *, limit: float | None = 1.0
) -> jax.Array:
    """How likely the policy itself would have written both sides: WPO's weight of a pair, [P].

    Zhou et al., arXiv 2406.11827, eq. 2 with sampled alignment: the exponential of the sum over the two
    sides of the mean over trained tokens of log p - log sum_v p_v^2. No gradient flows through it.

    Args:
      chosen_logweight: float32 [P], that mean for the chosen side, in nats.
      rejected_logweight: float32 [P], for the rejected side.
      limit: the largest weight, 1 as the paper's code and TRL until 0.28; None for TRL 1.16, which has none.
    """
    weight = jnp.exp(chosen_logweight + rejected_logweight)
    return jax.lax.stop_gradient(weight if limit is None else jnp.minimum(weight, limit))
