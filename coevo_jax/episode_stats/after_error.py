"""Statistics of how episodes go on after their first error: pure functions of trajectories.

An error is an answer of the environment to an action that was not understood or could not be done. Which
answers are, `envs.env.error_test` says. In a finished episode (no fault) with the turns 0, 1, 2, ...:

- The first error is the smallest turn t whose observation is an error.
- A turn is played if the environment answered it. Only the last one may not be: that which the token limit
  cut in its middle (ending `token_limit`, no action and no observation).
- What followed is the first of these that holds:
  `cut_off`: no turn after t was played;
  `repeated`: the action of turn t + 1 equals that of turn t, character by character;
  `recovered`: the episode is a success (reward 1), and the answer to a turn played after t is no error;
  `gave_up`: turn t + 1 is the last one, and the environment ended the episode with it (`solved`, `failed`);
  `went_on`: none of them does.
- A success passed through an error where it has a first error, whatever followed.
- The k-th stretch of agent tokens in a trajectory is what the agent wrote in turn k. Tokens lie behind the
  first error where they belong to a turn after t.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from coevo_jax.trajectory import Ending, Trajectory

IsError = Callable[[str], bool]

FOLLOWED = ("recovered", "repeated", "gave_up", "went_on", "cut_off")
"""What can follow a first error, in the order of tables."""


class AfterError(TypedDict):
    """Counts of how a set of roll-outs went on after their first errors, faults left out."""

    episodes: int  # with an error; what followed adds up to it
    recovered: int
    repeated: int
    gave_up: int
    went_on: int
    cut_off: int
    successes: int  # that passed through an error
    success_rate: float | None  # the same, over all successes
    failure_tokens_behind: float | None  # agent tokens of all failures, the part behind a first error


def sum_up_errors(finished: Sequence[Trajectory], is_error: IsError) -> AfterError:
    """Count how finished episodes went on after their first error."""
    first = [first_error(one, is_error) for one in finished]
    met = [(one, turn) for one, turn in zip(finished, first, strict=True) if turn is not None]
    followed = Counter(what_followed(one, turn, is_error) for one, turn in met)
    passed = sum(one.success for one, _ in met)
    successes = sum(one.success for one in finished)
    behind = sum(tokens_behind(one, turn) for one, turn in met if one.failure)
    tokens = sum(int(np.sum(one.agent_mask)) for one in finished if one.failure)
    return AfterError(
        episodes=len(met),
        recovered=followed["recovered"],
        repeated=followed["repeated"],
        gave_up=followed["gave_up"],
        went_on=followed["went_on"],
        cut_off=followed["cut_off"],
        successes=passed,
        success_rate=passed / successes if successes else None,
        failure_tokens_behind=behind / tokens if tokens else None,
    )


def first_error(trajectory: Trajectory, is_error: IsError) -> int | None:
    """The turn of the first error; None where there is none."""
    return next((i for i, turn in enumerate(trajectory.turns) if is_error(turn.observation)), None)


def what_followed(trajectory: Trajectory, error: int, is_error: IsError) -> str:
    """The outcome of an episode whose first error is in turn `error`: one of FOLLOWED."""
    after = trajectory.turns[error + 1 : played_turns(trajectory)]
    if not after:
        return "cut_off"
    if after[0].action == trajectory.turns[error].action:
        return "repeated"
    if trajectory.success and not all(is_error(turn.observation) for turn in after):
        return "recovered"
    ended = trajectory.ending in (Ending.SOLVED, Ending.FAILED)
    return "gave_up" if ended and len(after) == 1 else "went_on"


def played_turns(trajectory: Trajectory) -> int:
    """The number of turns that the environment answered: all but a last one cut short by the token limit."""
    turns = trajectory.turns
    if not turns or turns[-1].action or turns[-1].observation:
        return len(turns)
    return len(turns) - (trajectory.ending is Ending.TOKEN_LIMIT)


def tokens_behind(trajectory: Trajectory, error: int) -> int:
    """The number of tokens that the agent wrote in the turns after turn `error`."""
    mask = np.asarray(trajectory.agent_mask, bool)
    starts = mask & ~np.concatenate([[False], mask[:-1]])  # the first token of every turn
    return int(np.sum(mask & (np.cumsum(starts) > error + 1)))
