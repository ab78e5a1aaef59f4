"""Trajectories that are reinforced: what builders yield, checked, each in a place of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.checks import name_of
from coevo_jax.data.packing.views import turn_count
from coevo_jax.data.pairing import PairSet
from coevo_jax.methods.material import Reinforced


@dataclass(frozen=True, kw_only=True)
class Credit:
    """The advantages of a trajectory's turns, and the weight of the source that they are from."""

    advantages: tuple[float, ...]  # one per turn
    weight: float = 1.0
    first: int = 0  # turn from which on tokens are reinforced


def add_reinforced(
    pair_set: PairSet, found: Iterable[Reinforced], *, weight: float, skip_zero: bool, where: str
) -> tuple[PairSet, dict[int, Credit]]:
    """Add trajectories that are reinforced; returns the set, and the credit of each by its index there.

    Each has an index of its own, even where another one has the same tokens: two equal samples have two
    advantages, and what both wrote takes no token more. Faults, and trajectories without a token of the
    agent, are left out.

    Args:
      skip_zero: leave out trajectories of which every reinforced turn has the advantage 0, too.
      where: who yielded them, for messages.

    Raises:
      ConfigError: there is not one finite advantage for each turn, or a turn is to be reinforced that was
        played again.
    """
    trajectories, credits = list(pair_set.trajectories), {}
    for one in found:
        trajectory = one.trajectory
        if not (trajectory.finished and trajectory.agent_mask.any()):
            continue
        turns, advantages = turn_count(trajectory), tuple(float(value) for value in one.advantages)
        if len(advantages) != turns or not np.isfinite(advantages).all():
            raise ConfigError(
                f"{where}: {name_of(trajectory)}: found the advantages {list(advantages)}, expected a finite "
                f"number for each of its {turns} turns"
            )
        if not trajectory.first_own_turn <= one.first < turns:
            raise ConfigError(
                f"{where}: {name_of(trajectory)}: found turn {one.first} as the first one that is "
                f"reinforced, expected one of its player's, from {trajectory.first_own_turn} to {turns - 1}"
            )
        if skip_zero and not any(advantages[one.first :]):
            continue
        credits[len(trajectories)] = Credit(advantages=advantages, weight=weight, first=one.first)
        trajectories.append(trajectory)
    return replace(pair_set, trajectories=tuple(trajectories)), credits


def advantage_counts(found: Sequence[Reinforced]) -> dict[str, float]:
    """What a builder yielded, for the record: trajectories, tasks, and statistics over all reinforced turns.

    `anchored` is the share of anchor groups in which more than one turn stands; of a builder without anchors
    there is none.
    """
    values = np.array([value for one in found for value in one.advantages[one.first :]], np.float64)
    sizes = np.array([size for one in found for size in one.anchor_sizes[one.first :]], np.float64)
    counts = {
        "count": len(found),
        "tasks": len({one.trajectory.task_id for one in found}),
        "turns": len(values),
        "advantage_mean": float(values.mean()) if len(values) else 0.0,
        "advantage_std": float(values.std()) if len(values) else 0.0,
    }
    if len(sizes):  # a group of n turns is told n times
        counts["anchored"] = float(np.sum((sizes > 1) / sizes) / np.sum(1 / sizes))
    return counts
