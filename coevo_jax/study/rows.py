"""The rows of a study: one JSON object a line, a row for each run, kept in the repository."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.study.plan import Cell

Row = dict[str, Any]
FINISHED = "finished"
STATUSES = (FINISHED, "broken", "diverged", "failed")
"""What became of a run: it is finished; its audit is broken; its learning diverged; something else failed."""

NEEDED = ("study", "method", "seed", "status", "config", "base")


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in its order; none where there is no file.

    Raises:
      ConfigError: a line that is no row, or a run that has two.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    lines: dict[tuple[str, str, int], int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where}: not valid JSON ({error})") from None
        missing = [key for key in NEEDED if not isinstance(row, dict) or key not in row]
        if missing:
            raise ConfigError(f"{where}: lacks {', '.join(missing)}, expected a row of a study")
        if row["status"] not in STATUSES:
            raise ConfigError(
                f"{where}: status: found {row['status']!r}, expected one of {', '.join(STATUSES)}"
            )
        key = row["study"], row["method"], row["seed"]
        if key in lines:
            raise ConfigError(
                f"{where}: method {row['method']} and seed {row['seed']} stand in line {lines[key]} already"
            )
        lines[key] = number
        rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class Later:
    """What the agents of finished runs play besides their own evaluations."""

    split: str
    temperature: float
    words: str


LATER = {
    "test": Later(split="test", temperature=0.0, words="the test tasks"),
    "sampled": Later(split="dev", temperature=1.0, words="the dev tasks at temperature 1"),
}
"""By its key in a row."""


def write_row(path: Path, row: Row) -> None:
    """Put a row into its file: in the place of its run's earlier one, else at the end."""
    rows = read_rows(path)
    place = next((i for i, one in enumerate(rows) if _same_run(one, row)), None)
    if place is None:
        rows.append(row)
    else:
        rows[place] = row
    write_whole(path, "".join(line_of(one) + "\n" for one in rows))


def line_of(row: Row) -> str:
    """A row as a line: sorted keys, no spaces."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def row_of(rows: Iterable[Row], cell: Cell) -> Row | None:
    """The row of a cell's run, whatever config it was made with."""
    return next((row for row in rows if (row["method"], row["seed"]) == cell.key), None)


def check_rows(path: Path, rows: Sequence[Row], cells: Sequence[Cell]) -> None:
    """Make sure that a study can go on in a file of rows.

    Raises:
      ConfigError: rows of another study or base, or of a config that was changed after it had played the test
        tasks.
    """
    for row in rows:
        for key, ours in (("study", cells[0].study), ("base", cells[0].base)):
            if row[key] != ours:
                raise ConfigError(
                    f"{path}: {key}: found {row[key]!r} in the row of {row['method']}, seed {row['seed']}, "
                    f"expected {ours!r}; rows of one file have one base (--rows FILE names another)"
                )
    for cell in cells:
        row = row_of(rows, cell)
        if row is not None and row.get("test") and row["config"] != cell.digest:
            raise ConfigError(
                f"{path}: method {cell.method}, seed {cell.seed}: config: found {row['config'][:12]}, which "
                f"has played the test tasks, expected {cell.digest[:12]} of {cell.source}; test tasks are "
                "played once for a final config: give the new one a name and method of its own"
            )


def is_settled(row: Row | None, cell: Cell) -> bool:
    """Whether a row says for good what became of a cell's run; a failure or a broken audit is tried again."""
    return row is not None and row["config"] == cell.digest and row["status"] in (FINISHED, "diverged")


def _same_run(one: Row, other: Row) -> bool:
    return all(one[key] == other[key] for key in ("study", "method", "seed"))
