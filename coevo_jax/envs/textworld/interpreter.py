"""The worker process, as the main process sees it: calls that return, fail, or are cut by `close`."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault
from coevo_jax.files import CODE_ROOT

TEXTWORLD_VERSION = "1.7.0"
WORKER = "coevo_jax.envs.textworld.worker"


def check_package() -> None:
    """Raise ConfigError unless the version of TextWorld is installed that the games are made for."""
    try:
        found = importlib.metadata.version("textworld")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != TEXTWORLD_VERSION:
        raise ConfigError(
            f"env textworld: package textworld: found {found}, expected {TEXTWORLD_VERSION}; "
            f"install it with: pip install textworld=={TEXTWORLD_VERSION}"
        )


class WorkerError(Exception):
    """The worker answered that a call failed; the process itself goes on."""


class Interpreter:
    """A worker process that starts at the first call and serves one call at a time.

    A process that dies is an `EnvFault`; the instance is then of no more use. `close` may come from another
    thread, and ends a call that hangs. The process also ends when this one does, however that ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # between a start in one thread and a close in another
        self._closed = False
        self._process: subprocess.Popen[str] | None = None
        self._kill: weakref.finalize | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, None before the first call."""
        return self._process.pid if self._process else None

    def call(self, request: dict[str, Any]) -> Any:
        """The worker's result for a request (see `worker`).

        Raises:
          WorkerError: the call failed.
          EnvFault: the process is gone.
        """
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed meanwhile
            raise EnvFault(f"the game's process is gone ({error})") from error
        if not line.endswith("\n"):
            raise EnvFault(f"the game's process ended during {request['call']!r} (exit {process.poll()})")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Kill the process and what it started, even if it hangs; safe to call twice and from any thread."""
        with self._lock:
            self._closed = True
        if self._kill:
            self._kill()

    def _start(self) -> "subprocess.Popen[str]":
        with self._lock:
            if self._closed:
                raise EnvFault("the game's process was closed")
            paths = [str(CODE_ROOT), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "PYTHONHASHSEED": "0",  # TextWorld walks through sets
                    "PYTHONWARNINGS": "ignore",  # of TextWorld's dependencies, at import
                    "OMP_NUM_THREADS": "1",
                },
                start_new_session=True,  # Ctrl-C stops the run in its own order; the compiler dies with it
            )
            self._kill = weakref.finalize(self, _kill, self._process)
            return self._process


def _kill(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe:
                pipe.close()
        except OSError:
            continue  # unsent bytes for a dead process
