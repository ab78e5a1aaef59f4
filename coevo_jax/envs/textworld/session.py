"""One game being played: a worker process, what may be said to it, and what to do when it breaks."""

from pathlib import Path
from typing import Any

from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.textworld.interpreter import Interpreter, WorkerError
from coevo_jax.envs.textworld.text import command_of, refused

MAX_EPISODES = 200
"""Episodes a worker plays before a fresh one takes over, whatever its libraries leave behind."""


class Session:
    """A worker and the episode it plays; the worker starts with the first and is renewed at times."""

    def __init__(self) -> None:
        self._interpreter = Interpreter()
        self._episodes = 0
        self._running = False

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None before the first `start`."""
        return self._interpreter.pid

    def start(self, path: Path) -> dict:
        """Start a game file from its beginning; returns the position (see `playing.load`).

        Raises:
          EnvFault: the worker is gone or the game cannot be loaded.
        """
        if self._episodes == MAX_EPISODES:
            self._interpreter.close()
            self._interpreter, self._episodes = Interpreter(), 0
        self._episodes += 1
        position = self._call({"call": "load", "path": str(path.absolute())})
        self._running = True
        return position

    def play(self, action: str) -> dict | str:
        """Play a command; returns the new position, or words where it is no command (see `text.refused`).

        Raises:
          RuntimeError: no episode has begun.
          EnvFault: the worker is gone.
        """
        if not self._running:
            raise RuntimeError("step outside an episode: call reset first")
        if (words := refused(action)) is not None:
            return words
        position = self._call({"call": "step", "action": command_of(action)})
        self._running = not (position["won"] or position["lost"])
        return position

    def plan(self) -> list[str] | None:
        """Commands of the planner from here on, of a .tw-pddl game; None where there is no plan."""
        return self._call({"call": "plan"})

    def close(self) -> None:
        """End the worker, even one that hangs; safe to call twice and from any thread."""
        self._running = False
        self._interpreter.close()

    def _call(self, request: dict) -> Any:
        try:
            return self._interpreter.call(request)
        except WorkerError as error:
            self._running = False
            raise EnvFault(f"the game failed in {request['call']!r}: {error}") from error
