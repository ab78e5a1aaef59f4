"""What a checkpoint's save costs: wall seconds, and CPU seconds of all threads but those that go on learning.

A save is written and hashed by threads, while the caller dispatches steps and XLA's threads compute them. So
the CPU time of the process between a save's begin and its end is counted, less that of the caller outside of
the save, and of the threads that were there before the first save: XLA's have no names of their own to know
them by. What a restored checkpoint's readers write later is missing then. It is read off /proc (Linux), in
ticks of 10 ms a thread, and not told where there is none.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

THREADS = Path("/proc/self/task")
COMPUTING = "tf_"  # how the names of XLA's threads begin that have one


class SaveCost:
    """The clock of one save, from when it is made to `end`."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._caller, self._inside = time.thread_time(), 0.0
        self._owner = threading.get_ident()
        self._computing = computing_seconds()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What the caller does here is the save's."""
        began = time.thread_time()
        try:
            yield
        finally:
            self._inside += time.thread_time() - began

    def end(self) -> dict[str, float]:
        """Seconds since the clock was made, for the metrics log; CPU seconds only where they are known."""
        found = {"checkpoint/seconds": time.monotonic() - self._wall}
        computing = computing_seconds()
        if self._computing is None or computing is None or threading.get_ident() != self._owner:
            return found
        others = computing - self._computing + (time.thread_time() - self._caller) - self._inside
        return found | {"checkpoint/cpu_seconds": max(time.process_time() - self._cpu - others, 0.0)}


@cache
def threads_before() -> frozenset[str]:
    """The threads of this process at its first save: XLA's are among them, writers of saves come later."""
    return frozenset(thread.name for thread in THREADS.iterdir())


def computing_seconds() -> float | None:
    """CPU seconds of the threads that compute, without the caller's; None where the system does not tell."""
    if not THREADS.is_dir():
        return None
    before, own = threads_before(), str(threading.get_native_id())
    tick, total = os.sysconf("SC_CLK_TCK"), 0.0
    for thread in THREADS.iterdir():
        try:
            name, _, fields = (thread / "stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if thread.name != own and (thread.name in before or name.startswith(COMPUTING)):
            user, system = fields.split()[11:13]
            total += (int(user) + int(system)) / tick
    return total
