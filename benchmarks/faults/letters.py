"""The toy environment of the tests, which breaks, hangs, dies or lies at some steps.

Which steps is drawn from the seed, the task, the turn and the action alone: no instance or process needs to
know of another. Each fault that was done is a line of a file, since the process may die of it.
"""

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.env import StepResult
from tests.letters_env import LettersEnv
from tests.letters_env import LettersOptions as TestedOptions

POISON = "poisoned"  # stands in what a broken step answers, where it answers
ROUNDED = "lie: 1.0000000000000002"
LIES: dict[str, Any] = {
    "lie: NaN": float("nan"),
    "lie: infinity": float("inf"),
    "lie: 1.5": 1.5,
    "lie: -0.5": -0.5,
    ROUNDED: 1.0000000000000002,
    "lie: None": None,
    "lie: text": "0.9",
}
HANG, RAISE, DROP, KILLED = "a call hangs", "a call raises", "the server is gone", "its process is killed"
SPEECHLESS = "lie: no text"
KINDS = (*LIES, HANG, RAISE, DROP, SPEECHLESS)


class FaultyOptions(StrictModel):
    """Options of the environment that breaks."""

    seed: int = 0
    """Seed of the words."""
    kinds: tuple[str, ...] = ()
    """What may break, one of them at each step that does."""
    rate: float = 0.0
    """Share of steps that break."""
    fault_seed: int = 0
    """Seed of which steps break."""
    done_in: str = ""
    """File that gets a line for each."""
    hang: float = 1.6
    """Seconds that a call hangs."""


class FaultyLetters(LettersEnv):
    """The toy environment with faults; without a rate it is sound."""

    def __init__(self, options: FaultyOptions) -> None:
        super().__init__(TestedOptions(seed=options.seed))
        self._options = options
        self._task, self._turn = "", 0

    def reset(self, task):
        self._task, self._turn = task.id, 0
        return super().reset(task)

    def step(self, action):
        self._turn += 1
        result = super().step(action)
        kind = self._broken(action)
        if kind is None:
            return result
        with Path(self._options.done_in).open("a", encoding="utf-8") as file:
            file.write(kind + "\n")
        return self._break(kind)

    def _broken(self, action: str) -> str | None:
        return broken(self._options, self._task, self._turn, action)

    def _break(self, kind: str) -> Any:
        if kind in LIES:
            said = "" if kind == ROUNDED else POISON
            return StepResult(observation=said, done=True, reward=LIES[kind])
        if kind == RAISE:
            raise RuntimeError("out of cheese")
        if kind == DROP:
            raise ConnectionResetError(104, "Connection reset by peer")
        if kind == SPEECHLESS:
            return StepResult(observation=None, done=False, reward=0.0)
        if kind == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._options.hang)
        return StepResult(observation=POISON, done=True, reward=1.0)


def broken(options: FaultyOptions, task_id: str, turn: int, action: str) -> str | None:
    """How a step breaks, the task's first being turn 1; None where it is sound."""
    if not options.kinds or not options.rate:
        return None
    key = f"{options.fault_seed} {task_id} {turn} {action}".encode(errors="replace")
    number = int.from_bytes(hashlib.sha256(key).digest()[:8])
    share, kind = number % 10_000, options.kinds[number // 10_000 % len(options.kinds)]
    return kind if share < 10_000 * options.rate else None


def make_faulty(options: FaultyOptions) -> FaultyLetters:
    return FaultyLetters(options)
