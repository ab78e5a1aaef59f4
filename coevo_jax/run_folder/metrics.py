"""Metrics of a run: an append-only `metrics.jsonl` that can be cut back and resumed, and TensorBoard files.

One line is {"phase": "round-01/learn_target", "step": 120, "values": {"target/rewards/margins": 0.4}}.
A value that is not finite is written as null, so that every line is strict JSON, and read as NaN.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from coevo_jax.config.strict import ConfigError

METRICS_FILE = "metrics.jsonl"


class MetricsLine(TypedDict):
    """One record of `metrics.jsonl`."""

    phase: str
    step: int  # optimizer step, as the phase counts it
    values: dict[str, float]


# What is told of every line as it is written: its step, phase and values, NaN for what is not finite.
Follower = Callable[[int, str, Mapping[str, float]], None]


class MetricsLog:
    """An append-only log of metrics. Opening it drops a half-written last line.

    A line is the operating system's when `write` returns: whoever looks on reads it, and a kill leaves it.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115 (held until close)
        self.followers: list[Follower] = []
        self._hashed, self._total = 0, hashlib.sha256()
        self._drop_broken_tail()

    def write(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        """Append one line; values are numbers or arrays of one element."""
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        line = json.dumps({"phase": phase, "step": int(step), "values": finite}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        for follower in self.followers:
            follower(int(step), phase, {k: math.nan if v is None else v for k, v in finite.items()})

    def digest(self) -> str:
        """The sha256 of all lines so far; each byte is read or written once."""
        self._file.flush()
        with open(self.path, "rb") as file:
            file.seek(self._hashed)
            while chunk := file.read(1 << 20):
                self._total.update(chunk)
                self._hashed += len(chunk)
        return self._total.hexdigest()

    def offset(self) -> int:
        """Length of the log in bytes, all of them safely on disk: what a commit records."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def truncate(self, offset: int) -> None:
        """Cut the log back to a committed offset.

        Raises:
          ConfigError: it is shorter than that.
        """
        size = self.offset()
        if size < offset:
            raise ConfigError(f"{self.path}: {size} bytes found, but the last commit recorded {offset}")
        self._file.truncate(offset)
        self._hashed, self._total = 0, hashlib.sha256()
        self._file.seek(offset)
        self.offset()

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        if not self._file.closed:
            self.offset()
            self._file.close()

    @classmethod
    def discarded(cls, path: Path | str) -> "MetricsLog":
        """A log that keeps nothing: of a process that leaves the writing to another."""
        return _DiscardedLog(path)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_broken_tail(self) -> None:
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self.truncate(data.rfind(b"\n") + 1)


class _DiscardedLog(MetricsLog):
    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.followers = []

    def write(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        return

    def offset(self) -> int:
        return 0

    def digest(self) -> str:
        return ""

    def truncate(self, offset: int) -> None:
        return

    def close(self) -> None:
        return


def read_metrics(path: Path | str) -> list[MetricsLine]:
    """Read all whole lines of a log; [] when there is none. A last line without an end is left out.

    Raises:
      ConfigError: a finished line is not a record of metrics; it is named.
    """
    path = Path(path)
    if not path.exists():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    return [_parse_line(path, number, line) for number, line in enumerate(whole, start=1)]


def _parse_line(path: Path, number: int, line: bytes) -> MetricsLine:
    try:
        record = json.loads(line)
        values = {name: math.nan if v is None else float(v) for name, v in record["values"].items()}
        return MetricsLine(phase=str(record["phase"]), step=int(record["step"]), values=values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = line[:80].decode(errors="replace")
        raise ConfigError(
            f"{path}:{number}: expected a JSON object with phase, step and values, found {found!r}"
        ) from error


def finalize(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Divide metrics kept as (numerator, denominator); a denominator of 0 leaves its metric out."""
    return {
        name: float(numerator) / float(denominator)
        for name, (numerator, denominator) in sums.items()
        if float(denominator) != 0
    }


class Axis:
    """Places points of metrics on an x axis: at their step, made to grow on where a phase starts anew."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, str]] = {}
        self._shift: dict[str, int] = {}

    def place(self, name: str, step: int, phase: str) -> int:
        """Where the next point of a metric stands."""
        x = step + self._shift.get(name, 0)
        last, last_phase = self._last.get(name, (x - 1, phase))
        if phase != last_phase and x <= last:
            self._shift[name] = last + 1 - min(step, 1)
            x = step + self._shift[name]
        self._last[name] = (x, phase)
        return x


def metric_series(lines: Iterable[MetricsLine]) -> dict[str, list[tuple[int, float, str]]]:
    """Points (x, value, phase) of every metric, placed by an `Axis`."""
    series: dict[str, list[tuple[int, float, str]]] = {}
    axis = Axis()
    for line in lines:
        for name, value in line["values"].items():
            x = axis.place(name, line["step"], line["phase"])
            series.setdefault(name, []).append((x, value, line["phase"]))
    return series
