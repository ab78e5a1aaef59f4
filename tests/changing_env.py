"""The letters environment with tasks that change: from some reset of a task on, it has another word."""

from collections import Counter
from typing import ClassVar

from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.env import StepResult
from tests.letters_env import LettersEnv, LettersOptions


class ChangingOptions(StrictModel):
    steady: int = 2
    """Resets of a task before it changes."""


class ChangingEnv(LettersEnv):
    """Its first observation never tells: only who looks sees another word."""

    resets: ClassVar[Counter] = Counter()  # of all instances, by task

    def __init__(self, options: ChangingOptions):
        super().__init__(LettersOptions())
        self._steady = options.steady

    def reset(self, task):
        first = super().reset(task)
        ChangingEnv.resets[task.id] += 1
        extra = max(0, ChangingEnv.resets[task.id] - self._steady)
        self._word = self._word[extra % 4 :] + self._word[: extra % 4] if extra < 3 else "dddd"
        return first

    def step(self, action):
        result = super().step(action)
        return StepResult(observation=result.observation, done=result.done, reward=result.reward)

    def expert(self, task):
        ChangingEnv.resets[task.id] -= 1  # nobody plays
        return super().expert(task)


def make_changing(options: ChangingOptions) -> ChangingEnv:
    return ChangingEnv(options)
