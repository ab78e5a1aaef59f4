"""`python -m benchmarks.faults.child WRITE FOLDER …`: launch.train that is killed at a write.

With WRITE 0 nobody kills it from inside; otherwise it kills itself, as kill -9 would, right before the write
of that number below FOLDER. The environment is the toy one.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

from benchmarks.faults.gate import ruled
from benchmarks.faults.scene import letters
from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main

if __name__ == "__main__":
    last, folder = int(sys.argv[1]), Path(sys.argv[2])
    done = 0

    def kill_at_last(path: str, writes: bool) -> None:
        global done
        done += writes
        if writes and done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    with letters(), ruled(folder, kill_at_last) if last else contextlib.nullcontext():
        run_command(main, sys.argv[3:])
