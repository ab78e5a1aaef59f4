"""The commit record of a run: which phases are finished, with which files, and where the running one stands.

There is one commit point. Files and checkpoints are written first, `manifest.json` is replaced last; whatever
it does not list never happened.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from coevo_jax.config.options import FORMAT
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """What one phase has done so far. `position` counts its units: optimizer steps or blocks of tasks."""

    name: str
    position: int = 0
    seconds: float = 0.0
    # What its commits added, path inside the run folder -> sha256; whose that is, run_folder.collection says.
    files: dict[str, str] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)  # JSON results of the phase


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What of a run is committed."""

    config_sha256: str  # of the bytes of the run's config.yaml, not of what a version makes of them
    format: int = FORMAT  # of the folder and its config
    checkpoints: str = "checkpoints"  # their folder: inside the run's, or elsewhere, such as on a bucket
    done: tuple[PhaseRecord, ...] = ()
    running: PhaseRecord | None = None
    checkpoint: int | None = None  # Orbax step of both agents' states
    checkpoint_files: dict[str, int] = field(default_factory=dict)  # path inside the checkpoint -> bytes
    base: int | None = None  # Orbax step that also holds the frozen base of both agents' adapters
    base_files: dict[str, int] = field(default_factory=dict)  # path inside that checkpoint -> bytes
    metrics_offset: int = 0
    peak_memory_bytes: int = 0
    seconds: float | None = (
        0.0  # wall time with this folder open; None where an earlier version began the run
    )

    def record(self, name: str) -> PhaseRecord | None:
        """The record of a finished phase, or None."""
        return next((phase for phase in self.done if phase.name == name), None)

    def committed_files(self) -> dict[str, str]:
        """Every file that a commit added, path inside the run folder -> sha256."""
        phases = [*self.done, *([] if self.running is None else [self.running])]
        return {path: digest for phase in phases for path, digest in phase.files.items()}

    def begin(self, name: str) -> PhaseRecord:
        """The record of a phase as it stands: what an interrupted run left, or a fresh one."""
        if self.running is not None and self.running.name == name:
            return self.running
        return PhaseRecord(name=name)

    def finish(self, record: PhaseRecord) -> "Manifest":
        return replace(self, done=(*self.done, record), running=None)


def file_hashes(run_dir: Path, paths: list[Path]) -> dict[str, str]:
    """sha256 of files, keyed by their path inside the run folder."""
    return {
        str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def checkpoint_root(run_dir: Path, manifest: Manifest) -> epath.Path:
    """The folder of a run's checkpoints, on a disk or on a bucket."""
    where = manifest.checkpoints
    return epath.Path(where) if "://" in where else epath.Path(run_dir) / where


def file_sizes(folder: epath.Path) -> dict[str, int]:
    """Bytes of every file below a folder, keyed by its path inside it."""
    return {str(path.relative_to(folder)): path.stat().length for path in sorted(_files_below(folder))}


def _files_below(folder: epath.Path) -> Iterator[epath.Path]:
    """Step by step: on a bucket, walk() loses the gs:// and glob() knows no **."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    """Commit."""
    write_whole(run_dir / MANIFEST, json.dumps(to_plain(manifest), indent=1))


def to_plain(manifest: Manifest) -> dict[str, Any]:
    """The record as values that JSON can hold."""
    return asdict(manifest)


R = TypeVar("R", PhaseRecord, Manifest)


def _known(kind: type[R], data: dict[str, Any], **own: Any) -> R:
    """A record of the fields that this version knows; a later one may have added others."""
    names = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in (data | own).items() if name in names})


def from_plain(data: dict[str, Any]) -> Manifest:
    """What `to_plain` was given, or what another version's was.

    Raises:
      KeyError, TypeError, AttributeError: these are not the values of a record.
    """
    number = data["format"] if "format" in data else data["version"]  # its name in format 1
    done = tuple(_known(PhaseRecord, phase) for phase in data["done"])
    running = _known(PhaseRecord, data["running"]) if data["running"] else None
    return _known(Manifest, {"seconds": None} | data, format=number, done=done, running=running)


def read_manifest(run_dir: Path) -> Manifest:
    """Read the commit record of a run.

    Raises:
      ConfigError: no such folder, no record in it, or one of a format that came after this version.
    """
    path = run_dir / MANIFEST
    if not path.is_file():
        what = "holds no manifest.json" if run_dir.is_dir() else "does not exist"
        raise ConfigError(f"{run_dir}: the folder {what}; expected the folder of a run")
    try:
        manifest = from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a manifest of a run ({error})") from None
    if manifest.format not in range(1, FORMAT + 1):
        raise ConfigError(
            f"{path}: format: found {manifest.format!r}, expected at most {FORMAT}; the run was made by "
            "another version"
        )
    return manifest


def verify_files(run_dir: Path, manifest: Manifest) -> None:
    """Check that every committed file is there, unchanged.

    Raises:
      ConfigError: naming the first file that is missing or differs.
    """
    for name, digest in manifest.committed_files().items():
        path = run_dir / name
        if not path.is_file():
            raise ConfigError(f"{path}: missing, but listed in {MANIFEST}; restore it or start a new run")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ConfigError(f"{path}: changed since it was committed (sha256 differs from {MANIFEST})")
    for number, files in (
        (manifest.checkpoint, manifest.checkpoint_files),
        (manifest.base, manifest.base_files),
    ):
        folder = checkpoint_root(run_dir, manifest) / str(number)
        for name, size in files.items():
            found = (folder / name).stat().length if (folder / name).is_file() else None
            if found != size:
                state = "missing" if found is None else f"{found} bytes, expected {size}"
                raise ConfigError(f"{folder / name}: {state}; the checkpoint is incomplete")
