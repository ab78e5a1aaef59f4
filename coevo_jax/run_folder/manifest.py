"""The commit record of a run: which phases are finished, with which files, and where the running one stands.

There is one commit point. Files and checkpoints are written first, `manifest.json` is replaced last; whatever
it does not list never happened.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from etils import epath
from pydantic import TypeAdapter, ValidationError

from coevo_jax.config.options import FORMAT
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_parts
from coevo_jax.run_folder.digests import file_digest, files_below
from coevo_jax.run_folder.environment import ENVIRONMENT_FILE
from coevo_jax.run_folder.metrics import METRICS_FILE

MANIFEST = "manifest.json"
SKIPPED = "skipped_steps"  # key of a phase's records: the steps whose gradient was not finite
READ_WHOLE = ("tokenizer", "backbone")  # folders that are read by what lies in them
SELF = "sha256"  # key of the digest of all the others; an earlier version wrote none
BEGINNING, RECENT = 3, 16  # phases that are looked at first: the warm start's, and the last ones
TOGETHER = 64  # phases that are written at a time
SINCE_SELF = ("metrics_sha256", "checkpoint_digests")  # keys of the versions that write one


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """What one phase has done so far. `position` counts its units: optimizer steps or blocks of tasks."""

    name: str
    position: int = 0
    seconds: float = 0.0
    # What its commits added, path inside the run folder -> sha256; whose that is, run_folder.collection says.
    files: dict[str, str] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)  # JSON results of the phase

    @cached_property
    def text(self) -> bytes:
        """The record as JSON in one line; of a finished phase, of which nothing changes any more."""
        return json.dumps(asdict(self), sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What of a run is committed."""

    config_sha256: str  # of the bytes of the run's config.yaml, not of what a version makes of them
    environment_sha256: str | None = None  # of the bytes of environment.json
    format: int = FORMAT  # of the folder and its config
    checkpoints: str = "checkpoints"  # their folder: inside the run's, or elsewhere, such as on a bucket
    done: tuple[PhaseRecord, ...] = ()
    running: PhaseRecord | None = None
    checkpoint: int | None = None  # Orbax step of both agents' states
    checkpoint_files: dict[str, int] = field(default_factory=dict)  # path inside the checkpoint -> bytes
    base: int | None = None  # Orbax step that also holds the frozen base of both agents' adapters
    base_files: dict[str, int] = field(default_factory=dict)  # path inside that checkpoint -> bytes
    # Of each checkpoint that is kept, by its number: path inside it -> sha256, or its bucket's checksum.
    checkpoint_digests: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics_offset: int = 0
    metrics_sha256: str | None = None  # of metrics.jsonl up to there
    peak_memory_bytes: int = 0
    seconds: float | None = (
        0.0  # wall time with this folder open; None where an earlier version began the run
    )

    def record(self, name: str) -> PhaseRecord | None:
        """The record of a finished phase, or None.

        Looked for where most ask for it first: every commit makes a manifest, and with it a table by name.
        """
        near = (*self.done[:BEGINNING], *self.done[:-RECENT:-1])
        return next((phase for phase in near if phase.name == name), None) or self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, PhaseRecord]:
        return {phase.name: phase for phase in self.done}

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
    return {str(path.relative_to(folder)): path.stat().length for path in sorted(files_below(folder))}


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    """Commit.

    A finished phase becomes text once, and is a line of the file: what a commit costs hardly grows with those
    before it.
    """
    head = to_plain(replace(manifest, done=()))
    done = [phase.text for phase in manifest.done]
    digest = hashlib.sha256()
    for part in _parts({name: json.dumps(head[name], sort_keys=True) for name in sorted(head)}, done, ""):
        digest.update(part)
    shown = {name: json.dumps(value, indent=1).replace("\n", "\n ") for name, value in head.items()}
    write_parts(run_dir / MANIFEST, _parts(shown | {SELF: json.dumps(digest.hexdigest())}, done, "\n"))


def _parts(by_key: dict[str, str], done: list[bytes], line: str) -> Iterator[bytes]:
    """A JSON object of values that are text already, in the order of their keys.

    Args:
      done: the items of "done", most of the text of a long run: put together some at a time.
      line: what begins a line; nothing for one line, as `json.dumps` has it.
    """
    between = f",{line}" + " "
    yield f"{{{line} ".encode() if line else b"{"
    for number, (name, text) in enumerate(by_key.items()):
        yield f"{between if number else ''}{json.dumps(name)}: ".encode()
        if name == "done" and done:
            yield f"[{line}  ".encode() if line else b"["
            separator = (between + " " if line else between).encode()
            for start in range(0, len(done), TOGETHER):
                yield (separator if start else b"") + separator.join(done[start : start + TOGETHER])
            yield f"{line} ]".encode() if line else b"]"
        else:
            yield text.encode()
    yield f"{line}}}".encode()


def content_digest(content: dict[str, Any]) -> str:
    """The sha256 of a record's content, by which it is seen whether somebody has edited it."""
    plain = {name: value for name, value in content.items() if name != SELF}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def to_plain(manifest: Manifest) -> dict[str, Any]:
    """The record as values that JSON can hold."""
    return asdict(manifest)


class Damaged(ConfigError):
    """A file of a run is not as it was committed."""


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
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = from_plain(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a manifest of a run ({error})") from None
    if manifest.format not in range(1, FORMAT + 1):
        raise ConfigError(
            f"{path}: format: found {manifest.format!r}, expected at most {FORMAT}; the run was made by "
            "another version"
        )
    if SELF not in content and any(name in content for name in SINCE_SELF):
        raise ConfigError(
            f"{path}: changed since it was committed (no {SELF}); restore it, or begin a new run"
        )
    if content.get(SELF, content_digest(content)) != content_digest(content):
        raise ConfigError(
            f"{path}: changed since it was committed ({SELF} is not that of its content); restore it, or "
            "begin a new run"
        )
    if (problem := manifest_problem(manifest)) is not None:
        raise ConfigError(f"{path}: not a manifest of a run ({problem})")
    return manifest


def manifest_problem(manifest: Manifest) -> str | None:
    """What of a record no run writes, or None: a type, a number out of range, a file outside the run."""
    try:
        _ADAPTER.validate_json(json.dumps(to_plain(manifest)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    phases = [*manifest.done, *([] if manifest.running is None else [manifest.running])]
    numbers = {
        "checkpoint": manifest.checkpoint,
        "base": manifest.base,
        "metrics_offset": manifest.metrics_offset,
        "peak_memory_bytes": manifest.peak_memory_bytes,
        "seconds": manifest.seconds,
        **{f"{phase.name}: position": phase.position for phase in phases},
        **{f"{phase.name}: seconds": phase.seconds for phase in phases},
    }
    for name, number in numbers.items():
        if number is not None and not 0 <= number < math.inf:
            return f"{name}: found {number}, expected 0 or more"
    inside = [*manifest.checkpoint_files, *manifest.base_files]
    inside += [name for files in manifest.checkpoint_digests.values() for name in files]
    for name in (*manifest.committed_files(), *inside):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            return f"found the file {name!r}, expected one inside the run's folder"
    for number in manifest.checkpoint_digests:
        if not number.isdecimal():
            return f"checkpoint_digests: found {number!r}, expected the number of a checkpoint"
    if not manifest.checkpoints or ".." in PurePosixPath(manifest.checkpoints).parts:
        return f"checkpoints: found {manifest.checkpoints!r}, expected a folder"
    return None


_ADAPTER = TypeAdapter(Manifest)


def verify_files(run_dir: Path, manifest: Manifest) -> None:
    """Check that every committed file is there, unchanged.

    Raises:
      Damaged: naming the first file that is missing or differs.
    """
    for name, digest in manifest.committed_files().items():
        path = run_dir / name
        if not path.is_file():
            raise Damaged(f"{path}: missing, but listed in {MANIFEST}; restore it or start a new run")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise Damaged(f"{path}: changed since it was committed (sha256 differs from {MANIFEST})")
    _require_nothing_else(run_dir, manifest)
    for number, files in (
        (manifest.checkpoint, manifest.checkpoint_files),
        (manifest.base, manifest.base_files),
    ):
        folder = checkpoint_root(run_dir, manifest) / str(number)
        for name, size in files.items():
            found = (folder / name).stat().length if (folder / name).is_file() else None
            if found != size:
                state = "missing" if found is None else f"{found} bytes, expected {size}"
                raise Damaged(
                    f"{folder / name}: {state}; the checkpoint is incomplete, by {run_dir / MANIFEST}"
                )
    described = run_dir / ENVIRONMENT_FILE
    if manifest.environment_sha256 is not None:
        if not described.is_file():
            raise Damaged(f"{described}: missing, but {MANIFEST} has its sha256; restore it")
        if file_digest(described) != manifest.environment_sha256:
            raise Damaged(f"{described}: changed since it was committed (sha256 differs from {MANIFEST})")
    log = run_dir / METRICS_FILE
    if manifest.metrics_sha256 is not None:
        if not log.is_file():
            raise Damaged(f"{log}: missing, but {MANIFEST} has its sha256; restore it or start a new run")
        if file_digest(log, manifest.metrics_offset) != manifest.metrics_sha256:
            raise Damaged(f"{log}: changed since it was committed (sha256 differs from {MANIFEST})")


def _require_nothing_else(run_dir: Path, manifest: Manifest) -> None:
    """Libraries read whatever lies in these folders, also files that were never committed."""
    committed = {Path(name) for name in manifest.committed_files()}
    for folder in {path.parent for path in committed if path.parts[0] in READ_WHOLE}:
        for path in sorted((run_dir / folder).iterdir()):
            if path.relative_to(run_dir) not in committed and not path.name.endswith(".tmp"):
                raise ConfigError(
                    f"{path}: never committed, but {folder}/ is read as a whole; expected the files that "
                    f"{MANIFEST} lists alone: move it away"
                )
