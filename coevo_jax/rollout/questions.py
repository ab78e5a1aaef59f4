"""Questions to an agent: each is one turn of its own, in no environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coevo_jax.envs.env import Task
from coevo_jax.rollout.lane import Episode
from coevo_jax.rollout.replay import Asked


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskQuestion:
    """A question about an episode of a task; of its task's questions it has a number."""

    task: Task
    asked: Asked
    number: int


@dataclass(frozen=True, kw_only=True, eq=False)
class QuestionSet:
    """The questions that one agent answers, as episodes of one turn."""

    agent: str  # name recorded in the trajectories
    weights: Any  # of the engine's `load`
    adapter: int = 0
    questions: Sequence[TaskQuestion]
    phase: int  # part of every random key

    @property
    def count(self) -> int:
        return len(self.questions)

    def episodes(self, number: int) -> list[Episode]:
        return [
            Episode(
                order=(number, place),
                agent=self.agent,
                adapter=self.adapter,
                phase=self.phase,
                task=question.task,
                sample=question.number,
                asked=question.asked,
            )
            for place, question in enumerate(self.questions)
        ]
