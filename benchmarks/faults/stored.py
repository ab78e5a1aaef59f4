"""Damage to the files of a run between two of its processes: what is resumed then, and what is said."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults import outcomes
from benchmarks.faults.gate import ruled
from benchmarks.faults.outcomes import Injected
from benchmarks.faults.scene import Ended, Whole, copy_folder, differences, train
from coevo_jax.audit.audit import run_audit
from coevo_jax.run_folder.manifest import MANIFEST, SELF, content_digest, read_manifest

Damage = Callable[[Path, random.Random], None]


def _truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    _replace(path, content[: rng.randrange(len(content))])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    _replace(path, bytes(content))


def _delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # a file may be linked from other copies
    path.write_bytes(content)


DAMAGES: dict[str, Damage] = {
    "a file truncated": _truncate,
    "a bit flipped": _flip,
    "a file deleted": _delete,
}


@dataclass(frozen=True)
class Edit:
    """A change that leaves the manifest's own digest right: made with care, or by a program."""

    fault: str
    make: Callable[
        [Path, random.Random], Path | None
    ]  # the damaged file; None where there is nothing to edit


def edited_manifest(run: Path, edit: Callable[[dict], None]) -> Path:
    """Change a manifest and put its own digest right."""
    path = run / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    _replace(path, json.dumps(content | {SELF: content_digest(content)}, indent=1).encode())
    return path


def _edit_manifest(run: Path, rng: random.Random) -> Path:
    def swap_phases(one: dict) -> None:
        one["done"] = one["done"][::-1] if len(one["done"]) > 1 else [*one["done"], *one["done"]]

    edits: list[Callable[[dict], None]] = [
        lambda one: one.update(checkpoint=(one["checkpoint"] or 0) + 7),
        lambda one: one.update(checkpoint=-1),
        lambda one: one.update(checkpoint="newest"),
        lambda one: one.update(metrics_offset=-3),
        lambda one: one.update(done=[*one["done"], {"name": "round-09/learn_nobody"}]),
        lambda one: one.update(done=[*one["done"], {"name": "warm_start", "position": "all"}]),
        lambda one: one["done"][0]["files"].update({"../../outside": "0" * 64}),
        lambda one: one.update(running={"name": "round-77/explore_target", "position": -5}),
        lambda one: one.update(checkpoint_digests={"0": ["x"]}),
        lambda one: one.update(checkpoints="../elsewhere"),
        swap_phases,
    ]
    return edited_manifest(run, rng.choice(edits))


def _edit_environment(run: Path, rng: random.Random) -> Path:
    path = run / "environment.json"
    content = json.loads(path.read_text())
    content[rng.choice(sorted(content))] = rng.choice([None, "another machine", 7])
    _replace(path, json.dumps(content).encode())
    return path


STRAYS = {
    "chat_template.jinja": "{% for message in messages %}{{ message['content'] }}!{% endfor %}",
    "added_tokens.json": '{"Action": 270}',
    "special_tokens_map.json": '{"eos_token": "a"}',
}


def _stray(run: Path, rng: random.Random) -> Path | None:
    if not (run / "tokenizer").is_dir():
        return None
    free = [name for name in STRAYS if not (run / "tokenizer" / name).exists()]
    path = run / "tokenizer" / rng.choice(free)
    path.write_text(STRAYS[path.name])
    return path


def _corrupt_trajectory(run: Path, rng: random.Random) -> Path | None:
    """One row that no episode can have, in a shard whose digest is put right."""
    shards = sorted((run / "trajectories").rglob("*.parquet"))
    if not shards:
        return None
    path = rng.choice(shards)
    table = pq.read_table(path)
    rows = table.to_pylist()
    row = rng.choice(rows)
    kind = rng.choice(("reward", "logps", "lengths", "ending", "tokens"))
    if kind == "reward":
        row["reward"] = rng.choice([float("nan"), 1.5, -1.0])
    elif kind == "logps":
        row["logps"][-1] = float("nan")
    elif kind == "lengths":
        row["agent_mask"] = row["agent_mask"][1:]
    elif kind == "ending":
        row["ending"] = "triumph"
    else:
        row["tokens"][rng.randrange(len(row["tokens"]))] = rng.choice([-1, 10**6])
    shard = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shard, compression="zstd")
    _replace(path, shard.getvalue().to_pybytes())
    name, digest = str(path.relative_to(run)), hashlib.sha256(path.read_bytes()).hexdigest()

    def put_right(content: dict) -> None:
        for record in [*content["done"], *([content["running"]] if content["running"] else [])]:
            if name in record["files"]:
                record["files"][name] = digest

    edited_manifest(run, put_right)
    return path


EDITS = (
    Edit("the manifest edited, its digest too", _edit_manifest),
    Edit("environment.json edited", _edit_environment),
    Edit("a stray tokenizer file", _stray),
    Edit("a trajectory corrupted, its digest too", _corrupt_trajectory),
)
REVOKED = "a file's permissions revoked"
FAULTS = (*DAMAGES, REVOKED, *(edit.fault for edit in EDITS))


def inject(whole: Whole, fault: str, rng: random.Random, scratch: Path) -> Injected | None:
    """Damage a run as it was after one of its commits, and resume it; None where nothing can be damaged."""
    snapshot = rng.choice(whole.snapshots)
    folder = copy_folder(snapshot, scratch / "runs" / whole.method)
    try:
        return _inject(whole, fault, rng, folder)
    finally:
        shutil.rmtree(scratch)


def _inject(whole: Whole, fault: str, rng: random.Random, folder: Path) -> Injected | None:
    committed = committed_digests(folder)
    with ExitStack() as stack:
        if fault in DAMAGES or fault == REVOKED:
            victim = pick(folder, rng)
            if fault == REVOKED:
                revoke(victim, folder, stack)
            else:
                DAMAGES[fault](victim, rng)
        else:
            found = next(edit for edit in EDITS if edit.fault == fault).make(folder, rng)
            if found is None:
                return None
            victim = found
        ended = train("--resume", str(folder))
    where = str(victim.relative_to(folder))
    outcome, words = judged(whole, folder, victim, ended)
    now = committed_digests(folder, committed)
    if victim.name != MANIFEST:  # what the run has gone on to prune is not lost
        listed = committed_digests(folder)
        committed = {name: digest for name, digest in committed.items() if name in listed}
    spared = {where, "manifest.json"} if fault == EDITS[3].fault else {where}
    lost = sum(now[name] != digest for name, digest in committed.items() if name not in spared)
    lost = lost if ended.code else 0  # a run that ended has been compared bit by bit
    return Injected(
        fault=fault, method=whole.method, where=where, outcome=outcome, lost=lost, words=words[:600]
    )


def pick(folder: Path, rng: random.Random) -> Path:
    """A file of a run, of each kind as likely as of any other."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kinds.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def revoke(victim: Path, folder: Path, stack: ExitStack) -> None:
    """Take the rights to a file away, also from a user whom no mode stops."""
    name = str(victim)

    def refuse(path: str, writes: bool) -> None:
        if path == name:
            raise PermissionError(13, "Permission denied", path)

    access = os.access
    stack.enter_context(ruled(folder, refuse))
    stack.enter_context(
        mock.patch.object(os, "access", lambda path, mode, **o: str(path) != name and access(path, mode, **o))
    )


def judged(whole: Whole, folder: Path, victim: Path, ended: Ended) -> tuple[str, str]:
    """The outcome of a damage, and its words."""
    where = str(victim.relative_to(folder))
    if ended.traceback or ended.code not in (0, 1, 2):
        return outcomes.TRACEBACK, ended.error[-600:]
    if ended.code == 1:
        return outcomes.BROKE_OFF, ended.words
    if ended.code == 2:
        return (outcomes.REFUSED if where in ended.error else outcomes.UNNAMED), ended.words
    found = differences(whole.folder, folder)
    if not found:
        return outcomes.UNREAD, ""
    # A checkpoint that nothing begins with, or an evaluation's shard, which only people read.
    own = where.rpartition("/")[0] if where.startswith("checkpoints/") else where
    if all(own in one for one in found):
        named = [one.words for one in run_audit(folder) if one.state == "BROKEN" and where in one.words]
        if named:
            return outcomes.AUDITED, named[0]
    return outcomes.OTHER_BITS, found[0]


def committed_digests(folder: Path, names: dict[str, str] | None = None) -> dict[str, str]:
    """sha256 of every committed file of a run, or of these, by its name; empty where it is gone."""
    if names is None:
        manifest = read_manifest(folder)
        kept = [
            f"checkpoints/{number}/{name}"
            for number, files in manifest.checkpoint_digests.items()
            for name in files
        ]
        names = dict.fromkeys([*manifest.committed_files(), *kept], "")
    return {name: _digest(folder / name) for name in names}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
