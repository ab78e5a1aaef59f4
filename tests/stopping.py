"""Other processes brought to a stop."""

import os
import signal
import time
from pathlib import Path


def stop(pid: int) -> None:
    """Stop a process, and return when every thread of it stands: until then, one may still answer a call."""
    os.kill(pid, signal.SIGSTOP)
    while {_state(path) for path in Path(f"/proc/{pid}/task").glob("*/stat")} - {"T", ""}:
        time.sleep(0.001)


def _state(path: Path) -> str:
    """A thread's state as Linux names it; nothing where the thread is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()[0]  # behind its name, which may have blanks
    except (FileNotFoundError, ProcessLookupError):
        return ""
