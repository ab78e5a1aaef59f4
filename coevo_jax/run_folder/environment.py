"""Where a run is made: versions, commit, devices and processor, as a record that stays with its numbers."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import CODE_ROOT, write_whole
from coevo_jax.hosts import allocator

ENVIRONMENT_FILE = "environment.json"

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "numpy",
    "scienceworld",
)


def describe_environment() -> dict[str, Any]:
    """Versions, devices, processor and the commit of the code, for the record."""
    import jax  # for the devices alone: a stored config is read without

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    command = ["git", "-C", str(CODE_ROOT), "rev-parse", "HEAD"]
    git = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu(),
        "cores": cores(),
        "allocator": "keeps freed memory" if allocator.keeps_freed_memory() else "as the system has it",
        "packages": versions,
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "git": git.stdout.strip() or None,
    }


def write_environment(folder: Path, environment: Mapping[str, Any]) -> str:
    """Write the record into a run's folder; returns its sha256."""
    content = json.dumps(environment, indent=1) + "\n"
    write_whole(folder / ENVIRONMENT_FILE, content)
    return hashlib.sha256(content.encode()).hexdigest()


def read_environment(folder: Path) -> dict[str, Any]:
    """The record of a run's folder.

    Raises:
      ConfigError: it is missing, or no JSON object.
    """
    path = folder / ENVIRONMENT_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; restore it or start a new run") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not the record of where a run was made ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: found {type(found).__name__}, expected a JSON object")
    return found


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


def cores() -> int:
    """Number of cores that this process may use: `taskset` and SLURM give it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
