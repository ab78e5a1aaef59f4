"""Draws of trajectories by the entropies that two models have on them (WMSS, arXiv 2602.08222)."""

import numpy as np


def draw_weights(
    weak: np.ndarray, strong: np.ndarray, *, alpha: float = 0.1, beta: float = 0.8, gamma: float = 0.1
) -> np.ndarray:
    """The probability of each trajectory to be drawn, float64 [N], which add up to 1.

    With H0 = weak, H1 = strong and D = H1 - H0, it is proportional to

        alpha * H0 / sum H0  +  beta * max(-D, 0) / sum max(-D, 0)  +  gamma * max(D, 0) / sum max(D, 0)

    (arXiv 2602.08222, with its weights). Inferred: a term whose sum is 0 is left out, as where both models
    are the same; where that leaves none, all trajectories are alike.

    Args:
      weak: mean entropy of each trajectory's agent tokens under the weak model, in nats, [N].
      strong: the same under the strong one.
    """
    weak, strong = (np.asarray(one, np.float64) for one in (weak, strong))
    change = strong - weak
    total = np.zeros(len(weak))
    for share, term in ((alpha, weak), (beta, np.maximum(-change, 0)), (gamma, np.maximum(change, 0))):
        if share > 0 and term.sum() > 0:
            total += share * term / term.sum()
    return total / total.sum() if total.sum() > 0 else np.full(len(weak), 1 / max(len(weak), 1))


def draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of the weights' items comes up in `count` draws with replacement, int64 [N].

    Draw i is the first item at which the running sum of the weights exceeds the i-th uniform number of `rng`.
    """
    if not len(weights):
        return np.zeros(0, np.int64)
    places = np.searchsorted(np.cumsum(weights), rng.random(count), side="right")
    return np.bincount(np.minimum(places, len(weights) - 1), minlength=len(weights))


def drawn_factors(counts: dict[int, int]) -> dict[int, float]:
    """By how much the weight of each drawn trajectory is multiplied, by index; the others are left out.

    What is drawn k times is learned from once, with k times its weight; the factors are scaled so that their
    mean is 1. That a trajectory stands once is inferred: in a step it pulls as k copies would, and is encoded
    once.
    """
    drawn = {index: count for index, count in counts.items() if count}
    return {index: count * len(drawn) / sum(drawn.values()) for index, count in drawn.items()}
