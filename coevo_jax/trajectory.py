"""Host records of what agents did: turns, demonstrations, trajectories and preference pairs.

Nothing here knows about JAX. Device pytrees live in `coevo_jax.batch`.
"""

from __future__ import annotations  # numpy is named in annotations alone: a command line is read without it

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SOLVED_REWARD = 1.0


class Ending(StrEnum):
    """Why an episode ended."""

    SOLVED = "solved"  # the environment ended it with reward 1
    FAILED = "failed"  # the environment ended it with reward < 1
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"
    FAULT = "fault"  # the environment broke: counted, never training data
    LOST = "lost"  # a replayed beginning did not come back the same: counted, never training data
    ANSWERED = "answered"  # no episode: an agent was asked a question, and ended its answer


UNPLAYED = (Ending.FAULT, Ending.LOST, Ending.ANSWERED)  # say nothing of who played


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn: what the agent wrote, the action parsed from it and the environment's answer."""

    response: str  # verbatim text of the agent, thought and action
    action: str  # what the environment received
    observation: str  # the answer; after the last turn it is recorded but never shown to the agent


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An expert's solution of a task as text: replayed once, rendered to tokens by `data.chat`."""

    task_id: str
    prompt: str  # first observation: the task as the agent sees it
    turns: tuple[Turn, ...]
    reward: float  # in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Where an episode left another one of its task, whose beginning was played again."""

    collection: str  # of the other, or "expert"
    sample: int  # of the other
    turns: int  # that were played again; the agent plays from there on
    tokens: int  # of the beginning, as the other has them; the agent writes from there on


@dataclass(frozen=True, kw_only=True)
class About:
    """The turn of an episode that an agent was asked about."""

    collection: str  # of the episode, or "expert"
    sample: int  # of the episode
    turn: int  # from 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """The record of one episode, with the very tokens the engine consumed and produced.

    `tokens`, `agent_mask` and `logps` have the same length L. They are never re-encoded from text.
    """

    task_id: str
    agent: str  # "expert", or who played by the recipe's name, such as "target"
    sample: int  # index among the samples of this task and agent
    prompt: str
    turns: tuple[Turn, ...]
    reward: float  # in [0, 1]
    ending: Ending
    tokens: np.ndarray  # int32 [L]
    agent_mask: np.ndarray  # bool [L]: True where the agent produced the token
    logps: np.ndarray  # float32 [L]: log-probability at temperature 1; 0 where agent_mask is False
    collection: str = ""  # by which a recipe names what it stands in; "" where that is not known
    branch: Branch | None = None  # None where the episode was played from its task's start
    about: About | None = None  # of an answer alone, whose prompt is the question
    mark: str = ""  # that its prompt is under (`methods.marks`); "" has none
    # The actions that were suggested before its turns (`methods.hints`), "" for none; () where none was.
    # They stand in the tokens alone, in neither the prompt nor the observations.
    hints: tuple[str, ...] = ()
    # A discriminator's logit for each turn, above 0 for an expert's; None where it judged none, () for none.
    judged: tuple[float | None, ...] = ()
    fault: str = ""  # why its environment broke, where its ending says so

    @property
    def finished(self) -> bool:
        """Whether it was played to an end that says something of who played."""
        return self.ending not in UNPLAYED and self.about is None

    @property
    def first_own_turn(self) -> int:
        """The first turn that its agent played itself."""
        return 0 if self.branch is None else self.branch.turns

    @property
    def written_tokens(self) -> int:
        """Number of tokens that its agent wrote, without those of a beginning that was played again."""
        start = 0 if self.branch is None else self.branch.tokens
        return int(self.agent_mask[start:].sum())

    @property
    def success(self) -> bool:
        return self.finished and self.reward >= SOLVED_REWARD

    @property
    def failure(self) -> bool:
        """A failure is any finished trajectory with reward < 1; what is not finished is neither."""
        return self.finished and self.reward < SOLVED_REWARD


def count_endings(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """How often episodes ended in each way; `lost` and `answered` only where some were.

    Only branches can be lost, and only questions answered.
    """
    counts = Counter(trajectory.ending for trajectory in trajectories)
    rare = (Ending.LOST, Ending.ANSWERED)
    return {str(ending): counts[ending] for ending in Ending if ending not in rare or counts[ending]}


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Two trajectories of one task, named by their index into a list of trajectories."""

    task_id: str
    kind: str  # by which it has its weights, such as "expert_target"
    chosen: int
    rejected: int
    chosen_from: int = 0  # first turn of the chosen side whose tokens count, for step-wise methods
    rejected_from: int = 0
    rejected_turns: tuple[float, ...] | None = None  # the weight of each of its turns; None is 1 each
