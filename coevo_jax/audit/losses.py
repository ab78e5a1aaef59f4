"""Preference losses in float64 NumPy, written from their papers' equations: what a step's loss has to be.

Arguments are summed log-probabilities in nats, one for each pair; u is log pi - log pi_ref of a side, r is
beta * u, and x = beta * (u_chosen - u_rejected). "Coupled" losses look at all pairs of a step together, by
their weights. A loss that is not here is not checkable.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo_jax.audit.check import NotCheckable

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """The pairs of a step that share a loss; float64 [P] each."""

    policy_chosen: np.ndarray
    policy_rejected: np.ndarray
    reference_chosen: np.ndarray
    reference_rejected: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    chosen_reward: np.ndarray
    rejected_reward: np.ndarray
    weight: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected(self) -> np.ndarray:
        return self.policy_rejected - self.reference_rejected

    @property
    def margin(self) -> np.ndarray:
        return self.chosen - self.rejected

    @property
    def mean_margin(self) -> np.ndarray:
        """The margin of the log-ratios' means over each side's trained tokens."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens

    def averaged(self, values: np.ndarray) -> float:
        """The mean over the step's pairs by their weights."""
        return float(np.sum(self.weight * values) / np.sum(self.weight))


Loss = Callable[[Pairs, float, Options], np.ndarray]


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    """The logarithm of the logistic function, without overflow."""
    return -np.logaddexp(0.0, -x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.exp(log_sigmoid(x))


def logistic(x: np.ndarray, smoothing: float) -> np.ndarray:
    """The logistic loss where a share of the labels is taken as wrong."""
    return -(1 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x)


def _dpo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2305.18290, eq. 7."""
    return logistic(beta * p.margin, o.get("label_smoothing", 0.0))


def _hinge(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2309.06657, eq. 10."""
    return np.maximum(0.0, 1 - beta * p.margin)


def _ipo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2310.12036, eq. 17."""
    margin = p.mean_margin if o.get("average", True) else p.margin
    return (margin - 0.5 / beta) ** 2


def _sigmoid_norm(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2411.15124."""
    return -log_sigmoid(beta * p.mean_margin)


def _exo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2402.00856, eq. 16: KL of the policy's preference from the smoothed label."""
    e = o.get("label_smoothing", 1e-3)
    x = beta * p.margin
    return sigmoid(x) * (log_sigmoid(x) - np.log(1 - e)) + sigmoid(-x) * (log_sigmoid(-x) - np.log(e))


def _nca(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2402.05369, section 4.1."""
    chosen, rejected = beta * p.chosen, beta * p.rejected
    return -log_sigmoid(chosen) - 0.5 * log_sigmoid(-chosen) - 0.5 * log_sigmoid(-rejected)


def _robust(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2403.00409, section 3.1."""
    e = o.get("label_smoothing", 0.1)
    x = beta * p.margin
    return (-(1 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1 - 2 * e)


def _bco(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2404.04656, section 4."""
    delta = o.get("delta", 0.0)
    return -log_sigmoid(beta * p.chosen - delta) - log_sigmoid(delta - beta * p.rejected)


def _sppo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2405.00675, eq. 4.7, with eta = 1 / beta."""
    return (p.chosen - 0.5 / beta) ** 2 + (p.rejected + 0.5 / beta) ** 2


def _apo_zero(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2408.06266, eq. 7."""
    return 1 - sigmoid(beta * p.chosen) + sigmoid(beta * p.rejected)


def _apo_down(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2408.06266, eq. 8."""
    return sigmoid(beta * p.chosen) + 1 - sigmoid(beta * p.margin)


def _discopop(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2406.08414, eq. 5."""
    x = beta * p.margin
    blend = sigmoid(x / o.get("tau", 0.05))
    return -(1 - blend) * log_sigmoid(x) + blend * np.exp(-x)


def _simpo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2405.14734, eq. 6."""
    margin = p.policy_chosen / p.chosen_tokens - p.policy_rejected / p.rejected_tokens
    return logistic(beta * margin - o.get("gamma", 0.5), o.get("label_smoothing", 0.0))


def _dpop(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2402.13228, eq. 3."""
    return -log_sigmoid(beta * (p.margin - o.get("penalty", 50.0) * np.maximum(0.0, -p.chosen)))


def _odpo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2402.10571, section 3; gaps below 1e-6 count as 1e-6 under the logarithm."""
    gap = p.chosen_reward - p.rejected_reward
    offset = np.log(np.maximum(gap, 1e-6)) if o.get("scale", "log") == "log" else gap
    return -log_sigmoid(beta * p.margin - o.get("alpha", 1.0) * offset)


def _clone(p: Pairs, average: str) -> np.ndarray:
    """Negative log-likelihood of the chosen side: over all chosen tokens of the step, its own, or summed."""
    tokens = {"step": p.averaged(p.chosen_tokens), "trajectory": p.chosen_tokens, "sum": 1.0}[average]
    return -p.policy_chosen / tokens


def _sft(p: Pairs, beta: float, o: Options) -> np.ndarray:
    return _clone(p, o.get("average", "step"))


def _cpo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2401.08417, eq. 3."""
    x = beta * (p.policy_chosen - p.policy_rejected)
    cloned = _clone(p, o.get("average", "step"))
    return logistic(x, o.get("label_smoothing", 0.0)) + o.get("alpha", 1.0) * cloned


def _orpo(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2403.07691, eq. 4 to 7; a mean above -1e-6 counts as certain."""
    means = p.policy_chosen / p.chosen_tokens, p.policy_rejected / p.rejected_tokens
    chosen, rejected = (m - np.log(-np.expm1(m)) for m in (np.minimum(mean, -1e-6) for mean in means))
    return _clone(p, o.get("average", "step")) - beta * log_sigmoid(chosen - rejected)


def _kto(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2402.01306, eq. 7, with the drift over both sides of the step."""
    drift = max(0.0, p.averaged((p.chosen + p.rejected) / 2))
    desirable = o.get("desirable_weight", 1.0) * (1 - sigmoid(beta * (p.chosen - drift)))
    undesirable = o.get("undesirable_weight", 1.0) * (1 - sigmoid(beta * (drift - p.rejected)))
    return (desirable + undesirable) / 2


def _aot(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """arXiv 2406.05882, section 3: sorted margins of the policy against those of the reference."""
    policy, reference = p.policy_chosen - p.policy_rejected, p.reference_chosen - p.reference_rejected
    return transport(policy, reference, p.weight, lambda x: logistic(beta * x, o.get("label_smoothing", 0.0)))


def _aot_unpaired(p: Pairs, beta: float, o: Options) -> np.ndarray:
    """The same between the chosen and the rejected sides' log-ratios."""
    smoothing = o.get("label_smoothing", 0.0)
    return transport(p.chosen, p.rejected, p.weight, lambda x: logistic(beta * x, smoothing))


def transport(
    upper: np.ndarray, lower: np.ndarray, weight: np.ndarray, cost: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The mean cost of each item of `upper` in the monotone transport between two weighted samples."""
    mass = weight / weight.max()
    ends = [_quantiles(values, mass) for values in (upper, lower)]
    starts = [end - mass for end in ends]
    costs = np.zeros(len(upper))
    for i in range(len(upper)):
        meets = np.minimum(ends[0][i], ends[1]) - np.maximum(starts[0][i], starts[1])
        meets = np.where(meets > 1e-9, meets, 0.0)
        costs[i] = np.sum(meets * cost(upper[i] - lower)) / mass[i]
    return costs


def _quantiles(values: np.ndarray, mass: np.ndarray) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    ends = np.zeros(len(values))
    ends[order] = np.cumsum(mass[order])
    return ends


LOSSES: dict[str, Loss] = {
    "sigmoid": _dpo,
    "hinge": _hinge,
    "ipo": _ipo,
    "sigmoid_norm": _sigmoid_norm,
    "exo_pair": _exo,
    "nca_pair": _nca,
    "robust": _robust,
    "bco_pair": _bco,
    "sppo_hard": _sppo,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "simpo": _simpo,
    "dpop": _dpop,
    "odpo": _odpo,
    "sft": _sft,
    "cpo": _cpo,
    "orpo": _orpo,
    "kto": _kto,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
}


def score(u: np.ndarray, divergence: str, alpha: float) -> np.ndarray:
    """A log-ratio's score under an f-divergence: f'(exp(u)) up to a constant (arXiv 2309.16240, table 1).

    The exponentials go on along their tangent beyond 30 nats.
    """
    if divergence == "reverse_kl":
        return u
    if divergence == "js":
        return np.log(2.0) + log_sigmoid(u)
    alpha = 1.0 if divergence == "forward_kl" else alpha
    x = -alpha * u
    return -(np.expm1(np.minimum(x, 30.0)) + np.exp(30.0) * np.maximum(x - 30.0, 0.0)) / alpha


def losses_of(
    terms: Mapping[str, float],
    pairs: Pairs,
    beta: float,
    options: Mapping[str, Options],
    divergence: str,
    alpha: float,
) -> np.ndarray:
    """The weighted sum of losses, float64 [P].

    Raises:
      NotCheckable: one of them has no derivation here.
    """
    total = np.zeros(len(pairs.weight))
    for name, share in terms.items():
        if name not in LOSSES:
            raise NotCheckable(f"no independent derivation of loss {name}")
        seen = pairs if divergence == "reverse_kl" or name == "sft" else _diverging(pairs, divergence, alpha)
        total += share * LOSSES[name](seen, beta, options.get(name, {}))
    return total


def _diverging(pairs: Pairs, divergence: str, alpha: float) -> Pairs:
    zero = np.zeros(len(pairs.weight))
    changed = {
        "policy_chosen": score(pairs.chosen, divergence, alpha),
        "policy_rejected": score(pairs.rejected, divergence, alpha),
        "reference_chosen": zero,
        "reference_rejected": zero,
    }
    return Pairs(**(vars(pairs) | changed))
