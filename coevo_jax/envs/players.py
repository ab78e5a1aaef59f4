"""Scripted imperfect players: what an environment with some offers, and how tasks are played by them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.env import SPLITS, Env, StepResult, Task, format_response
from coevo_jax.trajectory import Demonstration, Turn

Act = Callable[[str], StepResult]


class PlayerHabits(StrictModel):
    """The rates of an environment's players; each environment adds its own."""

    seed: int
    """Seed of the players' draws."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a base learns from: players with some habits in a world of their own."""

    options: Any  # of the environment
    habits: PlayerHabits
    episodes: int  # of its first train tasks


@dataclass(frozen=True, kw_only=True)
class Players:
    """The scripted players of one environment."""

    habits: type[PlayerHabits]
    stream: str  # name of the players' draws
    check: Callable[[Any], None]  # refuses options under which they cannot play, with a ConfigError
    lesson: Callable[[Any, Any, int, int], Lesson]  # options, habits, seed, episodes -> a base's data
    play: Callable[[Any, Task, Any, np.random.Generator], Demonstration | None]  # None: no expert to follow
    skills: Callable[[str, Sequence[Turn]], Mapping[str, bool]]  # prompt, turns -> skill -> shown rightly
    skill_words: Mapping[str, str]  # skill -> what a table calls it


def acting(env: Env, turns: list[Turn]) -> Act:
    """A player's hand: what it does takes a step in the environment, and is added to the turns."""

    def act(action: str) -> StepResult:
        result = env.step(action)
        response = format_response("", action)
        turns.append(Turn(response=response, action=action, observation=result.observation))
        return result

    return act


def play_tasks(
    players: Players, env: Env, split: str, places: range, habits: PlayerHabits
) -> Iterator[tuple[Task, Demonstration | None]]:
    """One episode of each task at some places of a split.

    The draws of an episode depend on the habits' seed, the split and the task's place alone: a slice is
    played as it is within a larger one.
    """
    tasks = env.tasks(split)
    for place in places:
        rng = stream(players.stream, habits.seed, SPLITS.index(split), place)
        yield tasks[place], players.play(env, tasks[place], habits, rng)
