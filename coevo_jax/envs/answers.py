"""What an environment answers, checked where it answers: what is no answer is the environment's fault.

A reward that is not a number in [0, 1], or text that is none, would otherwise be stored, and be found by
whoever reads it.
"""

import math
import numbers
from typing import Any

from coevo_jax.envs.env import Env, EnvFault, StepResult, Task

ROUNDING = 1e-6  # by which a sum of parts may pass 0 or 1
LEAST_ROOM, CHARACTERS_A_TOKEN = 20_000, 16  # what no text of a context comes near
SHOWN = 80  # characters of what was found that a message shows


def most_characters(max_tokens: int) -> int:
    """The length of text at which an answer is cut before anything reads it: more than a context holds."""
    return max(LEAST_ROOM, CHARACTERS_A_TOKEN * max_tokens)


def reset(env: Env, task: Task, most: int) -> str:
    """Start an episode; returns the first observation, cut to `most` characters.

    Raises:
      EnvFault: it is no text.
    """
    return _text(env.reset(task), "reset", most)


def step(env: Env, action: str, most: int) -> StepResult:
    """Play one action; the answer's observation is cut to `most` characters.

    Raises:
      EnvFault: the answer is no StepResult of text, a truth value and, where that is true, a number in
        [0, 1].
    """
    result: Any = env.step(action)
    try:
        observation, done, reward = result.observation, result.done, result.reward
    except AttributeError:
        raise EnvFault(f"step: found {_shown(result)}, expected a StepResult") from None
    if done not in (True, False):
        raise EnvFault(f"step: done: found {_shown(done)}, expected True or False")
    earned = _reward(reward, "step: reward") if done else 0.0
    return StepResult(
        observation=_text(observation, "step: observation", most), done=bool(done), reward=earned
    )


def reward_at_limit(env: Env) -> float:
    """The reward of the running episode if a limit cuts it now.

    Raises:
      EnvFault: it is no number in [0, 1].
    """
    return _reward(env.reward_at_limit(), "reward_at_limit")


def _text(value: Any, what: str, most: int) -> str:
    if not isinstance(value, str):
        raise EnvFault(f"{what}: found {_shown(value)}, expected text")
    text = str(value[:most])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EnvFault(
            f"{what}: found half of a surrogate pair at character {error.start}, expected text"
        ) from None
    return text


def _reward(value: Any, what: str) -> float:
    if not isinstance(value, numbers.Real) or not math.isfinite(number := float(value)):
        raise EnvFault(f"{what}: found {_shown(value)}, expected a number in [0, 1]")
    if not -ROUNDING <= number <= 1 + ROUNDING:
        raise EnvFault(f"{what}: found {number:g}, expected a number in [0, 1]")
    return min(1.0, max(0.0, number))


def _shown(value: Any) -> str:
    """A value in a message: its type, and its text if that is short and can be had."""
    try:
        text = repr(value)
    except Exception:  # an environment's own objects may break even here
        text = ""
    name = type(value).__name__
    return f"{name} {text}" if 0 < len(text) <= SHOWN else name
