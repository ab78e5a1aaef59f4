"""Advantages of turns relative to other samples of the task: GRPO, and GiGPO with anchor states.

The samples of a task are a group: they began in the same state. A reward counts against those of its group;
with GiGPO what came of a turn counts, beside that, against what came of the turns in the same state. Nobody
estimates a value, and no expert is looked at.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import Field

from coevo_jax.methods.material import Material, Reinforced
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Trajectory

Norm = Literal["mean", "sample_std", "population_std"]
Anchor = Literal["observation", "history"]
Over = Literal["episodes", "turns"]
Place = tuple[int, int]  # trajectory of a group, turn
EPSILON = 1e-6  # beside a deviation, so that a group without one is not divided by 0


def grpo(material: Material, *, norm: Norm = "sample_std") -> Iterator[Reinforced]:
    """Every sample of a task with its reward relative to the group's, the same for all of its turns.

    DeepSeekMath (arXiv 2402.03300, section 4.1.2), outcome supervision: A = (r - mean(r)) / std(r).

    Args:
      norm: mean subtracts the group's mean alone (Dr. GRPO, arXiv 2503.20783, section 3.2). sample_std and
        population_std divide by the deviation, too, with n - 1 or n below the sum of squares. The paper says
        std; that it is the first is inferred (torch.std, which the field's code calls).
    """
    for group in groups(material):
        shares = relative([one.reward for one in group], norm)
        for one, share in zip(group, shares, strict=True):
            yield Reinforced(one, (share,) * len(turn_starts(one)))


def gigpo(
    material: Material,
    *,
    norm: Norm = "mean",
    omega: Annotated[float, Field(gt=0)] = 1.0,
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.95,
    anchor: Anchor = "observation",
    over: Over = "episodes",
) -> Iterator[Reinforced]:
    """Every sample of a task with its reward relative to the group's, and its turns relative to their anchor.

    GiGPO (arXiv 2505.10978, section 4): A = A^E + omega * A^S. A^E is GRPO's. A^S compares the discounted
    return of a turn with those of all turns of the group's episodes that were taken in the same state, the
    anchor; a turn that stands alone there has A^S = 0.

    Args:
      norm: the paper's F_norm, of both parts: 1 (mean) or the deviation; as in `grpo`. The paper names both;
        which one a task takes is inferred.
      omega: weight of the step-relative part (the paper's experiments: 1); without it, this is `grpo`.
      gamma: discount of a return per turn (the paper's experiments: 0.95). The only reward is the episode's,
        in its last turn: the return of turn t of T is gamma ** (T - 1 - t) * reward. The penalty that the
        authors' code has for invalid actions is left out.
      anchor: what makes two states the same: the text that the environment showed last (observation), or all
        tokens before the turn (history). The paper says the environment's state; that an agent knows it by
        the last observation is inferred, from the authors' code.
      over: what the mean and deviation of A^E are taken over: the group's episodes, as the paper's eq. 3 has
        it, or their turns, so that long episodes count for more, as the authors' code does.
    """
    for group in groups(material):
        episode = episode_relative(group, norm=norm, over=over)
        step, sizes = step_relative(group, norm=norm, gamma=gamma, anchor=anchor)
        for number, one in enumerate(group):
            turns = range(len(turn_starts(one)))
            yield Reinforced(
                one,
                tuple(episode[number] + omega * step[number, turn] for turn in turns),
                tuple(sizes[number, turn] for turn in turns),
            )


def groups(material: Material) -> Iterator[list[Trajectory]]:
    """The samples of each task, of all collections together, in the order of tasks, agents and samples.

    Equal samples all count. Faults, and samples in which the agent wrote nothing, are left out.
    """
    tasks: dict[str, list[Trajectory]] = {}
    for played in material.played:
        for one in played:
            if one.finished and one.agent_mask.any():
                tasks.setdefault(one.task_id, []).append(one)
    for task_id in sorted(tasks):
        yield sorted(tasks[task_id], key=lambda one: (one.agent, one.sample))


def relative(values: Sequence[float], norm: Norm) -> list[float]:
    """Each value less the mean of all, divided by their deviation where `norm` says so; 0 where all agree."""
    if len(set(values)) < 2:  # and not what the rounding of their mean leaves
        return [0.0] * len(values)
    mean = sum(values) / len(values)
    centred = [value - mean for value in values]
    if norm == "mean":
        return centred
    below = len(values) - (norm == "sample_std")
    deviation = (sum(value**2 for value in centred) / below) ** 0.5
    return [value / (deviation + EPSILON) for value in centred]


def episode_relative(group: Sequence[Trajectory], *, norm: Norm, over: Over) -> list[float]:
    """The advantage of every episode of a group (eq. 3)."""
    counts = [len(turn_starts(one)) if over == "turns" else 1 for one in group]
    shares = relative([one.reward for one, n in zip(group, counts, strict=True) for _ in range(n)], norm)
    return [shares[end - 1] for end in accumulate(counts)]


def returns(reward: float, turns: int, gamma: float) -> list[float]:
    """The discounted return of every turn of an episode whose only reward is its last turn's (eq. 6)."""
    return [gamma ** (turns - 1 - turn) * reward for turn in range(turns)]


def step_relative(
    group: Sequence[Trajectory], *, norm: Norm, gamma: float, anchor: Anchor
) -> tuple[Mapping[Place, float], Mapping[Place, int]]:
    """The step-relative advantage of every turn of a group, and the size of its anchor group (eq. 7)."""
    found: dict[Hashable, list[tuple[Place, float]]] = {}
    for number, one in enumerate(group):
        states = anchors(one, anchor)
        for turn, (state, value) in enumerate(
            zip(states, returns(one.reward, len(states), gamma), strict=True)
        ):
            found.setdefault(state, []).append(((number, turn), value))
    advantages: dict[Place, float] = {}
    sizes: dict[Place, int] = {}
    for members in found.values():
        places, values = zip(*members, strict=True)
        advantages |= zip(places, relative(values, norm), strict=True)
        sizes |= dict.fromkeys(places, len(places))
    return advantages, sizes


def anchors(trajectory: Trajectory, anchor: Anchor) -> list[Hashable]:
    """What stands for the state in which each turn was taken; equal ones are one anchor state."""
    starts = turn_starts(trajectory)
    if anchor == "history":
        return [trajectory.tokens[:start].tobytes() for start in starts]
    shown = [trajectory.prompt, *(turn.observation for turn in trajectory.turns)]
    return list(shown[: len(starts)])
