"""Players of environments without experts: they try actions that could be meant, at random.

What they play teaches a model how actions look before it explores by itself (docs/environments.md).
"""

from typing import Any

import numpy as np
from pydantic import Field

from coevo_jax.envs.env import Env, Task, TriesActions
from coevo_jax.envs.players import Lesson, PlayerHabits, Players, acting
from coevo_jax.trajectory import Demonstration, Turn


class RandomHabits(PlayerHabits):
    """How random players play."""

    seed: int = Field(0, ge=0)
    """Seed of the players' draws, apart from that of the tasks."""
    best_of: int = Field(1, ge=1)
    """Episodes that are played of a task; the best one counts, of equal ones the first."""


def play(env: Any, task: Task, habits: RandomHabits, rng: np.random.Generator) -> Demonstration:
    """The best of some episodes of random actions."""
    episodes = [_episode(env, env, task, rng) for _ in range(habits.best_of)]
    return max(episodes, key=lambda one: one.reward)


def _episode(env: Env, tries: TriesActions, task: Task, rng: np.random.Generator) -> Demonstration:
    turns: list[Turn] = []
    prompt, act, reward = env.reset(task), acting(env, turns), None
    while reward is None and len(turns) < env.max_turns(task):
        result = act(tries.tries(task, rng))
        reward = result.reward if result.done else None
    earned = env.reward_at_limit() if reward is None else reward
    return Demonstration(task_id=task.id, prompt=prompt, turns=tuple(turns), reward=earned)


def lesson(options: Any, habits: Any, seed: int, episodes: int) -> Lesson:
    """The train tasks from the first on."""
    return Lesson(options=options, habits=habits.model_copy(update={"seed": seed}), episodes=episodes)


PLAYERS = Players(
    habits=RandomHabits,
    stream="random players",
    check=lambda options: None,
    lesson=lesson,
    play=play,
    skills=lambda prompt, turns: {},
    skill_words={},
)
