"""Runs that begin alike: a new run takes over another one's warm start, or all that both do alike."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath

from coevo_jax.config.options import FORMAT, Config, of_round
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.recipe_queries import agents_of, together_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.hosts.processes import Processes
from coevo_jax.recipe import Phase, schedule
from coevo_jax.run_folder.budget import asked_of
from coevo_jax.run_folder.digests import CRC32C, Digests, damage, file_digest, folder_digests, on_bucket
from coevo_jax.run_folder.folder import (
    CONFIG_FILE,
    config_digest,
    create_folder,
    first_difference,
    run_folder,
)
from coevo_jax.run_folder.intact import Standing, needed_of, newest_intact
from coevo_jax.run_folder.manifest import (
    Manifest,
    checkpoint_root,
    file_sizes,
    read_manifest,
    write_manifest,
)
from coevo_jax.run_folder.metrics import METRICS_FILE
from coevo_jax.run_folder.run import Run, open_run

NAMING = ("name", "runs_dir", "method", "checkpoint", "log")  # these change no number
LATER = ("recipe", "agents", "judge", "explore", "budget", "rounds")  # what comes after the warm start


def fork_run(
    source: Path, config: Config, processes: Processes | None = None, *, learned: bool = False
) -> Run:
    """Create a run that begins with another run's warm start and its evaluation.

    Where they explore alike, it takes over the source's first explorations, too; with `learned` also what
    follows, as far as both configs make it alike: learnings, later rounds and the phase that is under way,
    up to the newest state that is intact. What is taken over, the new run would have done in the same
    numbers: the configs may differ only in their names and in what comes after the warm start, so that
    methods compared begin with the same agents. The committed files are shared where the file system can
    link them (none is ever changed in place), else copied. The source may still be running. Of several
    processes, number 0 makes the folder.

    Raises:
      ConfigError: the source is no run, its warm start is not finished, a file of it is damaged, its config
        differs (naming the first difference), or the new run's folder exists.
    """
    processes = processes or Processes()
    processes.once("fork the run", lambda: _fork(source, config, learned))
    return open_run(run_folder(config), processes)


def _fork(source: Path, config: Config, learned: bool) -> None:
    manifest = read_manifest(source)
    theirs = load_resolved(source / CONFIG_FILE)
    difference = first_difference(beginning(config), beginning(theirs))
    if difference is not None:
        key, wanted, has = difference
        raise ConfigError(
            f"{source}: cannot be forked: {key} is {has!r} there and {wanted!r} in this config; only what "
            "comes after the warm start may differ"
        )
    names = shared_phases(theirs, config, learned=learned)
    standing, damage = newest_intact(source, manifest, names, config, learned=learned)
    begun = [record.name for record in standing.records]
    forked_from = {"from": str(source), "phases": begun} | ({"left": damage} if damage else {})
    created = create_folder(
        config, forked=forked_from
    )  # nothing of it counts before its manifest is replaced
    folder = run_folder(config)
    for path in {Path(name) for record in standing.records for name in record.files}:  # agents may share one
        _share(epath.Path(source / path), epath.Path(folder / path))
    numbers = needed_of(standing, manifest, config)
    place = checkpoint_root(folder, read_manifest(folder))
    for one in numbers:
        stored = checkpoint_root(source, manifest) / str(one)
        for name in file_sizes(stored):
            _share(stored / name, place / str(one) / name)
    log = _log_of(source, manifest, standing)
    write_whole(folder / METRICS_FILE, log)
    forked = replace(
        manifest,
        config_sha256=config_digest(config),
        environment_sha256=created.environment_sha256,
        format=FORMAT,
        checkpoints=created.checkpoints,
        done=standing.done,
        running=standing.running,
        checkpoint=standing.checkpoint,
        checkpoint_files=file_sizes(place / str(standing.checkpoint)),
        checkpoint_digests={
            str(one): _digests_there(place / str(one), manifest.checkpoint_digests[str(one)], source)
            for one in numbers
            if str(one) in manifest.checkpoint_digests
        },
        metrics_offset=len(log),
        metrics_sha256=file_digest(folder / METRICS_FILE),
        seconds=sum(record.seconds for record in standing.records),
    )
    write_manifest(folder, forked)


def find_source(folders: Sequence[Path], config: Config) -> Path | None:
    """The first of these folders whose run can be forked for a config."""
    return next((folder for folder in folders if can_fork(folder, config)), None)


def best_source(folders: Sequence[Path], config: Config) -> Path | None:
    """The folder whose run can be forked for a config and shares most phases with it."""
    own = [folder for folder in folders if can_fork(folder, config)]
    return max(
        own,
        key=lambda folder: len(shared_phases(load_resolved(folder / CONFIG_FILE), config)),
        default=None,
    )


def can_fork(source: Path, config: Config) -> bool:
    """Whether a folder holds a run that has finished the warm start which this config would do."""
    if not (source / CONFIG_FILE).is_file() or _manifest_or_none(source) is None:
        return False
    return beginning(config) == beginning(load_resolved(source / CONFIG_FILE))


def shared_phases(source: Config, config: Config, *, learned: bool = False) -> tuple[str, ...]:
    """The phases that come out the same for two configs that begin alike, by name.

    Args:
      learned: whether learnings and what follows them count; else the first of them is the end.
    """
    alike = _exploration(source) == _exploration(config)
    names = ["prepare"]
    for phase, theirs in zip(schedule(config), schedule(source), strict=False):
        # All agents begin as what the warm start trains, whatever the recipe calls the first of them.
        same = phase == theirs or phase.kind == theirs.kind == "warm_start"
        if phase.kind in ("judge", "learn"):
            same = same and learned and alike and _learning(source, phase) == _learning(config, phase)
        elif phase.kind in ("explore", "branch", "ask"):
            same = same and alike
        if not same:
            break
        names.append(phase.name)
    return tuple(names)


def _manifest_or_none(source: Path) -> Manifest | None:
    try:
        manifest = read_manifest(source)
    except ConfigError:
        return None
    return manifest if manifest.record("warm_start") else None


def beginning(config: Config) -> dict[str, Any]:
    """The options that experts, tokenizer, warm start and its evaluation depend on.

    Runs whose beginnings are equal can be forked from each other.
    """
    options = config.model_dump(exclude={*NAMING, *LATER})
    options["optimizer"].pop("nonfinite")  # it changes no number of a phase that ended
    return options | {
        "explore": {"tasks": config.explore.tasks if config.rounds else None}
    }  # experts of theirs


def _exploration(config: Config) -> dict[str, Any]:
    """The options that the explorations before the first learning depend on, besides."""
    return {
        "explore": config.explore.model_dump(),
        "together": together_of(config.recipe),
        "tokens": config.budget.explored_tokens,
    }


def _learning(config: Config, phase: Phase) -> dict[str, Any]:
    """The options that what is learned or judged in a phase depends on, besides."""
    options: dict[str, Any] = {"judge": config.judge.model_dump(), "agents": agents_of(config.recipe)}
    if phase.kind == "learn":
        own = config.agents[phase.agent]
        rates = {name: of_round(getattr(own, name), phase.round) for name in ("beta", "learning_rate")}
        totals = ("pairs", "learned_tokens")
        options |= own.model_dump() | rates | {name: asked_of(config, phase, name) for name in totals}
    return options


def _share(path: epath.Path, place: epath.Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if on_bucket(path) or on_bucket(place):
        path.copy(place)
        return
    try:
        os.link(path, place)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, place)


def _digests_there(place: epath.Path, known: Digests, source: Path) -> Digests:
    """The digests of a checkpoint where it lies now: a disk's are no bucket's.

    Raises:
      ConfigError: what was copied to a bucket is read there as something else.
    """
    if any(one.startswith(CRC32C) for one in known.values()) == on_bucket(place):
        return known
    if on_bucket(place) and (problem := damage(place, known)) is not None:
        raise ConfigError(f"{source}: its copy is another: {problem}")
    return folder_digests(place)


def _log_of(source: Path, manifest: Manifest, standing: Standing) -> bytes:
    """The lines of the metrics log that belong to what is taken over: its beginning."""
    committed = (source / METRICS_FILE).read_bytes()
    if standing.running is not None:
        return committed[: manifest.metrics_offset]
    phases, lines = {record.name for record in standing.done}, []
    for line in committed.splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["phase"] not in phases:
            break
        lines.append(line)
    return b"".join(lines)
