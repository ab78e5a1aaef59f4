"""Runs that begin alike: a new run takes over what another one did before it first learned from pairs."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath

from coevo_jax.config import Config
from coevo_jax.config_io import load_config
from coevo_jax.files import write_whole
from coevo_jax.run_folder.checkpoint import on_bucket
from coevo_jax.run_folder.manifest import (
    Manifest,
    PhaseRecord,
    checkpoint_root,
    file_sizes,
    read_manifest,
    write_manifest,
)
from coevo_jax.run_folder.metrics import METRICS_FILE
from coevo_jax.run_folder.run import CONFIG_FILE, Run, config_digest, create_run, first_difference, open_run
from coevo_jax.schedule import schedule
from coevo_jax.strict import ConfigError

NAMING = ("name", "runs_dir", "method", "checkpoint")  # these change no number


def fork_run(source: Path, config: Config) -> Run:
    """Create a run that begins with another run's warm start, its evaluation and its first explorations.

    What is taken over, the new run would have done in the same numbers: the configs may differ only in
    their names and in what an agent learns from pairs. The committed files are shared where the file system
    can link them (none is ever changed in place), else copied. The source may still be running.

    Raises:
      ConfigError: the source is no run, its warm start is not finished, a file of it is damaged, its config
        differs (naming the first difference), or the new run's folder exists.
    """
    manifest = read_manifest(source)
    difference = first_difference(_begin(config), _begin(load_config(source / CONFIG_FILE)))
    if difference is not None:
        key, ours, theirs = difference
        raise ConfigError(
            f"{source}: cannot be forked: {key} is {theirs!r} there and {ours!r} in this config; only what "
            "agents learn from pairs may differ"
        )
    shared = tuple(record for record in manifest.done if record.name in shared_phases(config))
    warm_start = next((record for record in shared if record.name == "warm_start"), None)
    if warm_start is None:
        raise ConfigError(f"{source}: cannot be forked: its warm start is not finished")
    create_run(config).close()  # nothing of what follows counts before the manifest is replaced
    folder = Path(config.runs_dir) / config.name
    number = warm_start.records["checkpoint"]
    for path in [Path(name) for record in shared for name in record.files]:
        _share(epath.Path(source / path), epath.Path(folder / path))
    checkpoints = read_manifest(folder).checkpoints
    place = checkpoint_root(folder, read_manifest(folder))
    for one in {number, manifest.base} - {None}:
        stored = checkpoint_root(source, manifest) / str(one)
        for name in file_sizes(stored):
            _share(stored / name, place / str(one) / name)
    log = _log_of(source, {record.name for record in shared})
    write_whole(folder / METRICS_FILE, log)
    _note_source(folder, source, shared)
    forked = replace(
        manifest,
        config_sha256=config_digest(config),
        checkpoints=checkpoints,
        done=shared,
        running=None,
        checkpoint=number,
        checkpoint_files=file_sizes(place / str(number)),
        metrics_offset=len(log),
    )
    write_manifest(folder, forked)
    return open_run(folder)


def can_fork(source: Path) -> bool:
    """Whether a run has finished its warm start."""
    return (source / CONFIG_FILE).is_file() and _manifest_or_none(source) is not None


def shared_phases(config: Config) -> tuple[str, ...]:
    """The phases before the first that learns from pairs: the same whatever is learned there."""
    names = ["prepare"]
    for phase in schedule(config):
        if phase.kind == "learn":
            break
        names.append(phase.name)
    return tuple(names)


def _manifest_or_none(source: Path) -> Manifest | None:
    try:
        manifest = read_manifest(source)
    except ConfigError:
        return None
    return manifest if manifest.record("warm_start") else None


def _begin(config: Config) -> dict[str, Any]:
    """The options that the shared phases depend on."""
    options = config.model_dump(exclude={*NAMING, "target"})
    return options | {"failure": {"explore": config.failure.explore}}


def _share(path: epath.Path, place: epath.Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if on_bucket(path) or on_bucket(place):
        path.copy(place)
        return
    try:
        os.link(path, place)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, place)


def _log_of(source: Path, phases: set[str]) -> bytes:
    """The lines of the metrics log that the shared phases wrote: its beginning."""
    lines = []
    for line in (source / METRICS_FILE).read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["phase"] not in phases:
            break
        lines.append(line)
    return b"".join(lines)


def _note_source(folder: Path, source: Path, shared: tuple[PhaseRecord, ...]) -> None:
    path = folder / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    environment["forked"] = {"from": str(source), "phases": [record.name for record in shared]}
    write_whole(path, json.dumps(environment, indent=1) + "\n")
