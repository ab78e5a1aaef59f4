"""A finished run to break: a copy, and edits that update the manifest's hashes: no other check speaks."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coevo_jax.audit.audit import run_audit
from coevo_jax.coevolution import coevolve
from coevo_jax.report.html import write_report
from coevo_jax.run_folder.manifest import SELF, content_digest
from coevo_jax.run_folder.run import Run, create_run
from tests.shared import made_once
from tests.tiny import tiny_config

Rows = list[dict[str, Any]]


def finished(folder: Path, *overrides: str) -> Path:
    """The folder of a tiny run that kept every checkpoint, with its report."""
    folder.mkdir(exist_ok=True)
    return end(create_run(tiny_config(folder, "checkpoint.keep=all", *overrides)))


def finished_once(factory: pytest.TempPathFactory, *overrides: str, world: str = "") -> Path:
    """The folder of `finished` with these options, for tests that only read or copy it: one in a session.

    Args:
      world: what else makes the run another one, such as an agent that a test puts in place.
    """
    key = hashlib.sha256(json.dumps([world, *overrides]).encode()).hexdigest()[:16]
    folder = made_once(factory, f"run-{key}", lambda folder: finished(folder, *overrides))
    [run] = (folder / "runs").iterdir()
    return run


def end(run: Run) -> Path:
    coevolve(run)
    run.close()
    write_report(run.folder)
    return run.folder


def broken(folder: Path, scored: int | None = None) -> dict[str, str]:
    """The words of every check that is broken, by its name."""
    return {one.name: one.words for one in run_audit(folder, scored) if one.state == "BROKEN"}


def assert_named_alone(run: Path, names: set[str]) -> None:
    """The audit of an edited run names these checks and no other, each with what it expected."""
    found = broken(run)
    assert set(found) == names, found
    assert all("expected " in words for words in found.values())


def states(folder: Path, scored: int | None = None) -> dict[str, str]:
    """The state of every check, by its name; no check is made twice."""
    found = [(one.name, one.state) for one in run_audit(folder, scored)]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def copy(run: Path, folder: Path) -> Path:
    """A copy whose files are links: an edit puts a new file in the place of one."""
    shutil.copytree(run, folder / "copy", copy_function=os.link)
    return folder / "copy"


def write(run: Path, path: str, content: bytes) -> None:
    """Replace a file, committed or not, with its hash in the manifest."""
    (run / path).unlink()
    (run / path).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    for record in manifest(run)["done"]:
        if path in record["files"]:
            edit_record(run, record["name"], lambda one: one["files"].update({path: digest}))


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def edit_json(run: Path, path: str, edit: Callable[[Any], Any]) -> None:
    content = json.loads((run / path).read_text())
    edit(content)
    write(run, path, json.dumps(content).encode())


def edit_record(run: Path, phase: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change what the manifest says of a phase."""

    def change(content: dict[str, Any]) -> None:
        edit(next(record for record in content["done"] if record["name"] == phase))

    content = manifest(run)
    change(content)
    put_manifest(run, content)


def put_manifest(run: Path, content: dict[str, Any]) -> None:
    """Replace the manifest; its digests of itself and of the log become those of what there is."""
    log = (run / "metrics.jsonl").read_bytes()[: content["metrics_offset"]]
    content["metrics_sha256"] = hashlib.sha256(log).hexdigest()
    (run / "manifest.json").unlink()
    (run / "manifest.json").write_text(json.dumps(content | {SELF: content_digest(content)}))


def put_state(run: Path, number: int, agent: str, source: Path) -> None:
    """Replace an agent's state in a checkpoint by another, with all that the manifest says of files."""
    place = run / "checkpoints" / str(number)
    kept = shutil.copytree(source, place / "kept")
    shutil.rmtree(place / agent)
    kept.rename(place / agent)
    content = manifest(run)
    files = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    if content["checkpoint"] == number:
        content["checkpoint_files"] = {name: path.stat().st_size for name, path in files.items()}
    content["checkpoint_digests"][str(number)] = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
    put_manifest(run, content)


def edit_rows(run: Path, path: str, edit: Callable[[Rows], Any]) -> None:
    table = pq.read_table(run / path)
    rows = table.to_pylist()
    edit(rows)
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), buffer)
    write(run, path, buffer.getvalue().to_pybytes())


def edit_lines(run: Path, path: str, edit: Callable[[list[str]], Any]) -> None:
    lines = (run / path).read_text().splitlines()
    edit(lines)
    write(run, path, "".join(f"{line}\n" for line in lines).encode())


def edit_metrics(run: Path, phase: str, name: str, edit: Callable[[float], float], place: int = 0) -> None:
    """Change one value of a phase in the log: that of the so-manieth line that has it."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["phase"] == phase and name in line["values"]]
    found[place]["values"][name] = edit(found[place]["values"][name])
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    write(run, "metrics.jsonl", text.encode())
    put_manifest(run, manifest(run) | {"metrics_offset": len(text.encode())})


Edit = Callable[[Path], None]


def collected(edits: dict[str, tuple[Edit, set[str]]]) -> Callable[..., Callable[[Edit], Edit]]:
    """A decorator that names the checks which an edit of a run breaks, and keeps both in `edits`."""

    def breaks(*names: str) -> Callable[[Edit], Edit]:
        def add(edit: Edit) -> Edit:
            edits[edit.__name__] = (edit, set(names))
            return edit

        return add

    return breaks
