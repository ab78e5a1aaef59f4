"""Packages that only a test compares with, installed where the package index is at hand."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest


def peers_path(tmp_path_factory: pytest.TempPathFactory, *requirements: str) -> dict[str, str]:
    """The variable that lets this Python import `requirements`, too, none of which brings others along.

    All processes of a test run share a folder, which the first to come fills.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / f"peers-{'-'.join(sorted(requirements)).replace('=', '')}"
    with (base / "peers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _install(folder, *requirements)
    return {"PYTHONPATH": str(folder)}


def _install(folder: Path, *requirements: str) -> None:
    """Install packages into a folder that exists only when all are there, or skip the test."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "0"]
    command = [*pip, "--no-deps", "--target", part, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"cannot be installed here: {last[:200]}")
    part.rename(folder)


def libtpu_folder() -> Path:
    """The folder around libtpu, the TPUs' compiler: `./launch/test.sh --real "TPU compiler"` installs it."""
    if "LIBTPU" not in os.environ:
        pytest.skip("LIBTPU is not set: the folder around the libtpu that this jax asks for")
    return Path(os.environ["LIBTPU"])
