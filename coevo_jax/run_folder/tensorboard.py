"""TensorBoard files of a run, made from metrics.jsonl and results.json."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary as EventSummary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter

from coevo_jax.run_folder.metrics import METRICS_FILE, metric_series, read_metrics
from coevo_jax.run_folder.results import load_results

_EVENTS_FILE = "events.out.tfevents.0000000000.coevo_jax"  # no clock and no host name: the same bytes again


def write_tensorboard(run_dir: Path | str) -> Path:
    """Rewrite `tensorboard/` from metrics.jsonl and results.json; the same input gives the same bytes.

    Training metrics stand at their optimizer step; evaluations and explorations at their round.
    """
    run_dir = Path(run_dir)
    folder, fresh = run_dir / "tensorboard", run_dir / "tensorboard.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    writer = RecordWriter(str(fresh / _EVENTS_FILE))
    writer.write(Event(file_version="brain.Event:2").SerializeToString())
    for tag, step, value in (*_training_scalars(run_dir), *_round_scalars(run_dir)):
        summary = EventSummary(value=[EventSummary.Value(tag=tag, simple_value=value)])
        writer.write(Event(step=step, summary=summary).SerializeToString())
    writer.flush()
    writer.close()
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(fresh, folder)
    return folder


def _training_scalars(run_dir: Path) -> Iterator[tuple[str, int, float]]:
    for tag, points in metric_series(read_metrics(run_dir / METRICS_FILE)).items():
        for x, value, _ in points:
            yield tag, x, value


def _round_scalars(run_dir: Path) -> Iterator[tuple[str, int, float]]:
    if not (run_dir / "results.json").exists():
        return
    results = load_results(run_dir)
    places = [(f"eval/{e['agent']}", e) for e in results["evaluations"]]
    places += [(e["phase"], e) for e in results["explorations"]]
    for prefix, entry in places:
        numbers = {**entry, **{f"diversity/{k}": v for k, v in entry["diversity"].items()}}
        numbers |= {f"after_error/{k}": v for k, v in (entry["after_error"] or {}).items()}
        for name, value in numbers.items():
            if isinstance(value, int | float) and name not in ("round", "hard_negative_threshold"):
                yield f"{prefix}/{name}", entry["round"], float(value)
