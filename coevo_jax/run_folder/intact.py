"""The newest state of a run that is intact: where another run can begin, whatever was damaged behind it."""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called
from coevo_jax.run_folder.digests import damage
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import (
    SKIPPED,
    Manifest,
    PhaseRecord,
    checkpoint_root,
    verify_files,
)
from coevo_jax.run_folder.weak_models import needed_checkpoints


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stood: its finished phases, the one under way, and the checkpoint of its agents then."""

    done: tuple[PhaseRecord, ...]
    running: PhaseRecord | None
    checkpoint: int

    @property
    def records(self) -> tuple[PhaseRecord, ...]:
        """All phases that had begun."""
        return self.done if self.running is None else (*self.done, self.running)


def standings(manifest: Manifest, names: Collection[str], *, learned: bool) -> Iterator[Standing]:
    """Where a run stood, the newest first: at its last commit, and at the end of each phase.

    Args:
      names: of the phases that may be among them.
      learned: whether those before the last of them count; else the last one of all alone does.
    """
    ends = [place for place, record in enumerate(manifest.done) if record.name not in names]
    shared, running = manifest.done[: ends[0] if ends else None], manifest.running
    if learned and not ends and running is not None and running.name in names and running.position > 0:
        assert manifest.checkpoint is not None  # the warm start's, at least, or that of its steps so far
        yield Standing(done=shared, running=_settled(running), checkpoint=manifest.checkpoint)
    for end in range(len(shared), 0, -1):
        numbers = [one.records["checkpoint"] for one in shared[:end] if "checkpoint" in one.records]
        if not any(record.name == "warm_start" for record in shared[:end]):
            return
        yield Standing(done=shared[:end], running=None, checkpoint=numbers[-1])
        if not learned:
            return


def _settled(running: PhaseRecord) -> PhaseRecord:
    """A phase without the batch that it stopped at: who goes on may keep it again, in other words."""
    skipped = {one["file"] for one in running.records.get(SKIPPED, [])}
    files = {
        name: digest
        for name, digest in running.files.items()
        if not name.startswith("nonfinite/") or name in skipped
    }
    return replace(running, files=files)


def needed_of(standing: Standing, manifest: Manifest, config: Config) -> set[int]:
    """The checkpoints that a run needs which goes on from there."""
    begun = replace(manifest, done=standing.done, running=standing.running, checkpoint=standing.checkpoint)
    warm_start = begun.record("warm_start")
    needed = {standing.checkpoint} | needed_checkpoints(config, begun)
    needed |= set() if manifest.base is None else {manifest.base}
    return needed | ({warm_start.records["checkpoint"]} if warm_start else set())


def newest_intact(
    source: Path, manifest: Manifest, names: Collection[str], config: Config, *, learned: bool
) -> tuple[Standing, str | None]:
    """The newest standing of a run all of whose files are as they were committed, and what was damaged.

    Raises:
      ConfigError: there is none, naming what is damaged; or the warm start is not finished.
    """
    first, error = None, None
    for standing in standings(manifest, names, learned=learned):
        try:
            _require_intact(source, manifest, standing, needed_of(standing, manifest, config))
        except ConfigError as found:
            first, error = first or str(found), found
        else:
            return standing, first
    raise error or ConfigError(f"{source}: cannot be forked: its warm start is not finished")


def _require_intact(source: Path, manifest: Manifest, standing: Standing, numbers: set[int]) -> None:
    known = manifest.checkpoint_files if manifest.checkpoint == standing.checkpoint else {}
    begun = replace(manifest, done=standing.done, running=standing.running, checkpoint=standing.checkpoint)
    verify_files(source, replace(begun, checkpoint_files=known, environment_sha256=None))
    for one in sorted(numbers):
        folder = checkpoint_root(source, manifest) / str(one)
        if not folder.is_dir():
            raise ConfigError(f"{folder}: missing; checkpoint.keep says how many stay")
        if (problem := damage(folder, manifest.checkpoint_digests.get(str(one), {}))) is not None:
            raise ConfigError(problem)


def require_checkpoint(run_dir: Path, manifest: Manifest, number: int) -> None:
    """Make sure that a checkpoint's files are those that were committed, where their digests are known.

    Raises:
      ConfigError: naming the first file that is missing or differs, and what of the run is intact.
    """
    root, digests = checkpoint_root(run_dir, manifest), manifest.checkpoint_digests
    if (found := damage(root / str(number), digests.get(str(number), {}))) is None:
        return
    raise ConfigError(f"{found}; {intact_words(run_dir, manifest)}")


def intact_words(run_dir: Path, manifest: Manifest) -> str:
    """What of a damaged run is intact, and what can be done with it."""
    try:
        config = load_resolved(run_dir / CONFIG_FILE)
        names = {record.name for record in (*manifest.done, manifest.running) if record is not None}
        standing, _ = newest_intact(run_dir, manifest, names, config, learned=True)
    except ConfigError:
        root, digests = checkpoint_root(run_dir, manifest), manifest.checkpoint_digests
        intact = [
            one for one in sorted(map(int, digests)) if damage(root / str(one), digests[str(one)]) is None
        ]
        told = f"checkpoint {intact[-1]} is intact, but" if intact else "no checkpoint is intact,"
        return f"{told} no state that a run could begin with; begin a new run"
    running = standing.running
    where = f"{standing.done[-1].name} ended" if running is None else f"{running.name} stood"
    return f"intact is where {where}: a new run begins there with: {fork_command(run_dir, config)}"


def fork_command(folder: Path, config: Config, *changes: str) -> str:
    """What is typed to begin a new run with the newest intact state of one, whose config is kept.

    Args:
      changes: of its options, as key=value.
    """
    names = (f"{folder.name}-{number}" for number in count(2))
    name = next(name for name in names if not (folder.parent / name).exists())
    moved = [] if Path(config.runs_dir) == folder.parent else [f"runs_dir={folder.parent}"]
    words = ("--fork", str(folder), str(folder / CONFIG_FILE), f"name={name}", *moved, *changes)
    return as_called(f"python -m launch.train {shlex.join(words)}")
