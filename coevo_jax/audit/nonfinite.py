"""Steps that were not finite: those that a phase skipped, and the batches that are kept of them.

    nonfinite/STEM-step-00013.parquet    the arrays of the step's microbatches; what is known of the step is a
                                         JSON object in the file's metadata

A skipped step stands in the log with `skipped`, and neither Adam nor the agent has counted it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from coevo_jax.audit.check import Check, differs, judge
from coevo_jax.audit.reading import RunFiles

FOLDER = "nonfinite/"
KEY = b"coevo_jax.nonfinite"


def counted_steps(files: RunFiles, name: str) -> int:
    """The steps of a finished phase that its agent has counted: all but those that were skipped."""
    record = files.records[name]
    return record["position"] - len(record["records"].get("skipped_steps", []))


def nonfinite_checks(files: RunFiles) -> Iterator[Check]:
    """One line for each phase, finished or under way, that skipped a step or left a batch behind."""
    running = files.manifest["running"]
    for record in [*files.manifest["done"], *([running] if running else [])]:
        kept = sorted(path for path in record["files"] if path.startswith(FOLDER))
        skipped = record["records"].get("skipped_steps", [])
        if not kept and not skipped:
            continue
        told: list[str] = []
        problems = _problems(files, record, kept, skipped, told)
        yield judge(f"nonfinite/{record['name']}", problems, lambda told=told: "; ".join(told))


def _problems(
    files: RunFiles,
    record: Mapping[str, Any],
    kept: list[str],
    skipped: list[dict[str, Any]],
    told: list[str],
) -> Iterator[str]:
    """What was skipped is logged as such and kept; every kept batch is one of this phase's steps."""
    name = record["name"]
    for one in skipped:
        yield from differs(f"{one['file']}: committed", one["file"] in kept, True)
    logged = [place for place, _, values in files.metrics.get(name, []) if _skipped(values)]
    yield from differs(f"metrics.jsonl: skipped steps of {name}", len(logged), len(skipped))
    told.append(f"{len(skipped)} steps skipped, {len(kept)} batches kept")
    for path in kept:
        about = read_about(files, path)
        yield from differs(f"{path}: phase", about["phase"], name)
        one = next((one for one in skipped if one["file"] == path), None)
        if one is not None:
            yield from differs(f"{path}: step", about["step"], one["step"])
        what = "skipped" if one is not None else "stopped the run"
        told.append(f"step {about['step']} {what} ({about['cause']}, {about['tensor']}): {path}")


def _skipped(values: Mapping[str, float]) -> bool:
    return any(key.rpartition("/")[2] == "skipped" and value for key, value in values.items())


def read_about(files: RunFiles, path: str) -> dict[str, Any]:
    """What a kept batch's file says of its step."""
    return json.loads(pq.read_schema(files.folder / path).metadata[KEY])
