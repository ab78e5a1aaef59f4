"""The clipped surrogate of a first step in float64, from stored log-probabilities and a plain forward pass.

a token's loss    -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A),  ratio = exp(log pi - stored)
its divergence    exp(d) - d - 1,  d = log pi_ref - log pi
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from coevo_jax.audit.forward import Agents
from coevo_jax.audit.reinforced import own_weights, places_of, step_weights, turns_of
from coevo_jax.audit.step_plan import StepPlan


def surrogate_metrics(
    course: StepPlan,
    step: Mapping[int, Any],
    agents: Agents,
    policy: tuple[int, str],
    reference: tuple[int, str],
) -> dict[str, float]:
    """What the log is to say of a step's reinforced trajectories, by the names that it has there.

    Args:
      step: its microbatches by their numbers.
      policy: checkpoint and agent that takes the step.
      reference: checkpoint and agent that it is tied to.
    """
    config = course.config.surrogate
    numbers = [
        view["trajectory"]
        for micro in step.values()
        for view in micro["views"]
        if view["trajectory"] in course.reinforced
    ]
    if not numbers:
        return {"loss/surrogate": 0.0} | ({"loss/kl": 0.0} if config.kl else {})
    sides = {number: course.sides[number] for number in numbers}
    factors = step_weights(sides, course.reinforced, config.reduction)
    first = {number: course.reinforced[number].first for number in numbers}
    places = {number: places_of(sides[number], first[number]) for number in numbers}
    weights = np.concatenate(
        [factors[n] * own_weights(sides[n], config.reduction, first[n]) for n in numbers]
    )
    turns = {number: turns_of(sides[number], first[number]) for number in numbers}
    advantages = np.concatenate([course.reinforced[n].advantages[turns[n]] for n in numbers])
    stored = np.concatenate([sides[n].episode.logps[places[n]] for n in numbers])

    def logps(number: int, agent: str) -> np.ndarray:
        rows = [sides[n].episode.tokens[: sides[n].length] for n in numbers]
        scored = agents.score(number, agent, rows)
        return np.concatenate([one.logps[places[n]] for one, n in zip(scored, numbers, strict=True)])

    now = logps(*policy)
    ratio = np.exp(now - stored)
    low = (ratio < 1 - config.clip_low) & (advantages < 0)
    high = (ratio > 1 + config.clip_high) & (advantages > 0)
    bounded = np.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    found = {
        "loss/surrogate": -float(np.sum(weights * np.minimum(ratio * advantages, bounded * advantages))),
        "ratio": float(ratio.mean()),
        "clip_ratio/low_mean": float(low.mean()),
        "clip_ratio/high_mean": float(high.mean()),
        "clip_ratio/region_mean": float((low | high).mean()),
        "advantages": float(advantages.mean()),
    }
    if config.kl:
        d = (now if reference == policy else logps(*reference)) - now
        divergence = np.expm1(d) - d
        found |= {"kl": float(divergence.mean()), "loss/kl": config.kl * float(np.sum(weights * divergence))}
    return found
