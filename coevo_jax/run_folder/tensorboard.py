"""TensorBoard's event file of a run: metrics as they come, and its results after every phase.

A process that opens a run writes a new file: all that is committed, then what comes. The file of the process
before it is emptied, for it may tell of steps that were never committed, and the new one begins by telling a
TensorBoard that has read it to forget every point.
"""

import os
import re
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from coevo_jax.run_folder.metrics import METRICS_FILE, Axis, read_metrics
from coevo_jax.run_folder.results import Evaluation, Results, evaluation_label

FOLDER = "tensorboard"
_NAME = "events.out.tfevents.{:010d}.coevo_jax"  # counts processes: no clock and no host name
_FED = "_uses_test_feedback"  # behind the name of an evaluation whose agent learned from its test
_NUMBERED = re.compile(r"events\.out\.tfevents\.(\d{10})\.coevo_jax")


class EventFile:
    """The event file that this process writes: training metrics at their step, results at their round."""

    def __init__(self, run_dir: Path | str) -> None:
        """Take over a metrics log that ends with what is committed. The file is begun when there is more."""
        self._folder = Path(run_dir) / FOLDER
        self._committed = read_metrics(Path(run_dir) / METRICS_FILE)
        self._axis = Axis()
        self._shown = (0, 0)  # evaluations and explorations that are in the file
        self._file: BinaryIO | None = None

    def _begun(self) -> BinaryIO:
        """The file; where this is the first that is asked of it, with all that is committed."""
        if self._file is not None:
            return self._file
        self._folder.mkdir(parents=True, exist_ok=True)
        before = sorted(self._folder.glob("events.out.tfevents.*"))
        numbers = [int(found[1]) for path in before if (found := _NUMBERED.fullmatch(path.name))]
        self._file = open(self._folder / _NAME.format(max(numbers, default=-1) + 1), "wb")  # noqa: SIM115
        events = _library("proto.event_pb2")
        self._append(events.Event(file_version="brain.Event:2"))
        self._append(events.Event(step=0, session_log=events.SessionLog(status=events.SessionLog.START)))
        for line in self._committed:
            self._append_line(line["step"], line["phase"], line["values"])
        self._committed = []
        self._file.flush()
        for path in before[:-1]:
            path.unlink()
        for path in before[-1:]:  # a TensorBoard that reads it would never look beyond it, were it gone
            os.truncate(path, 0)
        return self._file

    def write(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        """Append a line of the metrics log."""
        file = self._begun()
        self._append_line(step, phase, values)
        file.flush()

    def show(self, results: Results) -> None:
        """Append what of the results is not in the file yet."""
        file = self._begun()
        by_round: dict[int, dict[str, float]] = {}
        for tag, number, value in round_scalars(results, self._shown):
            by_round.setdefault(number, {})[tag] = value
        self._shown = shown_of(results)
        for number, scalars in by_round.items():
            self._append_scalars(number, scalars)
        file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _append_line(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        by_x: dict[int, dict[str, float]] = {}
        for tag, value in values.items():
            by_x.setdefault(self._axis.place(tag, step, phase), {})[tag] = value
        for x, scalars in by_x.items():
            self._append_scalars(x, scalars)

    def _append_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        summary = _library("proto.summary_pb2").Summary
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._append(_library("proto.event_pb2").Event(step=step, summary=summary(value=values)))

    def _append(self, event: Any) -> None:
        masked_crc32c = _library("record_writer").masked_crc32c
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self._begun().write(b"".join((length, next(sums), data, next(sums))))


@cache
def _library(module: str) -> Any:
    """A module of tensorboardX, when the first event is written.

    It imports torch where that is installed: seconds, for which commands that write no event do not wait.
    """
    return import_module(f"tensorboardX.{module}")


def shown_of(results: Results) -> tuple[int, int]:
    """How many evaluations and explorations there are: what comes later stands behind them."""
    return len(results["evaluations"]), len(results["explorations"])


def round_scalars(results: Results, shown: tuple[int, int] = (0, 0)) -> Iterator[tuple[str, int, float]]:
    """Tag, round and value of every number in the evaluations and explorations but those shown already."""

    def called(e: Evaluation) -> str:
        return f"eval/{evaluation_label(e)}" + (_FED if "test_feedback" in e else "")

    places = [(called(e), e) for e in results["evaluations"][shown[0] :]]
    places += [(e["phase"], e) for e in results["explorations"][shown[1] :]]
    for prefix, entry in places:
        numbers = {**entry, **{f"diversity/{k}": v for k, v in entry["diversity"].items()}}
        numbers |= {f"after_error/{k}": v for k, v in (entry["after_error"] or {}).items()}
        for name, value in numbers.items():
            if isinstance(value, int | float) and name not in ("round", "hard_negative_threshold"):
                yield f"{prefix}/{name}", entry["round"], float(value)
