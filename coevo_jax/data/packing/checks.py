"""What trajectories and pairs must be before they are packed, and how a trajectory is cut to a row."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from coevo_jax.data.packing.views import turn_count
from coevo_jax.methods.material import Imitation, cut_turns
from coevo_jax.trajectory import PreferencePair, Trajectory


def name_of(trajectory: Trajectory) -> str:
    """A record's name in messages: `task-7 (target, sample 0)`."""
    return f"{trajectory.task_id} ({trajectory.agent}, sample {trajectory.sample})"


def trajectory_problem(trajectory: Trajectory) -> str | None:
    """Why a trajectory cannot be learned from, or None."""
    arrays = {name: np.asarray(getattr(trajectory, name)) for name in ("tokens", "agent_mask", "logps")}
    shapes = [array.shape for array in arrays.values()]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        return f"tokens, agent_mask, logps: found shapes {shapes}, expected one length of at least 1"
    if arrays["tokens"].min() < 0:
        place = int(arrays["tokens"].argmin())
        return f"token {place}: found id {arrays['tokens'][place]}, expected 0 or more"
    broken = np.flatnonzero(~np.isfinite(arrays["logps"]))
    if len(broken):
        place = int(broken[0])
        return f"log-probability of token {place}: found {arrays['logps'][place]}, expected a finite number"
    if not np.isfinite(trajectory.reward):
        return f"reward: found {trajectory.reward}, expected a finite number"
    return None


def pair_problem(
    pair: PreferencePair, trajectories: Sequence[Trajectory], kinds: Sequence[str]
) -> str | None:
    """Why a pair cannot be learned from, or None."""
    if pair.kind not in kinds:
        return f"this kind has no weights, only {', '.join(kinds) or 'none'} has"
    sides = (("chosen", pair.chosen, pair.chosen_from), ("rejected", pair.rejected, pair.rejected_from))
    for side, index, first_turn in sides:
        if not 0 <= index < len(trajectories):
            return f"{side}: found trajectory {index}, expected one of {len(trajectories)}"
        trajectory = trajectories[index]
        if trajectory.task_id != pair.task_id:
            return f"{side}: found {name_of(trajectory)}, expected a trajectory of the pair's task"
        if first_turn < 0 or (first_turn and first_turn >= turn_count(trajectory)):
            turns, name = turn_count(trajectory), name_of(trajectory)
            return f"{side}_from: found turn {first_turn}, expected one of the {turns} of {name}"
    rejected, weights = trajectories[pair.rejected], pair.rejected_turns
    problem = imitation_problem(Imitation(rejected, weights))
    if problem:
        return f"rejected_{problem} of {name_of(rejected)}"
    if weights is not None and not any(weights[pair.rejected_from :]):
        return f"rejected_turns: found 0 from turn {pair.rejected_from} on, expected a weight above 0"
    return None


def imitation_problem(imitation: Imitation) -> str | None:
    """Why the weights of an imitation's turns cannot be used, or None."""
    turns, count = imitation.turns, turn_count(imitation.trajectory)
    if turns is None:
        return None
    if len(turns) != count:
        return f"turns: found {len(turns)} weights, expected {count}, one for each turn"
    wrong = [number for number, weight in enumerate(turns) if not 0 <= weight < np.inf]
    if wrong:
        return (
            f"turns: found {turns[wrong[0]]} as the weight of turn {wrong[0]}, expected a number of 0 or more"
        )
    return None


def cut_to_rows(
    trajectories: Sequence[Trajectory], row_length: int, too_long: Literal["drop", "cut"]
) -> tuple[list[Trajectory], int, list[bool]]:
    """Cut trajectories longer than a row after the last whole turn that fits, where `too_long` says so.

    Returns the trajectories, how many were cut, and which can be used: those that fit a row.
    """
    kept, cut = [], 0
    for trajectory in trajectories:
        if too_long == "cut" and len(trajectory.tokens) > row_length:
            ends = trajectory.agent_mask & ~np.concatenate([trajectory.agent_mask[1:], [False]])
            turns = int((np.flatnonzero(ends) < row_length).sum())
            if turns:
                trajectory, cut = cut_turns(trajectory, turns), cut + 1
        kept.append(trajectory)
    return kept, cut, [len(trajectory.tokens) <= row_length for trajectory in kept]
