"""Ending early without losing anything: a signal asks for it, and the run ends where it can commit.

One process hears SIGTERM and SIGINT itself. Of several, JAX's preemption service hears the SIGTERM that any
of them gets, and lets all of them end at the same point.
"""

import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The run ended early because it was asked to; what it had done is committed."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopRequest:
    """Whether this run is to end early. As a context it listens to signals; otherwise nobody ever asks.

    The first signal asks; a second one ends the process at once, as if nobody listened.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._several = False
        self._calls = 0

    def __enter__(self) -> "StopRequest":
        self._several = jax.process_count() > 1
        if not self._several:
            self._before = {one: signal.signal(one, self._hear) for one in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _hear(self, signum: int, _frame: FrameType | None) -> None:
        self._signum = signum
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)

    def asked(self) -> bool:
        """Whether to end here. With several processes they all ask at the same points, and hear the same."""
        if self._several and self._signum is None:
            self._calls += 1
            if multihost_utils.reached_preemption_sync_point(self._calls):
                self._signum = signal.SIGTERM
        return self._signum is not None

    def end_if_asked(self) -> None:
        """End here, where all that is done is committed; called at the same points in all processes.

        Raises:
          Stopped: somebody asked.
        """
        if self.asked():
            self._end()

    def end_if_alone_and_asked(self) -> None:
        """End here, anywhere in work that is not committed yet: a process that has others goes on with them.

        Raises:
          Stopped: somebody asked, and this is the only process.
        """
        if not self._several and self._signum is not None:
            self._end()

    def _end(self) -> None:
        assert self._signum is not None
        raise Stopped(self._signum)
