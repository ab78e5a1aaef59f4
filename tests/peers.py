"""Python environments of packages that only a test compares with, where the package index is at hand."""

import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

TORCH = "torch==2.13.0"  # first and alone: the CPU build, before another package would bring CUDA's


def python_with(tmp_path_factory: pytest.TempPathFactory, variable: str, *requirements: str) -> Path:
    """A Python with PyTorch and `requirements`; $VARIABLE=/path/to/its/python saves the install."""
    if variable in os.environ:
        return Path(os.environ[variable])
    root = tmp_path_factory.mktemp("peers")
    subprocess.run([sys.executable, "-m", "venv", root], check=True)
    cpu = ["--retries", "0", "--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    install([root / "bin/pip"], TORCH, *cpu)
    install([root / "bin/pip"], *requirements)
    return root / "bin/python"


def install(pip: list[str | Path], *arguments: str | Path) -> None:
    """Install packages, or skip the test where that cannot be done."""
    command = [*pip, "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"cannot be installed here: {last[:200]}")


def libtpu_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libtpu that this version of jax asks for; $LIBTPU=/path/to/it saves the install."""
    if "LIBTPU" in os.environ:
        return Path(os.environ["LIBTPU"])
    folder = tmp_path_factory.mktemp("libtpu")
    (wanted,) = [line.split(";")[0] for line in requires("jax") or [] if line.startswith("libtpu")]
    install([sys.executable, "-m", "pip"], "--no-deps", "--target", folder, wanted.strip())
    return folder
