"""A clock of device work by kind of call, which never makes the host wait for the device.

A thread of its own waits for the end of each call and notes the time: a call took from its start, or the end
of the one before where that was later, to its own end. So time in which several calls run counts once.
"""

import queue
import threading
import time
from collections import defaultdict
from types import TracebackType

import jax


class DeviceClock:
    """Measures the seconds of device work by kind, from `__enter__` to `__exit__`."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._calls: queue.SimpleQueue[tuple[str, float, jax.Array] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="device-clock")

    def __enter__(self) -> "DeviceClock":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.put(None)
        if error is None:
            self._thread.join()

    def track(self, kind: str, started: float, done: jax.Array | None) -> None:
        """Count the device time of a call made at `started` (time.monotonic) that produces the array `done`.

        None is no call of a device, and nothing is counted.
        """
        if done is not None:
            self._calls.put((kind, started, done))

    def _watch(self) -> None:
        free = 0.0
        while (call := self._calls.get()) is not None:
            kind, started, done = call
            try:
                done.block_until_ready()
            except Exception:
                return  # the call failed: whoever made it raises, and nobody reads this clock
            now = time.monotonic()
            self.seconds[kind] += now - max(started, free)
            free = now
