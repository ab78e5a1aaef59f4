"""Collections: what one agent played in one phase, under one name, as committed shards.

A phase's record lists the files that its commits added, which says nothing of whose they are: where two
agents explore side by side, one phase commits the shards of both. Whose a shard is, its name and rows say.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.manifest import Manifest
from coevo_jax.trajectory import Trajectory

_SHARD = re.compile(r"(?P<name>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")


def round_folder(number: int) -> Path:
    """Where the shards of a round lie inside the run's folder."""
    return Path("trajectories") / f"round-{number:02d}"


def read_collection(
    folder: Path, manifest: Manifest, phase: Phase, rows: int | None = None
) -> list[Trajectory]:
    """What a finished phase played, all its blocks, in their order; nothing of another agent's.

    Args:
      rows: of the embedding of the checkpoint that the run began with (`model.vocab_size`): an agent may
        sample those that its tokenizer has no token for. None where the run began from scratch.

    Raises:
      ConfigError: the phase is not finished, a block is missing, or a trajectory is another agent's or of
        another vocabulary.
    """
    paths = [folder / path for path in collection_files(manifest, phase)]
    trajectories = []
    prepared = manifest.record("prepare")
    vocab_size = rows or (None if prepared is None else prepared.records.get("vocab_size"))
    for path in paths:
        for row, trajectory in enumerate(read_trajectories([path])):
            if trajectory.agent != phase.agent:
                raise ConfigError(
                    f"{path}: row {row}: found a trajectory of the {trajectory.agent} agent among those of "
                    f"{phase.name}, expected the {phase.agent} agent's alone"
                )
            highest = int(trajectory.tokens.max(initial=0))
            if vocab_size is not None and highest >= vocab_size:
                raise ConfigError(
                    f"{path}: row {row}: tokens: found {highest}, expected ids below {vocab_size}, the run's "
                    "vocabulary"
                )
            trajectories.append(replace(trajectory, collection=phase.collection, mark=phase.mark))
    return trajectories


def _files_of_round(manifest: Manifest, number: int) -> Iterator[str]:
    """The files that the phases of a round committed; rounds follow each other, most ask for the newest."""
    begun = [] if manifest.running is None else [manifest.running]
    for record in chain(begun, reversed(manifest.done)):
        found = re.match(r"round-(\d+)/", record.name)
        own = int(found[1]) if found else 0
        if own < number:
            return
        if own == number:
            yield from record.files


def collection_files(manifest: Manifest, phase: Phase) -> list[str]:
    """The committed shards of a finished phase, by their paths inside the run's folder, in order.

    Raises:
      ConfigError: the phase is not finished, or a shard is not committed.
    """
    where, name = round_folder(phase.round), phase.collection
    if manifest.record(phase.name) is None:
        raise ConfigError(f"{where / name}: {phase.name} is not finished; nothing can be read of it yet")
    found: dict[int, str] = {}
    counts = set()
    for path in _files_of_round(manifest, phase.round):
        shard = _SHARD.fullmatch(Path(path).name)
        if Path(path).parent == where and shard is not None and shard["name"] == name:
            found[int(shard["index"])] = path
            counts.add(int(shard["count"]))
    if len(counts) != 1 or set(found) != set(range(next(iter(counts)))):
        raise ConfigError(
            f"{where / name}: found the shards {sorted(found)} of {sorted(counts)} in the run's commits, "
            "expected every one of one set"
        )
    return [found[index] for index in sorted(found)]
