"""A toy environment for tests of the whole loop: copy a word of letters; graded rewards, short episodes."""

import numpy as np

from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.env import SPLITS, StepResult, Task
from coevo_jax.trajectory import Demonstration, Turn

SIZES = {"train": 200, "dev": 20, "test": 20}


class LettersOptions(StrictModel):
    seed: int = 0
    """Seed of the words."""


class LettersEnv:
    """Two turns: "look", which shows the word, then the word itself. Reward: share of right letters."""

    name = "letters"
    system_prompt = ""
    deterministic = True

    def __init__(self, options: LettersOptions) -> None:
        rng = np.random.default_rng([options.seed])
        self._words: dict[str, str] = {}
        self._tasks: dict[str, list[Task]] = {}
        for split in SPLITS:
            ids = [f"{split}/{number}" for number in range(SIZES[split])]
            self._words |= {name: "".join(rng.choice(list("abc"), 4)) for name in ids}
            self._tasks[split] = [Task(id=name, split=split, family="copy") for name in ids]

    def tasks(self, split):
        return self._tasks[split]

    def max_turns(self, task):
        return 4

    def reset(self, task):
        self._word = self._words[task.id]
        return "Copy"

    def step(self, action):
        if action == "look":
            return StepResult(observation=" ".join(self._word), done=False, reward=0.0)
        right = sum(a == b for a, b in zip(action.replace(" ", ""), self._word, strict=False))
        return StepResult(observation="", done=True, reward=right / len(self._word))

    def reward_at_limit(self):
        return 0.0

    def expert(self, task):
        word = " ".join(self._words[task.id])
        turns = (
            Turn(response="Action: look", action="look", observation=word),
            Turn(response=f"Action: {word}", action=word, observation=""),
        )
        return Demonstration(task_id=task.id, prompt=self.reset(task), turns=turns, reward=1.0)

    def close(self):
        pass


def make_letters(options: LettersOptions) -> LettersEnv:
    return LettersEnv(options)
