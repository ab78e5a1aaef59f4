"""Packages that only a test compares with, installed where the package index is at hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import made_once


def peers_path(tmp_path_factory: pytest.TempPathFactory, *requirements: str) -> dict[str, str]:
    """The variable that lets this Python import `requirements`, too, none of which brings others along."""
    name = "-".join(["peers", *sorted(requirements)]).replace("=", "")
    folder = made_once(tmp_path_factory, name, lambda folder: _install(folder, *requirements))
    return {"PYTHONPATH": str(folder)}


def _install(folder: Path, *requirements: str) -> None:
    """Install packages into a folder, or skip the test."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "0"]
    command = [*pip, "--no-deps", "--target", folder, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"cannot be installed here: {last[:200]}")


def libtpu_folder() -> Path:
    """The folder around libtpu, the TPUs' compiler: `./launch/test.sh --real "TPU compiler"` installs it."""
    if "LIBTPU" not in os.environ:
        pytest.skip("LIBTPU is not set: the folder around the libtpu that this jax asks for")
    return Path(os.environ["LIBTPU"])
