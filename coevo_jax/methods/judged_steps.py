"""Advantages of turns by what a discriminator thinks of them: inverse reinforcement learning by steps."""

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from coevo_jax.methods.advantages import Norm, relative
from coevo_jax.methods.material import Material, Reinforced
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Trajectory

Reward = Literal["gail", "airl"]
Among = Literal["state", "task", "round"]


def judged_steps(
    material: Material,
    *,
    reward: Reward = "gail",
    among: Among = "state",
    norm: Norm = "mean",
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Iterator[Reinforced]:
    """Every judged episode, its own turns with their rewards relative to others: being taken for an expert's.

    Inverse RL of StepAgent (arXiv 2411.03817): the reward of an own step is -log(1 - D(s, a)), and the agent
    learns it by PPO, tied to the warm start. The paper's text was not to be had; that this is its reward,
    that its objective is PPO's, and all of the options are inferred.

    Args:
      reward: of a step with the logit x of D: -log(1 - D) = softplus(x) as GAIL has it (arXiv 1606.03476),
        never below 0; or log D - log(1 - D) = x as AIRL has it (arXiv 1710.11248), which says as well what is
        no expert's.
      among: what a turn is compared with, in a critic's place: other samples in the same state, that is with
        the same tokens before it; all own turns of its task; or all of the round, the batch. What nothing
        else stands beside has the advantage 0.
      norm: less the mean alone, or divided by the deviation, too; as in `grpo`.
      gamma: discount of the rewards of later turns; 0 credits a turn with its own alone. Where the agent
        plays one turn from every state of an expert there are no later ones.
    """
    found = [one for played in material.played for one in played if one.finished and any_judged(one)]
    found.sort(key=lambda one: (one.task_id, one.collection, one.agent, one.sample))
    groups: dict[Hashable, list[tuple[int, int, float]]] = {}
    for number, one in enumerate(found):
        rewards = [None if x is None else step_reward(x, reward) for x in one.judged]
        starts = turn_starts(one)
        for turn, value in returns_to_go(rewards, gamma):
            state = one.tokens[: starts[turn]].tobytes() if among == "state" else b""
            key = (one.task_id if among != "round" else "", state)
            groups.setdefault(key, []).append((number, turn, value))
    advantages = [[0.0] * len(one.judged) for one in found]
    sizes = [[1] * len(one.judged) for one in found]
    for members in groups.values():
        shares = relative([value for _, _, value in members], norm)
        for (number, turn, _), share in zip(members, shares, strict=True):
            advantages[number][turn], sizes[number][turn] = share, len(members)
    for number, one in enumerate(found):
        own = tuple(sizes[number]) if among == "state" else ()
        yield Reinforced(one, tuple(advantages[number]), own, one.first_own_turn)


def any_judged(trajectory: Trajectory) -> bool:
    """Whether a discriminator judged one of its turns."""
    return any(logit is not None for logit in trajectory.judged)


def step_reward(logit: float, reward: Reward) -> float:
    """The reward of a step, in nats, from the logit of D; safe where D is 0 or 1 in floats."""
    return max(logit, 0.0) + math.log1p(math.exp(-abs(logit))) if reward == "gail" else logit


def returns_to_go(rewards: Sequence[float | None], gamma: float) -> Iterator[tuple[int, float]]:
    """Of every turn with a reward, the discounted sum from it on, the last turn first."""
    later = 0.0
    for turn in range(len(rewards) - 1, -1, -1):
        own = rewards[turn]
        if own is not None:
            later = own + gamma * later
            yield turn, later
