"""What several test processes share: made by the first that needs it, in the session's temporary folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder of that name, filled by `make`: once in a session, whatever the number of its processes.

    The others wait for the one that makes it. A making that fails is tried again by the next.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # every worker has a folder in it
    folder = shared / f"shared-{name}"
    done = shared / f"shared-{name}.done"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
