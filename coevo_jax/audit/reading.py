"""Reading a run's files: the manifest, the metrics log, and trajectories batch by batch."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.opening import open_run
from coevo_jax.config.options import Config

BATCH_ROWS = 512
ENDINGS = ("solved", "failed", "turn_limit", "token_limit", "fault", "lost")  # of episodes
BROKEN = ("fault", "lost")  # nothing that the agent did
RARE = ("branch", "about", "hints", "fault")  # columns of branches, answers, suggestions, broken environments
SHARD = re.compile(r"(?P<name>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")
WHO = ("task_id", "agent", "sample", "reward", "ending")
ARRAYS = ("tokens", "agent_mask", "logps")
TEXTS = ("prompt", "turns")


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """A trajectory as its file has it; columns that were not asked for are empty."""

    task_id: str
    agent: str
    sample: int
    reward: float
    ending: str
    prompt: str = ""
    turns: Sequence[dict[str, str]] = ()  # response, action, observation
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    agent_mask: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    logps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    branch: Mapping[str, Any] | None = None  # collection, sample, turns, tokens of what it begins with
    about: Mapping[str, Any] | None = None  # of an answer: collection, sample, turn that was asked about
    hints: Sequence[str] | None = None  # actions that were suggested before its turns, "" for none
    fault: str | None = None  # why its environment broke

    @property
    def replayed_turns(self) -> int:
        """Turns that it took over from another episode."""
        return self.branch["turns"] if self.branch else 0

    @property
    def replayed_tokens(self) -> int:
        return self.branch["tokens"] if self.branch else 0

    @property
    def name(self) -> str:
        return f"{self.task_id} ({self.agent}, sample {self.sample})"

    @property
    def finished(self) -> bool:
        return self.ending not in BROKEN and self.about is None

    @property
    def failure(self) -> bool:
        """A failure is any finished trajectory with reward below 1."""
        return self.finished and self.reward < 1

    @property
    def success(self) -> bool:
        return self.finished and self.reward >= 1

    @cached_property
    def run_ends(self) -> np.ndarray:
        """Where each turn of the agent ends: a turn is a run of its tokens."""
        after = np.append(self.agent_mask[1:], False)
        return np.flatnonzero(self.agent_mask & ~after) + 1

    @cached_property
    def run_starts(self) -> np.ndarray:
        before = np.insert(self.agent_mask[:-1], 0, False) if len(self.agent_mask) else self.agent_mask
        return np.flatnonzero(self.agent_mask & ~before)


def read_episodes(path: Path, columns: Sequence[str] = ()) -> Iterator[Episode]:
    """The trajectories of one file with the columns asked for beside who played and how it ended."""
    file = pq.ParquetFile(path)
    own = [name for name in RARE if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[*WHO, *columns, *own]):
        plain: dict[str, Any] = {
            name: batch.column(name).to_pylist() for name in (*WHO, *columns, *own) if name not in ARRAYS
        }
        lists = {name: _slices(batch.column(name)) for name in columns if name in ARRAYS}
        for row in range(batch.num_rows):
            values: dict[str, Any] = {name: column[row] for name, column in (plain | lists).items()}
            yield Episode(**values)


def _slices(column: Any) -> list[np.ndarray]:
    """The rows of a column of lists, as arrays that share one buffer."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    if not isinstance(column, pa.ListArray) or column.null_count:
        raise ValueError("a row is null, expected a list")
    return [values[start:end] for start, end in pairwise(offsets)]


def rows_of(path: Path) -> int:
    """How many trajectories a file holds."""
    return pq.ParquetFile(path).metadata.num_rows


def written(path: Path) -> int:
    """How many tokens of a file's trajectories their agents wrote, however the episodes ended."""
    episodes = read_episodes(path, ("agent_mask",))
    return sum(int(episode.agent_mask[episode.replayed_tokens :].sum()) for episode in episodes)


def counted_endings(endings: Sequence[str]) -> dict[str, int]:
    """How often each ending comes; a lost beginning is listed where there is one."""
    counts = {ending: sum(one == ending for one in endings) for ending in ENDINGS}
    return {ending: count for ending, count in counts.items() if ending != "lost" or count}


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFiles:
    """A run's folder: what its manifest says is committed, and nothing else."""

    folder: Path
    config: Config
    manifest: dict[str, Any]

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The finished phases by name, in their order."""
        return {record["name"]: record for record in self.manifest["done"]}

    def record(self, name: str) -> dict[str, Any]:
        """What a finished phase recorded.

        Raises:
          NotCheckable: the phase is not finished.
        """
        if name not in self.records:
            raise NotCheckable(f"{name} is not finished")
        return self.records[name]["records"]

    def recorded(self, name: str, key: str) -> Any:
        """One entry of that.

        Raises:
          NotCheckable: the run was made by a version that did not record it.
        """
        record = self.record(name)
        if key not in record:
            why = "made by an earlier version, nothing was learned, or it was no finite number"
            raise NotCheckable(f"{name} records no {key}: {why}")
        return record[key]

    @cached_property
    def files(self) -> dict[str, str]:
        """Every committed file with its sha256, path inside the folder."""
        running = self.manifest["running"]
        phases = [*self.manifest["done"], *([running] if running else [])]
        return {path: digest for phase in phases for path, digest in phase["files"].items()}

    def collection(self, round_number: int, name: str) -> list[Path]:
        """The committed shards of what one agent played in one phase, in the order of their numbers."""
        where = f"trajectories/round-{round_number:02d}"
        found = {}
        for path in self.files:
            shard = SHARD.fullmatch(Path(path).name)
            if str(Path(path).parent) == where and shard and shard["name"] == name:
                found[int(shard["index"])] = self.folder / path
        return [found[index] for index in sorted(found)]

    def json(self, path: str) -> Any:
        """A committed JSON file.

        Raises:
          NotCheckable: the run has none.
        """
        if path not in self.files:
            raise NotCheckable(f"{path} is not among the committed files")
        return json.loads((self.folder / path).read_text(encoding="utf-8"))

    @cached_property
    def devices(self) -> list[str]:
        """The devices that the run began on; none where it does not say."""
        return self._environment.get("devices", [])

    @cached_property
    def taken_over(self) -> list[str]:
        """The phases that another run played, which this one was forked from."""
        return self._environment.get("forked", {}).get("phases", [])

    @cached_property
    def _environment(self) -> dict[str, Any]:
        path = self.folder / "environment.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def metrics(self) -> dict[str, list[tuple[int, int, dict[str, float]]]]:
        """The committed part of the metrics log by phase: line number, step, values."""
        log = (self.folder / "metrics.jsonl").read_bytes()[: self.manifest["metrics_offset"]]
        lines: dict[str, list[tuple[int, int, dict[str, float]]]] = {}
        for number, text in enumerate(log.splitlines(), start=1):
            line = json.loads(text)
            lines.setdefault(line["phase"], []).append((number, line["step"], line["values"]))
        return lines

    def steps(self, phase: str, prefix: str) -> list[tuple[int, int, dict[str, float]]]:
        """The optimizer steps of a phase: line number, step, values without the agent's prefix."""
        return [
            (number, step, {name.removeprefix(f"{prefix}/"): value for name, value in values.items()})
            for number, step, values in self.metrics.get(phase, [])
            if f"{prefix}/loss" in values
        ]


def open_files(folder: Path) -> RunFiles:
    """The files of a run.

    Raises:
      ConfigError: the folder is no run, or its manifest or config cannot be read.
    """
    manifest, config = open_run(folder)
    return RunFiles(folder=folder, config=config, manifest=manifest)
