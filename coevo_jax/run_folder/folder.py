"""The folder of a run: made whole or not at all, found again, described and compared with a config."""

import errno
import hashlib
import shutil
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from etils import epath

from coevo_jax.config.options import FORMAT, Config
from coevo_jax.config.reading import load_resolved, to_yaml
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called, remove_leftovers, temporary_of, write_whole
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.environment import describe_environment, write_environment
from coevo_jax.run_folder.manifest import (
    MANIFEST,
    Manifest,
    read_manifest,
    verify_files,
    write_manifest,
)

CONFIG_FILE = "config.yaml"


def config_digest(config: Config) -> str:
    """The sha256 of the config.yaml that a new run of this config gets."""
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()


def run_folder(config: Config) -> Path:
    """The folder of a config's run."""
    return Path(config.runs_dir) / config.name


def create_folder(config: Config, **notes: Any) -> Manifest:
    """Make the folder of a new run, as `create_run` does, without opening it.

    Args:
      notes: what its environment.json says besides.

    Raises:
      ConfigError: the folder exists, or another process made it at the same time.
    """
    folder = run_folder(config)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(_existing(folder, config))
    manifest = Manifest(config_sha256=config_digest(config))
    if config.checkpoint.folder is not None:
        manifest = replace(manifest, checkpoints=_checkpoints_elsewhere(config, config.checkpoint.folder))
    remove_leftovers(
        folder.parent, f".{escape(folder.name)}.*.tmp"
    )  # of processes killed while they began it
    unborn = temporary_of(folder, unique=True)
    try:
        write_whole(unborn / CONFIG_FILE, to_yaml(config))
        manifest = replace(
            manifest, environment_sha256=write_environment(unborn, describe_environment() | notes)
        )
        write_manifest(unborn, manifest)
        unborn.rename(folder)  # an empty folder is replaced, another run's that came first is not
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise ConfigError(f"{folder}: another process has just begun this run") from None
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


def read_config(folder: Path) -> Config:
    """The config of a stored run.

    Raises:
      ConfigError: the folder is not a run, or its config cannot be read.
    """
    read_manifest(folder)
    return load_resolved(folder / CONFIG_FILE)


def checked_manifest(folder: Path) -> Manifest:
    """The commit record of a run that is to go on.

    Raises:
      ConfigError: not a run, one that cannot go on, its config was edited, or a committed file is missing or
        changed.
    """
    manifest = read_manifest(folder)
    if manifest.format < FORMAT:
        raise ConfigError(f"{folder}: cannot be resumed: {_begun_before(folder)}")
    if hashlib.sha256((folder / CONFIG_FILE).read_bytes()).hexdigest() != manifest.config_sha256:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: differs from the config this run was started with; a run keeps its "
            "config (start another one with name=NEW_NAME)"
        )
    require_scheduled(folder, read_config(folder), manifest)
    verify_files(folder, manifest)
    return manifest


def require_scheduled(folder: Path, config: Config, manifest: Manifest) -> None:
    """Make sure that a record is one that a run of this config can have written.

    Raises:
      ConfigError: its phases are others than those that the config schedules, or not in that order.
    """
    names = ["prepare", *(phase.name for phase in schedule(config))]
    running = [] if manifest.running is None else [manifest.running]
    for number, record in enumerate((*manifest.done, *running)):
        expected = names[number] if number < len(names) else "none"
        if record.name != expected:
            raise ConfigError(
                f"{folder / MANIFEST}: phase {number + 1}: found {record.name}, expected {expected}, as "
                f"{CONFIG_FILE} has it; restore it, or begin a new run"
            )


def _begun_before(folder: Path) -> str:
    return (
        "it was begun before recipes (format 1); report, evaluate, export, audit and fork read it; begin a "
        f"new run, with its warm start by --fork {folder}"
    )


def is_run_of(folder: Path, config: Config) -> bool:
    """Whether the folder holds a run of this very config; it may have been moved, or mounted elsewhere."""
    if not (folder / MANIFEST).is_file():
        return False
    return load_resolved(folder / CONFIG_FILE).model_copy(update={"runs_dir": config.runs_dir}) == config


def _existing(folder: Path, config: Config) -> str:
    if not (folder / MANIFEST).is_file():
        return f"{folder}: the folder exists and is not a run; choose another name=NAME or runs_dir=FOLDER"
    if read_manifest(folder).format < FORMAT:
        return f"{folder}: holds a run that cannot go on: {_begun_before(folder)} and another name=NAME"
    found = load_resolved(folder / CONFIG_FILE)
    difference = first_difference(config.model_dump(), found.model_dump() | {"runs_dir": config.runs_dir})
    if difference is None:
        resume = as_called("python -m launch.train --resume")
        return f"{folder}: this run exists; continue it with: {resume} {folder}"
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
