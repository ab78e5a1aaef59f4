"""A process that works on a study's cells one after the other, on a core of its own unless it has all.

Programs that a cell compiled serve the next one, which is why a worker takes many.
"""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from pathlib import Path

from coevo_jax.hosts import allocator

STOPPED = "stopped"


def serve(connection: Connection, core: int | None, log: Path) -> None:
    """Take cells from the study's process and answer each with its row, until there are no more.

    A question is (work, cell, relatives): "run", or a part of a row that is played later. An answer is a row,
    that part, an exception, or `STOPPED` where a signal ended the run under way.
    """
    allocator.took(os.environ)
    os.setsid()  # Ctrl-C reaches the study's process alone, which asks its workers to end
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # before JAX counts cores
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from coevo_jax.run_folder.stopping import Stopped
    from coevo_jax.study.work import play_later, run_cell

    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        if question is None:
            return
        work, cell, relatives = question
        try:
            answer = run_cell(cell, relatives) if work == "run" else play_later(cell, work)
        except Stopped:
            answer = STOPPED
        except Exception as error:  # the study's process tells it, and ends the study
            answer = error
        connection.send(answer)
        if answer == STOPPED:
            return


def _end_with_parent() -> None:
    """Ask this process to end where it can commit, as soon as the study's process is gone."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
