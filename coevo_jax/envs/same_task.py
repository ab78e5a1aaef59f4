"""Whether a task is the same task at every reset: the proof that pairs of its roll-outs compare one task.

An environment may ignore its seed: the first observation is the same, but a secret behind it is another one
at every reset. Only actions that mean something show that.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coevo_jax.envs import answers
from coevo_jax.envs.env import Env, OffersActions, StepResult, Task, TriesActions
from coevo_jax.trajectory import Turn

SHOWN = re.compile(r"\[[^\[\]\n]{1,40}\]|'[^'\n]{1,40}'|\"[^\"\n]{1,40}\"|`[^`\n]{1,40}`|\b\d{1,6}\b")
MOST_SHOWN = 12  # actions read off a first observation
MOST_DRAWN = 8  # actions that an environment tries


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Where two roll-outs of a task show that they are roll-outs of two tasks."""

    turn: int  # -1 is the first observation
    action: str
    found: str
    expected: str

    @property
    def words(self) -> str:
        """The place and both answers, shortened."""
        place = (
            "the first observation" if self.turn < 0 else f"turn {self.turn + 1}, action {self.action!r:.60}"
        )
        return f"{place}: found {self.found!r:.100}, expected {self.expected!r:.100}"


def contradiction(
    prompt: str, turns: Sequence[Turn], other_prompt: str, other_turns: Sequence[Turn]
) -> Contradiction | None:
    """The first place where the same actions were answered otherwise; None where there is none.

    Turns are compared as long as both sides do the same. A last turn without an answer says nothing.
    """
    if prompt != other_prompt:
        return Contradiction(turn=-1, action="", found=other_prompt, expected=prompt)
    for number, (one, other) in enumerate(zip(turns, other_turns, strict=False)):
        if one.action != other.action:
            return None
        last = number + 1 in (len(turns), len(other_turns))
        if one.observation != other.observation and not (last and "" in (one.observation, other.observation)):
            return Contradiction(
                turn=number, action=one.action, found=other.observation, expected=one.observation
            )
    return None


def meant_actions(env: Env, task: Task, prompt: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Actions that may mean something in an episode that begins so, for environments without an expert.

    What the environment tries or offers, and what the first observation shows in brackets, quotes or digits.
    """
    tried = [env.tries(task, rng) for _ in range(MOST_DRAWN)] if isinstance(env, TriesActions) else []
    offered = list(env.offered(prompt)) if isinstance(env, OffersActions) else []
    shown = []
    for found in SHOWN.findall(prompt):
        shown += [found] if found[0] == "[" or found.isdigit() else [found[1:-1]]
    return tuple(dict.fromkeys([*tried, *offered[:MOST_SHOWN], *shown[:MOST_SHOWN]])) or ("look", "help", "1")


def played(env: Env, task: Task, actions: Sequence[str], most: int) -> tuple[str, list[Turn], float]:
    """Play actions from a task's start: the first observation, the answers, and the reward in the end.

    Texts are cut to `most` characters.

    Raises:
      EnvFault: what the environment answers is no answer.
    """
    prompt, turns = answers.reset(env, task, most), []
    result = StepResult(observation="", done=False, reward=0.0)
    for action in actions:
        result = answers.step(env, action, most)
        turns.append(Turn(response=action, action=action, observation=result.observation))
        if result.done:
            break
    return prompt, turns, result.reward if result.done else answers.reward_at_limit(env)
