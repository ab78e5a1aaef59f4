"""An environment in a process of its own, which nothing it does can harm this one.

A hung or dead process is one fault of one episode; its memory is bounded; and an environment of pure Python
runs beside the host's own work instead of waiting for the interpreter. What stands for it here is an `Env`
like any other, so pools and roll-outs know no difference.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Env, EnvFault, StepResult, Task
from coevo_jax.envs.wire import from_bytes, to_bytes
from coevo_jax.trajectory import Demonstration

WORKER = "coevo_jax.envs.process_worker"
CLOSE_SECONDS = 5.0  # for an environment to close by itself (its own child processes, its files)


def isolated(make_env: Callable[[], Env], memory_mib: int) -> Callable[[], Env]:
    """A maker of the same environments, each in a process of its own that may take so much memory."""
    return lambda: ProcessEnv(make_env, memory_mib)


class ProcessEnv:
    """The environment that `make_env` makes in a child process, started at once.

    Args:
      make_env: importable by the child, with picklable options (as `registry.make_env` gives it).
      memory_mib: most memory of the child for data; beyond, it fails and the episode is a fault.

    Raises:
      ConfigError: what `make_env` raised in the child.
      EnvFault: the child died, or what it made raised.
    """

    def __init__(self, make_env: Callable[[], Env], memory_mib: int):
        ours, theirs = Pipe()
        # Not multiprocessing's own start: it would import the main module again, and jax with it.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "coevo_jax.envs.process_worker",
                    str(theirs.fileno()),
                    str(memory_mib),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is this process's; and what the child starts ends with it
            )
        self._pipe: Connection = ours
        self._calling = threading.Lock()  # held while a call uses the pipe
        try:
            fields = self._ask(pickle.dumps(make_env))  # which no record is: a function of the caller's
        except BaseException:
            self.close()
            raise
        self.name: str = fields["name"]
        self.system_prompt: str = fields["system_prompt"]
        self.deterministic: bool = fields["deterministic"]
        self.restores: bool = fields["restores"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def tasks(self, split: str) -> Sequence[Task]:
        return self._call("tasks", split)

    def max_turns(self, task: Task) -> int:
        return self._call("max_turns", task)

    def reset(self, task: Task) -> str:
        return self._call("reset", task)

    def step(self, action: str) -> StepResult:
        return self._call("step", action)

    def reward_at_limit(self) -> float:
        return self._call("reward_at_limit")

    def snapshot(self) -> Any:
        """The state as bytes, which only a child reads; see `Restores`."""
        return self._call("snapshot")

    def restore(self, task: Task, state: Any) -> None:
        self._call("restore", task, state)

    def expert(self, task: Task) -> Demonstration | None:
        return self._call("expert", task)

    def close(self) -> None:
        """End the child, by force where it is busy or slow to end; a call under way gets an `EnvFault`.

        The pipe is closed only when no call uses it: its number is soon another's.
        """
        if self._calling.acquire(blocking=False):
            self._pipe.close()  # the child reads the end, closes its environment and exits
            self._calling.release()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with self._calling:
            self._pipe.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._ask(to_bytes((method, arguments)))

    def _ask(self, message: bytes) -> Any:
        with self._calling:
            try:
                self._pipe.send_bytes(message)
                answer = self._pipe.recv_bytes()
            except (EOFError, OSError) as error:
                raise EnvFault(f"its process ended ({type(error).__name__})") from None
        try:
            kind, value = from_bytes(answer)
        except (TypeError, ValueError):
            raise EnvFault("its answer is none of a process of environments") from None
        if kind == "config":
            raise ConfigError(value)
        if kind == "fault":
            raise EnvFault(value)
        return value
