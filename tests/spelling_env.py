"""A toy environment of several turns whose states add up: spell a word letter by letter; graded rewards."""

import numpy as np

from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.env import SPLITS, StepResult, Task
from coevo_jax.trajectory import Demonstration, Turn

SIZES = {"train": 200, "dev": 20, "test": 20}
LETTERS = 3


class SpellingOptions(StrictModel):
    seed: int = 0
    """Seed of the words."""
    drifts: int = 0
    """Of so many tasks one answers otherwise when it is begun again; 0 is none."""


class SpellingEnv:
    """Turns: "look", which shows the word, then one letter each. Reward: share of right letters."""

    name = "spelling"
    system_prompt = ""

    def __init__(self, options: SpellingOptions) -> None:
        self.deterministic = options.drifts == 0
        rng = np.random.default_rng([options.seed])
        self._words: dict[str, str] = {}
        self._tasks: dict[str, list[Task]] = {}
        self._drifting: set[str] = set()
        self._begun: dict[str, int] = {}
        for split in SPLITS:
            ids = [f"{split}/{number}" for number in range(SIZES[split])]
            self._words |= {name: "".join(rng.choice(list("ab"), LETTERS)) for name in ids}
            self._tasks[split] = [Task(id=name, split=split, family="spell") for name in ids]
            self._drifting |= set(ids[:: options.drifts]) if options.drifts else set()

    def tasks(self, split):
        return self._tasks[split]

    def max_turns(self, task):
        return LETTERS + 2

    def reset(self, task):
        self._id, self._written = task.id, ""
        self._begun[task.id] = self._begun.get(task.id, 0) + 1
        return "Spell"

    def step(self, action):
        if action == "look":
            return StepResult(observation=self._shown(), done=False, reward=0.0)
        if action not in ("a", "b"):
            return StepResult(observation="Invalid action", done=False, reward=0.0)
        self._written += action
        done = len(self._written) == LETTERS
        return StepResult(observation=self._written, done=done, reward=self._reward() if done else 0.0)

    def _shown(self):
        other = self._id in self._drifting and self._begun[self._id] > 1
        return " ".join(self._words[self._id]) + (" !" * self._begun[self._id] if other else "")

    def _reward(self):
        pairs = zip(self._written, self._words[self._id], strict=False)
        return sum(a == b for a, b in pairs) / LETTERS

    def reward_at_limit(self):
        return self._reward()

    def expert(self, task):
        word = self._words[task.id]
        turns = [Turn(response="Action: look", action="look", observation=" ".join(word))]
        for number, letter in enumerate(word, start=1):
            turns.append(Turn(response=f"Action: {letter}", action=letter, observation=word[:number]))
        return Demonstration(task_id=task.id, prompt="Spell", turns=tuple(turns), reward=1.0)

    def close(self):
        pass


class RestoringSpellingEnv(SpellingEnv):
    """The same with states that can be kept."""

    def snapshot(self):
        return self._written

    def restore(self, task, state):
        self._id, self._written = task.id, state


def make_spelling(options: SpellingOptions) -> SpellingEnv:
    return SpellingEnv(options)


def make_restoring(options: SpellingOptions) -> RestoringSpellingEnv:
    return RestoringSpellingEnv(options)
