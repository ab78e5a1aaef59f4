"""The folder of a run: created once, committed phase by phase, reopened after an interruption."""

import fcntl
import hashlib
import json
import os
import platform
import resource
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import jax

from coevo_jax.checkpoint import Checkpointer
from coevo_jax.config import Config, ConfigError
from coevo_jax.config_io import load_config, to_yaml
from coevo_jax.files import write_whole
from coevo_jax.learning.train_state import TrainState
from coevo_jax.manifest import (
    MANIFEST,
    Manifest,
    PhaseRecord,
    file_hashes,
    file_sizes,
    from_plain,
    read_manifest,
    to_plain,
    verify_files,
    write_manifest,
)
from coevo_jax.metrics import MetricsLog
from coevo_jax.processes import Processes

CONFIG_FILE = "config.yaml"
SHARED_WITHIN = 15.0  # seconds that a file system may take to show one host what another has written
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


class Run:
    """A run folder held by the processes of this run, with its commit record and its metrics log.

    Process 0 alone writes the record, the log and the results; the others follow it from commit to commit.
    """

    def __init__(
        self, config: Config, folder: Path, manifest: Manifest, processes: Processes | None = None
    ) -> None:
        self.processes = processes or Processes()
        self.config = config
        self.folder = folder
        self.manifest = manifest
        self._lock = _hold(folder, self.processes)
        self.checkpoints = Checkpointer(folder / "checkpoints")
        newest = -1 if manifest.checkpoint is None else manifest.checkpoint
        self.checkpoints.prune(set(self.checkpoints.steps()), newest)
        self.log = (MetricsLog if self.leads else MetricsLog.discarded)(folder / "metrics.jsonl")
        self.log.truncate(manifest.metrics_offset)
        self.agents: dict[str, TrainState] = {}
        self.frozen: Any = {}  # what both agents' adapters adapt; empty where agents are whole

    @property
    def leads(self) -> bool:
        """Whether this process writes what a run has one of."""
        return self.processes.leads

    def begin(self, name: str) -> PhaseRecord:
        """Where a phase stands: fresh, or as far as an interrupted run has committed it."""
        return self.manifest.begin(name)

    @property
    def next_checkpoint(self) -> int:
        """The number under which the next commit stores the agents' states."""
        return 0 if self.manifest.checkpoint is None else self.manifest.checkpoint + 1

    def environment(self) -> dict[str, Any]:
        """Versions and devices as they were when the run began."""
        return json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))

    def commit(
        self,
        record: PhaseRecord,
        *,
        files: list[Path],
        states_changed: bool,
        finished: bool,
        with_base: bool = False,
    ) -> PhaseRecord:
        """Make what was done so far permanent: files and states first, the manifest last.

        All processes commit together; what process 0 records counts for all, and is returned.

        Args:
          files: as process 0 finds them.
          with_base: the states' checkpoint is to hold what is frozen, too.
        """
        if self.leads:
            record = replace(record, files=record.files | file_hashes(self.folder, files))
        manifest = replace(
            self.manifest,
            running=record,
            metrics_offset=self.log.offset(),
            peak_memory_bytes=max(self.manifest.peak_memory_bytes, peak_memory()),
        )
        if states_changed:
            number = self.next_checkpoint
            folder = self.checkpoints.save(number, self.agents, self.frozen if with_base else {})
            sizes = file_sizes(folder) if self.leads else {}
            manifest = replace(manifest, checkpoint=number, checkpoint_files=sizes)
            if with_base:
                manifest = replace(manifest, base=number, base_files=sizes)
        self.follow(manifest.finish(record) if finished else manifest)
        if states_changed and self.manifest.checkpoint is not None:
            newest = self.manifest.checkpoint
            kept = set(range(newest - self.config.checkpoint.keep + 1, newest + 1))
            warm_start = self.manifest.record("warm_start")
            kept |= {warm_start.records["checkpoint"]} if warm_start else set()
            self.checkpoints.prune(kept, newest)
        return self.manifest.running or self.manifest.done[-1]

    def follow(self, manifest: Manifest | None = None) -> None:
        """Take over the record that process 0 gives and writes: the one commit point of all processes."""

        def write() -> Any:
            assert manifest is not None  # process 0 has made it
            write_manifest(self.folder, manifest)
            return to_plain(manifest)

        self.manifest = from_plain(self.processes.once("commit", write))

    def close(self) -> None:
        self.log.close()
        self.checkpoints.close()
        if self._lock is not None:
            self._lock.close()


def _hold(folder: Path, processes: Processes) -> TextIO | None:
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
        raise ConfigError(f"{folder}: another process is working on this run") from None
    return lock


def _is_marked(folder: Path, words: str) -> bool:
    path = folder / ".lock"
    return path.is_file() and path.read_text(encoding="utf-8") == words


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def config_digest(config: Config) -> str:
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()


def run_folder(config: Config) -> Path:
    return Path(config.runs_dir) / config.name


def create_run(config: Config, processes: Processes | None = None) -> Run:
    """Make the folder of a new run, whole or not at all. An existing one is never touched.

    Of several processes, number 0 makes it.

    Raises:
      ConfigError: the folder exists, with the same config (resume it) or another (its first difference).
    """
    processes = processes or Processes()
    folder, manifest = run_folder(config), Manifest(config_sha256=config_digest(config))
    processes.once("create the run", lambda: _create_folder(config, folder, manifest))
    return Run(config, folder, manifest, processes)


def _create_folder(config: Config, folder: Path, manifest: Manifest) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(_existing(folder, config))
    unborn = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        write_whole(unborn / CONFIG_FILE, to_yaml(config))
        write_whole(unborn / "environment.json", json.dumps(describe_environment(), indent=1) + "\n")
        write_manifest(unborn, manifest)
        unborn.rename(folder)  # an empty folder is replaced, another run's that came first is not
    finally:
        shutil.rmtree(unborn, ignore_errors=True)


def open_run(folder: Path, processes: Processes | None = None) -> Run:
    """Reopen a run at its last commit.

    Raises:
      ConfigError: not a run, its config was edited, or a committed file is missing or changed.
    """
    processes = processes or Processes()
    config = read_config(folder)
    manifest = processes.once("open the run", lambda: to_plain(_checked_manifest(folder, config)))
    return Run(config, folder, from_plain(manifest), processes)


def read_config(folder: Path) -> Config:
    """The config of a stored run.

    Raises:
      ConfigError: the folder is not a run, or its config cannot be read.
    """
    read_manifest(folder)
    return load_config(folder / CONFIG_FILE)


def _checked_manifest(folder: Path, config: Config) -> Manifest:
    manifest = read_manifest(folder)
    if config_digest(config) != manifest.config_sha256:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: differs from the config this run was started with; a run keeps its "
            "config (start another one with name=NEW_NAME)"
        )
    verify_files(folder, manifest)
    return manifest


def is_run_of(folder: Path, config: Config) -> bool:
    """Whether the folder holds a run of this very config."""
    return (folder / MANIFEST).is_file() and load_config(folder / CONFIG_FILE) == config


def _existing(folder: Path, config: Config) -> str:
    if not (folder / MANIFEST).is_file():
        return f"{folder}: the folder exists and is not a run; choose another name=NAME or runs_dir=FOLDER"
    found = load_config(folder / CONFIG_FILE)
    difference = first_difference(config.model_dump(), found.model_dump())
    if difference is None:
        return f"{folder}: this run exists; continue it with: python -m launch.train --resume {folder}"
    key, wanted, has = difference
    return (
        f"{folder}: holds a run of another config ({key}: found {has!r}, this config has {wanted!r}); "
        f"choose another name=NAME, or continue that run with --resume {folder}"
    )


def first_difference(ours: Any, theirs: Any, prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first dotted key at which two nested configs differ, with both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            found = first_difference(ours.get(key), theirs.get(key), f"{prefix}{key}.")
            if found:
                return found
        return None
    return None if ours == theirs else (prefix.rstrip("."), ours, theirs)


def describe_environment() -> dict[str, Any]:
    """Versions, devices and the commit of the code, for the record."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    root = Path(__file__).resolve().parent.parent
    git = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "devices": [str(device) for device in jax.devices()],
        "git": git.stdout.strip() or None,
    }
