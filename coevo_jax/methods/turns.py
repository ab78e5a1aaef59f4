"""Turns as runs of a trajectory's agent tokens."""

from typing import TYPE_CHECKING

from coevo_jax.trajectory import Trajectory

if TYPE_CHECKING:
    import numpy as np


def turn_starts(trajectory: Trajectory) -> "np.ndarray":
    """The place of the first token of every turn, int64 [turns]; a turn is a run of agent tokens."""
    import numpy as np  # here: a config is checked by the builders' signatures, and needs no arrays

    mask = trajectory.agent_mask
    return np.flatnonzero(mask & ~np.concatenate([[False], mask[:-1]]))
