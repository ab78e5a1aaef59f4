"""Views: a trajectory with the weights that one pair, or the SFT term, gives its tokens."""

from dataclasses import dataclass

import numpy as np

from coevo_jax.data.packing.length_weights import length_desensitised_weights
from coevo_jax.data.packing.prefix_tree import scored_tokens
from coevo_jax.trajectory import PreferencePair, Trajectory


@dataclass(frozen=True, kw_only=True)
class View:
    """A trajectory and the weight of each of its scored tokens; equal views stand once in a microbatch."""

    trajectory: int  # index into the trajectories of the plan
    weights: bytes  # float32 [scored tokens]
    token_count: int  # tokens from its first turn on: the length that losses divide by, whatever they weigh

    @property
    def token_weights(self) -> np.ndarray:
        return np.frombuffer(self.weights, np.float32)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A pair and the views it needs."""

    pair: PreferencePair
    chosen: View
    rejected: View
    imitated: View | None  # the chosen side as the SFT term sees it; None without one

    @property
    def views(self) -> tuple[View, ...]:
        plain = () if self.imitated is None else (self.imitated,)
        return (*plain, self.chosen, self.rejected)


def turn_of_token(trajectory: Trajectory) -> np.ndarray:
    """The turn of every scored token, counted from 0; a turn is a run of agent tokens."""
    mask = trajectory.agent_mask
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    return (np.cumsum(starts) - 1)[scored_tokens(trajectory)]


def turn_count(trajectory: Trajectory) -> int:
    """The number of turns: runs of agent tokens."""
    mask = trajectory.agent_mask
    return int((mask & ~np.concatenate([[False], mask[:-1]])).sum())


def count_from(trajectory: Trajectory, first_turn: int) -> int:
    """The number of scored tokens from a turn on; a token with a weight of 0 counts, too."""
    return int(np.count_nonzero(turn_of_token(trajectory) >= first_turn))


def turn_credit(trajectory: Trajectory, discount: float, first_turn: int = 0) -> np.ndarray:
    """The weight of every scored token, float32: discount ** (turns after its own), 0 before `first_turn`."""
    turns = turn_of_token(trajectory)
    credit = float(discount) ** (turn_count(trajectory) - 1 - turns)
    return np.where(turns >= first_turn, credit, 0.0).astype(np.float32)


def length_desensitised(weights: np.ndarray, other: np.ndarray, alpha: float) -> np.ndarray:
    """Weigh the counting tokens of one side of a pair by how many of the other side count (LD-DPO)."""
    counting = weights > 0
    desensitised = weights.copy()
    desensitised[counting] *= length_desensitised_weights(int(counting.sum()), int((other > 0).sum()), alpha)
    return desensitised


def link_pair(
    pair: PreferencePair,
    chosen: Trajectory,
    rejected: Trajectory,
    *,
    imitated: bool,
    ld_alpha: float,
    turn_discount: float,
) -> Link:
    """The views of a pair: credit per turn, from the pair's first turns on, length desensitised."""
    ours = turn_credit(chosen, turn_discount, pair.chosen_from)
    theirs = turn_credit(rejected, turn_discount, pair.rejected_from)
    our_count = count_from(chosen, pair.chosen_from)
    their_count = count_from(rejected, pair.rejected_from)
    ours, theirs = length_desensitised(ours, theirs, ld_alpha), length_desensitised(theirs, ours, ld_alpha)
    plain = plain_view(pair.chosen, chosen, turn_discount) if imitated else None
    return Link(
        pair=pair,
        chosen=View(trajectory=pair.chosen, weights=ours.tobytes(), token_count=our_count),
        rejected=View(trajectory=pair.rejected, weights=theirs.tobytes(), token_count=their_count),
        imitated=plain,
    )


def plain_view(index: int, trajectory: Trajectory, turn_discount: float = 1.0) -> View:
    """The view of the SFT term: every scored token with its turn's credit."""
    credit = turn_credit(trajectory, turn_discount)
    return View(trajectory=index, weights=credit.tobytes(), token_count=count_from(trajectory, 0))
