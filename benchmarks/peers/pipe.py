"""How a contender talks with the benchmark: one JSON object a line, one step for every line it is sent.

Only the standard library: contenders run in interpreters of their own, with packages of their own.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Pipe:
    """The contender's end. Standard output belongs to the pipe; what libraries print goes to standard error.

    The clock runs from a `wait` to the next `report`, so that a contender costs nothing while others have
    their turn.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.restart()

    def job(self) -> dict[str, Any]:
        """What to train, from the file that is named on the command line."""
        return json.loads(Path(sys.argv[1]).read_text())

    def wait(self) -> None:
        """Wait for the next turn; ends the process when there is none."""
        if not sys.stdin.readline():
            raise SystemExit(0)
        self.restart()

    def report(self, values: Mapping[str, Any]) -> None:
        """Send seconds on the clock, seconds of processor time on all cores, peak memory and `values`."""
        seconds, cpu = time.perf_counter() - self._clock, time.process_time() - self._cpu
        record = {"seconds": seconds, "cpu": cpu, "peak_rss": peak_rss(), **values}
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()

    def restart(self) -> None:
        """Set the clock to zero: what was done since `wait` is no part of the step."""
        self._clock, self._cpu = time.perf_counter(), time.process_time()


def peak_rss() -> int:
    """The most resident memory that this process ever had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
