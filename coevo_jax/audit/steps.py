"""The pairs of steps as losses see them, from a phase's plan and log-probabilities."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.losses import Pairs, losses_of
from coevo_jax.audit.plans import side_problems, turns_said
from coevo_jax.audit.step_plan import StepPlan, Weighed
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.recipe import KindWeights

Place = tuple[int, int]  # microbatch, n


@lru_cache(maxsize=1)  # the checks of a phase follow each other
def views_of(course: StepPlan) -> tuple[dict[Place, Weighed], list[list[int]]]:
    """How every view is to be weighed, and the numbers of every step's microbatches.

    Raises:
      NotCheckable: the plan's trajectories are others, so that its views mean nothing here.
    """
    other = next(side_problems("the plan", course.plan, course.sides), None)
    if other is not None:
        raise NotCheckable(f"the phase learned from other trajectories than the recipe's: {other}")
    weighed: dict[Place, Weighed] = {}
    steps: list[list[int]] = []
    number = 0
    for step in course.plan["steps"]:
        steps.append(list(range(number, number + len(step))))
        for micro in step:
            for one in micro["pairs"]:
                for role, view in zip(("chosen", "rejected"), course.views(one["pair"]), strict=True):
                    weighed[number, one[role]] = view
            for view in micro["views"]:
                own = course.weighed(view["trajectory"], turns_said(view))
                weighed.setdefault((number, view["n"]), own)
            number += 1
    return weighed, steps


def pairs_of(
    course: StepPlan,
    real: Sequence[tuple[int, Any]],
    weights: np.ndarray,
    weighed: Mapping[Place, Weighed],
    policy: Mapping[Place, float],
    reference: np.ndarray,
) -> Pairs:
    """What a loss needs of pairs, each a microbatch's number and what the plan says of the pair."""
    chosen, rejected = ([(micro, one[role]) for micro, one in real] for role in ("chosen", "rejected"))
    rewards = [
        np.array([course.sides[weighed[place].side].episode.reward for place in places])
        for places in (chosen, rejected)
    ]
    return Pairs(
        policy_chosen=np.array([policy[place] for place in chosen]),
        policy_rejected=np.array([policy[place] for place in rejected]),
        reference_chosen=np.array([reference[place] for place in chosen]),
        reference_rejected=np.array([reference[place] for place in rejected]),
        chosen_tokens=np.array([max(weighed[place].tokens, 1) for place in chosen], np.float64),
        rejected_tokens=np.array([max(weighed[place].tokens, 1) for place in rejected], np.float64),
        chosen_reward=rewards[0],
        rejected_reward=rewards[1],
        weight=weights,
    )


def loss_terms(
    config: AgentConfig, weights_of: Mapping[str, KindWeights]
) -> dict[tuple[tuple[str, float], ...], list[str]]:
    """The losses in use, as mixtures, and the kinds of pairs that have them."""
    by_terms: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for kind, weights in weights_of.items():
        if weights.dpo > 0:
            terms = weights.loss or config.loss
            mixture = {terms: 1.0} if isinstance(terms, str) else terms
            by_terms.setdefault(tuple(sorted(mixture.items())), []).append(kind)
    return by_terms


def pair_losses(
    config: AgentConfig,
    weights_of: Mapping[str, KindWeights],
    kinds: np.ndarray,
    pairs: Pairs,
    beta: float,
) -> np.ndarray:
    """Each pair's loss; kinds with the same loss are one step's pairs to a loss that couples them.

    Args:
      weights_of: every kind that is learned from.
      kinds: of the pairs.
    """
    values = np.zeros(len(kinds))
    for terms, own in loss_terms(config, weights_of).items():
        mask = np.isin(kinds, own)
        if mask.any():
            seen = Pairs(**{name: array[mask] for name, array in vars(pairs).items()})
            values[mask] = losses_of(
                dict(terms), seen, beta, config.loss_options, config.divergence, config.divergence_alpha
            )
    return values
