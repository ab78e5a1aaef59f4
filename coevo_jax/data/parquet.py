"""Trajectories on disk: Parquet shards, one row a trajectory, readable by pandas, DuckDB and `datasets`."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.trajectory import About, Branch, Ending, Trajectory, Turn

SCHEMA_VERSION = b"1"
VERSION_KEY = b"coevo_jax.trajectories"
ROWS_AT_ONCE = 256
TURN = pa.struct(
    [
        pa.field("response", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("observation", pa.string(), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("agent", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("turns", pa.list_(TURN), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("ending", pa.string(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("agent_mask", pa.list_(pa.bool_()), nullable=False),
        pa.field("logps", pa.list_(pa.float32()), nullable=False),
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION},
)
BRANCH = pa.struct(
    [
        pa.field("collection", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("turns", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
    ]
)
ABOUT = pa.struct(
    [
        pa.field("collection", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
    ]
)
# Columns that may be null, which a shard has behind the others where one of its rows needs them.
RARE = {
    "branch": pa.field("branch", BRANCH),
    "about": pa.field("about", ABOUT),
    "hints": pa.field("hints", pa.list_(pa.string())),
    "fault": pa.field("fault", pa.string()),
}


def shard_name(name: str, index: int, count: int) -> str:
    """Name one shard of a set of files: `target-00000-of-00001.parquet`."""
    return f"{name}-{index:05d}-of-{count:05d}.parquet"


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> None:
    """Write one shard; the file appears under its name only when it is complete and on disk."""
    rows = [_to_row(trajectory) for trajectory in trajectories]
    schema = _schema_with(name for name in RARE if any(row[name] for row in rows))
    shard = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schema), shard, compression="zstd", write_page_checksum=True
    )
    write_whole(path, shard.getvalue().to_pybytes())


def read_trajectories(paths: Sequence[Path]) -> list[Trajectory]:
    """Read shards in the given order, every field exactly as it was written.

    Raises:
      ConfigError: a file is missing, broken or of another schema; the message names it (and the row).
    """
    trajectories = []
    for path in paths:
        for index, row in enumerate(checked_rows(path)):
            if isinstance(row, ValueError):
                raise ConfigError(f"{path}: row {index}: {row}")
            trajectories.append(row)
    return trajectories


def checked_rows(path: Path) -> Iterator[Trajectory | ValueError]:
    """Yield the trajectories of a shard, and for a broken row what is wrong with it; a batch in memory.

    Raises:
      ConfigError: the file is missing, broken or of another schema.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        _check_schema(path, file.schema_arrow)
        rows = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            rows += batch.num_rows
            for row in batch.to_pylist():
                try:
                    yield _from_row(row)
                except ValueError as error:
                    yield error
        if rows != file.metadata.num_rows:  # damaged lists of row groups are read without a word
            raise pa.ArrowInvalid(f"found {rows} rows, expected {file.metadata.num_rows}")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last: names of columns, texts
        raise ConfigError(f"{path}: cannot be read as a Parquet file: {error}") from None


def is_trajectory_file(path: Path) -> bool:
    """Whether a file is a Parquet file that says it holds trajectories."""
    try:
        return VERSION_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return False


def _check_schema(path: Path, schema: pa.Schema) -> None:
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version != SCHEMA_VERSION:
        found = "none" if version is None else version.decode(errors="replace")
        raise ConfigError(
            f"{path}: schema version: found {found}, expected {SCHEMA_VERSION.decode()} "
            "(a file of trajectories written by this version)"
        )
    if not schema.equals(_schema_with(name for name in RARE if name in schema.names)):
        raise ConfigError(f"{path}: columns: found {schema.names}, expected {SCHEMA.names} and their types")


def _schema_with(rare: Iterable[str]) -> pa.Schema:
    schema = SCHEMA
    for name in rare:
        schema = schema.append(RARE[name])
    return schema


def _to_row(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "task_id": trajectory.task_id,
        "agent": trajectory.agent,
        "sample": trajectory.sample,
        "prompt": trajectory.prompt,
        "turns": [
            {"response": turn.response, "action": turn.action, "observation": turn.observation}
            for turn in trajectory.turns
        ],
        "reward": trajectory.reward,
        "ending": trajectory.ending.value,
        "tokens": trajectory.tokens,
        "agent_mask": trajectory.agent_mask,
        "logps": trajectory.logps,
        "branch": None if trajectory.branch is None else asdict(trajectory.branch),
        "about": None if trajectory.about is None else asdict(trajectory.about),
        "hints": trajectory.hints or None,
        "fault": trajectory.fault or None,
    }


def _from_row(row: dict[str, Any]) -> Trajectory:
    """Check one row and build its trajectory.

    Raises:
      ValueError: the row is none; the message says what was found and what was expected.
    """
    empty = [name for name, value in row.items() if value is None and name not in RARE]
    if empty:
        raise ValueError(f"{empty[0]}: found null, expected a value")
    endings = [ending.value for ending in Ending]
    if row["ending"] not in endings:
        raise ValueError(f"ending: found {row['ending']!r}, expected one of {', '.join(endings)}")
    if not 0 <= row["reward"] <= 1:
        raise ValueError(f"reward: found {row['reward']}, expected a number in [0, 1]")
    lengths = [len(row[name]) for name in ("tokens", "agent_mask", "logps")]
    if len(set(lengths)) != 1:
        raise ValueError(f"tokens, agent_mask, logps: found lengths {lengths}, expected one length")
    lowest = min(row["tokens"], default=0)
    if lowest < 0:
        raise ValueError(f"tokens: found {lowest}, expected ids of 0 or more")
    if any(map(math.isnan, row["logps"])):
        raise ValueError("logps: found nan, expected numbers")
    return Trajectory(
        task_id=row["task_id"],
        agent=row["agent"],
        sample=row["sample"],
        prompt=row["prompt"],
        turns=tuple(Turn(**turn) for turn in row["turns"]),
        reward=row["reward"],
        ending=Ending(row["ending"]),
        tokens=np.array(row["tokens"], np.int32),
        agent_mask=np.array(row["agent_mask"], bool),
        logps=np.array(row["logps"], np.float32),
        branch=_branch(row),
        about=None if row.get("about") is None else About(**row["about"]),
        hints=tuple(row.get("hints") or ()),
        fault=row.get("fault") or "",
    )


def _branch(row: dict[str, Any]) -> Branch | None:
    if row.get("branch") is None:
        return None
    branch = Branch(**row["branch"])
    if not (0 <= branch.turns <= len(row["turns"]) and 0 <= branch.tokens <= len(row["tokens"])):
        raise ValueError(
            f"branch: found {branch.turns} turns and {branch.tokens} tokens played again, expected at most "
            f"{len(row['turns'])} and {len(row['tokens'])}"
        )
    return branch
