"""Views: a trajectory with the weights that one pair, or the SFT term, gives its tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from coevo_jax.data.packing.length_weights import length_desensitised_weights
from coevo_jax.data.packing.prefix_tree import scored_places
from coevo_jax.trajectory import PreferencePair, Trajectory


@dataclass(frozen=True, kw_only=True)
class View:
    """A trajectory and the weight of each of its scored tokens; equal views stand once in a microbatch."""

    trajectory: int  # index into the trajectories of the plan
    weights: bytes  # float32 [scored tokens]
    token_count: int  # tokens of the turns that count: the length that losses divide by, whatever they weigh
    turns: tuple[float, ...] | None = None  # the weight of every turn by itself; None is 1 each
    advantages: bytes = b""  # float32 [scored tokens] of what is reinforced; b"" otherwise

    @property
    def token_weights(self) -> np.ndarray:
        return np.frombuffer(self.weights, np.float32)

    @property
    def token_advantages(self) -> np.ndarray:
        return np.frombuffer(self.advantages, np.float32)

    def weighing(self, weights: np.ndarray) -> "View":
        """The view with other weights of the same turns, float32 [scored tokens]."""
        return replace(self, weights=weights.tobytes())


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
    """The turn of every scored token, counted from 0; a turn is a run of agent tokens. Read-only."""
    return _turns(trajectory.agent_mask.tobytes())[1]


def turn_count(trajectory: Trajectory) -> int:
    """The number of turns: runs of agent tokens."""
    return _turns(trajectory.agent_mask.tobytes())[0]


@lru_cache(4096)
def _turns(agent_mask: bytes) -> tuple[int, np.ndarray]:
    """The number of turns, and the turn of every scored token; a trajectory is in many pairs."""
    mask = np.frombuffer(agent_mask, bool)
    turns = np.cumsum(mask & ~np.concatenate([[False], mask[:-1]]))
    of_token = turns[scored_places(mask)] - 1
    of_token.flags.writeable = False
    return int(turns[-1]) if len(turns) else 0, of_token


def turns_from(
    trajectory: Trajectory, first_turn: int, turns: tuple[float, ...] | None = None
) -> tuple[float, ...] | None:
    """The weight of each turn where those from `first_turn` on weigh as `turns` says; None if all are 1."""
    count = turn_count(trajectory)
    weights = (1.0,) * count if turns is None else turns[:count]
    return plain_turns(weight * (turn >= first_turn) for turn, weight in enumerate(weights))


def plain_turns(turns: Iterable[float] | None) -> tuple[float, ...] | None:
    """The weights of turns in the one form that they have here: None where each is 1."""
    weights = None if turns is None else tuple(map(float, turns))
    return None if weights is None or all(weight == 1 for weight in weights) else weights


def token_turn_weights(trajectory: Trajectory, turns: tuple[float, ...] | None) -> np.ndarray:
    """The weight of the turn of every scored token, float64; None is 1 each."""
    of_token = turn_of_token(trajectory)
    return np.ones(len(of_token)) if turns is None else np.asarray(turns, np.float64)[of_token]


def turn_credit(trajectory: Trajectory, discount: float, turns: tuple[float, ...] | None) -> np.ndarray:
    """The weight of every scored token, float32: discount ** (turns after its own), times its turn's."""
    credit = float(discount) ** (turn_count(trajectory) - 1 - turn_of_token(trajectory))
    return (credit * token_turn_weights(trajectory, turns)).astype(np.float32)


def length_desensitised(weights: np.ndarray, other: np.ndarray, alpha: float) -> np.ndarray:
    """Weigh the counting tokens of one side of a pair by how many of the other side count (LD-DPO)."""
    counting = weights > 0
    desensitised = weights.copy()
    desensitised[counting] *= length_desensitised_weights(int(counting.sum()), int((other > 0).sum()), alpha)
    return desensitised


class PairViews:
    """The views of pairs: credit per turn, from a pair's first turns on, length desensitised.

    A trajectory is in many pairs, mostly from its first turn on; that view is made once.
    """

    def __init__(self, trajectories: Sequence[Trajectory], *, ld_alpha: float, turn_discount: float):
        self._trajectories, self._alpha, self._discount = trajectories, ld_alpha, turn_discount
        self._made: dict[tuple[int, tuple[float, ...] | None], View] = {}

    def link(self, pair: PreferencePair, *, imitated: bool) -> Link:
        """The views of a pair.

        The SFT term imitates what is preferred: the chosen side from the same turn on.
        """
        ours = self._view(pair.chosen, pair.chosen_from, None)
        theirs = self._view(pair.rejected, pair.rejected_from, pair.rejected_turns)
        return Link(
            pair=pair,
            chosen=self._desensitised(ours, theirs),
            rejected=self._desensitised(theirs, ours),
            imitated=ours if imitated else None,
        )

    def _view(self, index: int, first_turn: int, turns: tuple[float, ...] | None) -> View:
        trajectory = self._trajectories[index]
        weights = turns_from(trajectory, first_turn, turns) if first_turn or turns else None
        if (index, weights) not in self._made:
            self._made[index, weights] = turn_view(index, trajectory, weights, self._discount)
        return self._made[index, weights]

    def _desensitised(self, own: View, other: View) -> View:
        if self._alpha == 1:
            return own
        return own.weighing(length_desensitised(own.token_weights, other.token_weights, self._alpha))


def turn_view(
    index: int, trajectory: Trajectory, turns: tuple[float, ...] | None = None, turn_discount: float = 1.0
) -> View:
    """The view of the SFT term: every scored token with its turn's credit and weight.

    Args:
      turns: the weight of every turn; of a trajectory that was cut, of more turns than are left.
    """
    turns = plain_turns(None if turns is None else turns[: turn_count(trajectory)])
    return View(
        trajectory=index,
        weights=turn_credit(trajectory, turn_discount, turns).tobytes(),
        token_count=int(np.count_nonzero(token_turn_weights(trajectory, turns) > 0)),
        turns=turns,
    )
