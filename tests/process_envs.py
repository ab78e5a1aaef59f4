"""An environment that misbehaves on request, importable by the process that holds it."""

import os
import time
from collections.abc import Sequence
from typing import ClassVar

from coevo_jax.config.strict import ConfigError, StrictModel
from coevo_jax.envs.env import StepResult, Task
from coevo_jax.trajectory import Demonstration


class Options(StrictModel):
    pass


class Misbehaving:
    TASK: ClassVar[Task] = Task(id="one", split="train", family="only")
    name = "misbehaving"
    system_prompt = ""
    deterministic = True

    def tasks(self, split: str) -> Sequence[Task]:
        return [self.TASK]

    def max_turns(self, task: Task) -> int:
        return 1

    def reset(self, task: Task) -> str:
        return "do something"

    def step(self, action: str) -> StepResult:
        if action == "hang":
            time.sleep(1000)
        if action == "die":
            os._exit(1)
        if action == "eat":
            bytearray(2**30)
        return StepResult(observation="worked", done=True, reward=1.0)

    def reward_at_limit(self) -> float:
        return 0.0

    def expert(self, task: Task) -> Demonstration | None:
        return None

    def close(self) -> None:
        return


def make_misbehaving(options: Options) -> Misbehaving:
    return Misbehaving()


def refuse() -> Misbehaving:
    raise ConfigError("env.options: no such folder")
