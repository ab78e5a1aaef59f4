"""Sides in the rows they are learned from: the trained tokens, what is cut, and which pairs can teach."""

from collections.abc import Sequence

import numpy as np

from coevo_jax.audit.sides import Pair, Side, cut
from coevo_jax.config.options import BatchConfig


def turns_of_tokens(side: Side) -> np.ndarray:
    """The turn of each trained token, from 0."""
    return np.searchsorted(side.episode.run_ends, trained_places(side), side="right")


def trained_places(side: Side) -> np.ndarray:
    """Where the side's trained tokens stand in its trajectory: nothing predicts the first token of a row."""
    places = np.flatnonzero(side.episode.agent_mask[: side.length])
    return places[places > 0]


def fit_row(side: Side, batch: BatchConfig) -> Side:
    """The side, cut after a whole turn where it is longer than a row and the config says so."""
    turns = int(np.sum(side.episode.run_ends <= min(batch.row_length, side.length)))
    cuts = batch.too_long == "cut" and side.length > batch.row_length and turns
    return cut(side, turns) if cuts else side


def fit_rows(sides: Sequence[Side], batch: BatchConfig) -> tuple[list[Side], int]:
    """All of them, and how many were cut."""
    fitted = [fit_row(side, batch) for side in sides]
    return fitted, sum(new is not old for new, old in zip(fitted, sides, strict=True))


def can_teach(
    chosen: Side, rejected: Side, first: tuple[int, int], batch: BatchConfig, any_cut: bool
) -> bool:
    """Whether two fitted sides are a pair to learn from: rows hold them, and what is cut still differs.

    Args:
      first: the turns from which on the chosen and the rejected side count.
    """
    if max(chosen.length, rejected.length) > batch.row_length:
        return False
    counted = [turns_of_tokens(side) >= turn for side, turn in zip((chosen, rejected), first, strict=True)]
    empty = not all(mask.any() for mask in counted)
    return not (any_cut and (chosen.key == rejected.key or empty))


def surely_fits(chosen: Side, rejected: Side, batch: BatchConfig, apart: bool) -> bool:
    """Whether a pair fits a microbatch by itself, each side in a row of its own or all in one.

    Args:
      apart: imitation may see the chosen side with other weights than the preference loss does.
    """
    views = 3 if apart else 2
    together = (views - 1) * chosen.length + rejected.length
    return batch.rows >= views or (together <= batch.row_length and batch.views_per_row >= views)


def teachable(
    pairs: Sequence[Pair], sides: Sequence[Side], batch: BatchConfig, apart: bool
) -> list[int] | None:
    """The numbers of the pairs that can be learned from; None where it is not sure that all of them fit."""
    fitted, count = fit_rows(sides, batch)
    place = {side.key: new for side, new in zip(sides, fitted, strict=True)}
    found = []
    for number, pair in enumerate(pairs):
        chosen, rejected = place[pair.chosen.key], place[pair.rejected.key]
        if can_teach(chosen, rejected, (pair.chosen_from, pair.rejected_from), batch, count > 0):
            if not surely_fits(chosen, rejected, batch, apart):
                return None
            found.append(number)
    return found
