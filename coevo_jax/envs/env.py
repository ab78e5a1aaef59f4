"""The environment protocol: what every environment offers, and the ReAct text format they share.

Environments run on the host only and never import jax.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from coevo_jax.trajectory import Demonstration

if TYPE_CHECKING:
    import numpy as np  # in annotations alone: a command line is read without it

SPLITS = ("train", "dev", "test")
INVALID = "Invalid action"
"""How the answer to a malformed action begins, in every environment."""


class EnvFault(Exception):
    """The environment itself broke (a dead JVM, a hung query): the episode is not the agent's failure."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of an environment. Everything else about it stays inside the environment."""

    id: str  # unique within the environment, e.g. "find-animal/17" or "clinic_03/120"
    split: str  # one of SPLITS
    family: str  # question form or task family, for tables


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The answer to one action. `reward` counts only when `done`; it lies in [0, 1]."""

    observation: str
    done: bool
    reward: float


@runtime_checkable
class Env(Protocol):
    """One environment instance plays one episode at a time.

    A malformed action is answered by an observation that starts with "Invalid action" and costs a turn.
    `EnvFault` means the instance must be closed and replaced. Task lists and experts need no live
    resource: `tasks`, `max_turns` and `expert` work before the first `reset`.
    """

    name: str
    system_prompt: str  # first message of every conversation of this environment; may be ""
    deterministic: bool  # same task and actions give the same observations

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in a fixed, already shuffled order."""
        ...

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut (ending `turn_limit`)."""
        ...

    def reset(self, task: Task) -> str:
        """Start an episode; returns the first observation, which states the task."""
        ...

    def step(self, action: str) -> StepResult:
        """Play one action."""
        ...

    def reward_at_limit(self) -> float:
        """Reward in [0, 1] of the running episode if a turn or token limit cuts it now."""
        ...

    def expert(self, task: Task) -> Demonstration | None:
        """The expert's solution, or None where there is none."""
        ...

    def close(self) -> None:
        """Free every resource; safe to call twice."""
        ...


@runtime_checkable
class PreparesExperts(Protocol):
    """An environment whose experts take long to compute: they are generated once, stored, and then read.

    `expert` returns None for a task that was never prepared, and for one that has no solution.
    """

    def prepare_experts(self, tasks: Sequence[Task], on_progress: Callable[[int, int], None]) -> None:
        """Generate and store the experts still missing; calls `on_progress(done, total)` after each."""
        ...


@runtime_checkable
class TellsErrors(Protocol):
    """An environment in which a well-formed action can fail, too: an SQL query, a door that is locked."""

    def is_error(self, observation: str) -> bool:
        """Whether an answer says that the action was not understood, is ambiguous, or could not be done.

        An answer of what was done is no error, whatever it is worth; nor is one that all is so already. A
        pure function of the answer: it works before the first `reset`, on stored answers, cut as they are.
        """
        ...


@runtime_checkable
class OffersActions(Protocol):
    """An environment whose answers list what can be done: the buttons of a page, the commands of a game."""

    def offered(self, observation: str) -> Sequence[str]:
        """The actions that an answer lists; none where it lists none.

        A pure function of the answer, which works before the first `reset`.
        """
        ...


@runtime_checkable
class TriesActions(Protocol):
    """An environment without experts that knows how actions look: for checks, and for random players."""

    def tries(self, task: Task, rng: "np.random.Generator") -> str:
        """An action that could be meant in a task, whatever it leads to; works before the first `reset`."""
        ...


@runtime_checkable
class LimitsInstances(Protocol):
    """An environment of which only so many instances can play beside each other: a server's sessions."""

    def most_instances(self, wanted: int) -> int:
        """How many can play at a time, at least 1 and at most `wanted`; none plays while this is asked."""
        ...


@runtime_checkable
class Restores(Protocol):
    """An environment that can return to a state of an episode without playing its turns again."""

    def snapshot(self) -> Any:
        """The state of the running episode: plain data that can be pickled and kept, never None."""
        ...

    def restore(self, task: Task, state: Any) -> None:
        """Go on from a state of this task that `snapshot` gave, in this or another instance."""
        ...


def can_restore(env: Env) -> bool:
    """Whether an instance can: one in a process of its own can if what stands there can."""
    return isinstance(env, Restores) and getattr(env, "restores", True)


def error_test(env: Env) -> Callable[[str], bool]:
    """What tells an error of this environment from its other answers.

    "Invalid action" is one everywhere; what else is, an environment says that `TellsErrors`.
    """
    if isinstance(env, TellsErrors):
        return lambda observation: says_invalid(observation) or env.is_error(observation)
    return says_invalid


def offer_test(env: Env) -> Callable[[str], Sequence[str]]:
    """What reads the actions that this environment's answers list; it finds none where nobody knows."""
    return env.offered if isinstance(env, OffersActions) else lambda observation: ()


def says_invalid(observation: str) -> bool:
    """Whether an answer begins as that to a malformed action does."""
    return observation.startswith(INVALID)


def format_response(thought: str, action: str) -> str:
    """Text of an agent's turn in ReAct form (arXiv 2210.03629). An empty thought leaves only the action."""
    return f"Thought: {thought}\nAction: {action}" if thought else f"Action: {action}"


def parse_response(response: str) -> tuple[str, str] | None:
    """Thought and action of an agent's turn, or None when there is no "Action:" (malformed)."""
    before, marker, after = response.rpartition("Action:")
    if not marker or not after.strip():
        return None
    return before.strip().removeprefix("Thought:").strip(), after.strip()
