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
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import jax
from etils import epath

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import CODE_ROOT, write_whole
from coevo_jax.hosts.processes import Processes
from coevo_jax.learning.train_state import TrainState
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.manifest import (
    MANIFEST,
    Manifest,
    PhaseRecord,
    checkpoint_root,
    file_hashes,
    file_sizes,
    from_plain,
    read_manifest,
    to_plain,
    verify_files,
    write_manifest,
)
from coevo_jax.run_folder.metrics import MetricsLog
from coevo_jax.stopping import StopRequest

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


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A commit whose states are still being written: the manifest to write when they are final."""

    manifest: Manifest
    with_base: bool


class Run:
    """A run folder held by the processes of this run, with its commit record and its metrics log.

    `manifest` is what has been done; the one on disk is what of it is committed, and may lie one commit back
    while states are written. Process 0 alone writes the record, the log and the results; the others follow it
    from commit to commit.
    """

    def __init__(
        self, config: Config, folder: Path, manifest: Manifest, processes: Processes | None = None
    ) -> None:
        self.processes = processes or Processes()
        self.config = config
        self.folder = folder
        self.manifest = manifest
        self._lock = _hold(folder, self.processes)
        self.checkpoints = Checkpointer(checkpoint_root(folder, manifest), owner=True)
        newest = -1 if manifest.checkpoint is None else manifest.checkpoint
        self.checkpoints.prune(set(self.checkpoints.steps()), newest)
        self.log = (MetricsLog if self.leads else MetricsLog.discarded)(folder / "metrics.jsonl")
        self.log.truncate(manifest.metrics_offset)
        self.stop = StopRequest()
        self.traced_steps = range(0)  # optimizer steps that are profiled, by their numbers in the metrics log
        self.agents: dict[str, TrainState] = {}
        self.frozen: Any = {}  # what both agents' adapters adapt; empty where agents are whole
        self._begun: _Begun | None = None
        self._unpruned = False  # a checkpoint has become permanent since the last look at which are kept

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

        States are written while the caller goes on, and count once they are final (`settle`): a process that
        is killed before loses this commit alone. What finishes a phase is permanent when this returns. All
        processes commit together; what process 0 records counts for all, and is returned.

        Args:
          files: as process 0 finds them.
          with_base: the states' checkpoint is to hold what is frozen, too.
        """
        self.settle()
        if self.leads:
            record = replace(record, files=record.files | file_hashes(self.folder, files))
        manifest = replace(
            self.manifest,
            running=record,
            metrics_offset=self.log.offset(),
            peak_memory_bytes=max(self.manifest.peak_memory_bytes, peak_memory()),
        )
        if not states_changed:
            self.follow(manifest.finish(record) if finished else manifest)
            return self.manifest.running or self.manifest.done[-1]
        number = self.next_checkpoint
        self.checkpoints.begin_save(number, self.agents, self.frozen if with_base else {})
        manifest = replace(manifest, checkpoint=number, base=number if with_base else manifest.base)
        self.follow(manifest.finish(record) if finished else manifest, permanent=False)
        self._begun = _Begun(manifest=self.manifest, with_base=with_base)
        if finished:
            self.settle()
        return self.manifest.running or self.manifest.done[-1]

    def follow(self, manifest: Manifest | None = None, *, permanent: bool = True) -> None:
        """Take over the record that process 0 gives; `permanent` lets it write that, too."""

        def give() -> Any:
            assert manifest is not None  # process 0 has made it
            if permanent:
                write_manifest(self.folder, manifest)
            return to_plain(manifest)

        self.manifest = from_plain(self.processes.once("commit", give))

    def settle(self) -> None:
        """Wait until the last commit is permanent, then delete the checkpoints that are kept no longer."""
        if self._begun is not None:
            self._write_begun()
        if self._unpruned:
            self._prune()

    def settle_if_final(self) -> None:
        """Make the last commit permanent if its states are final by now; does not wait.

        That is process 0's to do and to decide. Nothing is deleted here: that is for all processes together.
        """
        if self._begun is not None and self.leads and not self.checkpoints.saving():
            self._write_begun()

    def _write_begun(self) -> None:
        begun, self._begun = self._begun, None
        assert begun is not None and begun.manifest.checkpoint is not None
        folder = self.checkpoints.finish_save(begun.manifest.checkpoint)
        self.manifest = begun.manifest
        if self.leads:
            sizes = file_sizes(folder)
            base_files = sizes if begun.with_base else begun.manifest.base_files
            self.manifest = replace(begun.manifest, checkpoint_files=sizes, base_files=base_files)
            write_manifest(self.folder, self.manifest)
        self._unpruned = True

    def _prune(self) -> None:
        """Keep the newest permanent checkpoints, and that of the warm start: both agents begin with it."""
        newest = self.manifest.checkpoint
        assert newest is not None
        keep = self.config.checkpoint.keep
        kept = set(range(0 if keep == "all" else newest - keep + 1, newest + 1))
        warm_start = self.manifest.record("warm_start")
        kept |= {warm_start.records["checkpoint"]} if warm_start else set()
        self.checkpoints.prune(kept, newest)
        self._unpruned = False

    def close(self) -> None:
        """Make a commit that has begun permanent, and give the folder free."""
        try:
            self.settle()
        finally:
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
    manifest = processes.once("create the run", lambda: to_plain(create_folder(config)))
    return Run(config, run_folder(config), from_plain(manifest), processes)


def create_folder(config: Config) -> Manifest:
    """Make the folder of a new run, as `create_run` does, without opening it."""
    folder = run_folder(config)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(_existing(folder, config))
    manifest = Manifest(config_sha256=config_digest(config))
    if config.checkpoint.folder is not None:
        manifest = replace(manifest, checkpoints=_checkpoints_elsewhere(config, config.checkpoint.folder))
    unborn = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        write_whole(unborn / CONFIG_FILE, to_yaml(config))
        write_whole(unborn / "environment.json", json.dumps(describe_environment(), indent=1) + "\n")
        write_manifest(unborn, manifest)
        unborn.rename(folder)  # an empty folder is replaced, another run's that came first is not
    finally:
        shutil.rmtree(unborn, ignore_errors=True)
    return manifest


def _checkpoints_elsewhere(config: Config, where: str) -> str:
    """The folder, or the place on a bucket, for a new run's checkpoints; another run's are never touched."""
    place = epath.Path(where if "://" in where else Path(where).absolute()) / config.name
    if place.exists() and any(place.iterdir()):
        raise ConfigError(
            f"checkpoint.folder: {place} holds checkpoints already, not those of {run_folder(config)}; "
            "choose another name=NAME or checkpoint.folder=FOLDER"
        )
    return str(place)


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
    command = ["git", "-C", str(CODE_ROOT), "rev-parse", "HEAD"]
    git = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "devices": [str(device) for device in jax.devices()],
        "git": git.stdout.strip() or None,
    }
