"""How an episode begins: at its task's start, in the middle of another one, or with a question.

In the middle, the other's turns are replayed. With a question, no environment takes part.
"""

from dataclasses import dataclass, field
from typing import Any

from coevo_jax.envs import answers
from coevo_jax.envs.env import Env, Restores, Task, can_restore
from coevo_jax.trajectory import About, Branch, Trajectory

MALFORMED = (
    'Invalid action: no "Action:" found. Answer with one line that starts with "Thought:" and one line that '
    'starts with "Action:".'
)
WAITING = object()  # a state that another slot is replaying


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """A point in the middle of an episode, from which others are played."""

    trajectory: Trajectory
    branch: Branch
    response: tuple[int, ...] | None = None  # tokens of the first turn from there; None lets the agent write


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question that takes an episode's place: its answer is the only turn."""

    system_prompt: str
    text: str
    about: About


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What an environment says when an episode begins."""

    system_prompt: str
    prompt: str
    max_turns: int
    state: Any = None  # of an environment that can restore it


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A beginning that did not come back the same."""

    turn: int  # -1 is the prompt
    found: str
    expected: str


@dataclass(kw_only=True, eq=False)
class _Known:
    opening: Opening | None = None
    followers: list[int] = field(default_factory=list)


class Replays:
    """The states that an environment could keep, and who waits for one.

    Of the slots that begin at one point, the first replays its turns; the others wait, and restore the state
    that it reached. Where the environment cannot, each of them replays the turns.
    """

    def __init__(self) -> None:
        self._known: dict[Start, _Known] = {}

    def of(self, start: Start, slot: int) -> Any:
        """The opening of a point where its state is kept; WAITING where a slot is replaying it; else None."""
        known = self._known.get(start)
        if known is None:
            self._known[start] = _Known()
            return None
        if known.opening is None:
            known.followers.append(slot)
            return WAITING
        return known.opening if known.opening.state is not None else None

    def keep(self, start: Start, outcome: Opening | Lost | None) -> list[int]:
        """Keep what a replay came to; returns the slots that waited and go on now.

        Where the environment broke (None), one of them replays in its place.
        """
        known = self._known[start]
        if outcome is None and known.opening is None:
            heir, known.followers = known.followers[:1], known.followers[1:]
            if not heir:
                del self._known[start]
            return heir
        if known.opening is None and outcome is not None:
            nothing = Opening(system_prompt="", prompt="", max_turns=0)
            known.opening = nothing if isinstance(outcome, Lost) else outcome
        waited, known.followers = known.followers, []
        return waited


def begin(env: Env, task: Task, most: int) -> Opening:
    """Start an episode at its task's start; its first observation has `most` characters at most."""
    prompt = answers.reset(env, task, most)
    return Opening(system_prompt=env.system_prompt, prompt=prompt, max_turns=env.max_turns(task))


def replay(env: Env, task: Task, start: Start, known: Opening | None, most: int) -> Opening | Lost:
    """Bring an environment to a point: to its kept state, or by the turns that led there.

    Every answer is compared with the recorded one; the first that differs ends the attempt.
    """
    if known is not None and isinstance(env, Restores):
        env.restore(task, known.state)
        return known
    opening = begin(env, task, most)
    recorded = start.trajectory
    if opening.prompt != recorded.prompt:
        return Lost(turn=-1, found=opening.prompt, expected=recorded.prompt)
    for number, turn in enumerate(recorded.turns[: start.branch.turns]):
        if not turn.action:  # nothing to play was found in what the agent wrote
            continue
        answer = answers.step(env, turn.action, most)
        if answer.done or answer.observation != turn.observation:
            found = "the episode's end" if answer.done else answer.observation
            return Lost(turn=number, found=found, expected=turn.observation)
    state = env.snapshot() if isinstance(env, Restores) and can_restore(env) else None
    return Opening(
        system_prompt=opening.system_prompt, prompt=opening.prompt, max_turns=opening.max_turns, state=state
    )
