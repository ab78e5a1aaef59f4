"""What followed an episode's first error, counted again.

An error is an answer that the environment itself calls one. Of a finished episode that met one, its first
error is followed by the first of these that holds:

    cut_off    no later turn was answered; the token limit leaves a turn that it cut without an answer
    repeated   the next action is the same
    recovered  the episode is a success, and a later answer is no error
    gave_up    the next turn ended the episode, solved or failed
    went_on    anything else
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo_jax.audit.reading import Episode

IsError = Callable[[str], bool]
FOLLOWED = ("recovered", "repeated", "gave_up", "went_on", "cut_off")


@dataclass(frozen=True, kw_only=True, slots=True)
class Met:
    """What one finished episode says of errors."""

    success: bool
    tokens: int  # that the agent wrote
    followed: str = ""  # one of FOLLOWED; "" without an error
    behind: int = 0  # of the tokens, those in turns after the first error


def met(episode: Episode, is_error: IsError) -> Met:
    """What followed the first error of an episode that was read with its turns and mask."""
    success, tokens = episode.success, int(np.count_nonzero(episode.agent_mask))
    errors = [number for number, turn in enumerate(episode.turns) if is_error(turn["observation"])]
    if not errors:
        return Met(success=success, tokens=tokens)
    ends = episode.run_ends
    # Tokens behind turn t stand behind the end of the t-th stretch that the agent wrote.
    end = ends[errors[0]] if errors[0] < len(ends) else len(episode.agent_mask)
    behind = int(np.count_nonzero(episode.agent_mask[end:]))
    followed = _followed(episode, errors[0], is_error)
    return Met(success=success, tokens=tokens, followed=followed, behind=behind)


def _followed(episode: Episode, error: int, is_error: IsError) -> str:
    answered = list(episode.turns)
    if episode.ending == "token_limit" and not (answered[-1]["action"] or answered[-1]["observation"]):
        answered.pop()
    later = answered[error + 1 :]
    if not later:
        return "cut_off"
    if later[0]["action"] == episode.turns[error]["action"]:
        return "repeated"
    if episode.success and any(not is_error(turn["observation"]) for turn in later):
        return "recovered"
    return "gave_up" if len(later) == 1 and episode.ending in ("solved", "failed") else "went_on"


def after_error(finished: Sequence[Met]) -> dict[str, Any]:
    """The entry of a summary."""
    with_error = [one for one in finished if one.followed]
    successes = sum(one.success for one in finished)
    passed = sum(one.success for one in with_error)
    failures = [one for one in finished if not one.success]
    tokens = sum(one.tokens for one in failures)
    return {
        "episodes": len(with_error),
        **{name: sum(one.followed == name for one in with_error) for name in FOLLOWED},
        "successes": passed,
        "success_rate": passed / successes if successes else None,
        "failure_tokens_behind": sum(one.behind for one in failures) / tokens if tokens else None,
    }
