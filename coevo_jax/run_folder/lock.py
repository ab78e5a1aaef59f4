"""The lock of a run's folder: one run at a time works on it, however many processes it has."""

import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import TextIO

from coevo_jax.config.strict import ConfigError
from coevo_jax.hosts.processes import Processes

SHARED_WITHIN = 15.0  # seconds that a file system may take to show one host what another has written


def hold(folder: Path, processes: Processes) -> TextIO | None:
    """Lock a run's folder for process 0; the others see its mark there, or the folder is not the same.

    Raises:
      ConfigError: a process of another run is working on it, or a process of this one does not share it.
    """
    lock = _locked(folder) if processes.leads else None
    if processes.count == 1:
        return lock

    def mark() -> str:
        assert lock is not None
        words = f"{processes.host} {os.getpid()} {secrets.token_hex(8)}"
        lock.truncate(0)
        lock.write(words)
        lock.flush()
        os.fsync(lock.fileno())
        return words

    words = processes.once("lock", mark)
    deadline = time.monotonic() + SHARED_WITHIN
    while lock is None and not _is_marked(folder, words):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{folder}: not the folder that process 0 writes to; runs of several hosts need one that all "
                "of them share (runs_dir on NFS, Filestore, Lustre or a mounted bucket)"
            )
        time.sleep(0.2)
    return lock


def _locked(folder: Path) -> TextIO:
    lock = (folder / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConfigError(f"{folder}: another process is working on this run") from None
    return lock


def _is_marked(folder: Path, words: str) -> bool:
    path = folder / ".lock"
    return path.is_file() and path.read_text(encoding="utf-8") == words


def is_held(folder: Path) -> bool:
    """Whether a process is working on a run."""
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
