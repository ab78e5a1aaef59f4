"""Plan a study, run what is left of it, and say what became of it."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.commands.codes import FAILURE, SIGNALLED
from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import require_writable
from coevo_jax.progress import CONSOLE, time_words
from coevo_jax.run_folder.stopping import Stopped
from coevo_jax.study.plan import Cell, plan_study
from coevo_jax.study.pool import WorkerLost, first_states, play_finished, run_cells
from coevo_jax.study.rows import FINISHED, LATER, Row, check_rows, read_rows, row_of, write_row


def say(words: str) -> None:
    """Print a line, however long."""
    CONSOLE.print(words, soft_wrap=True)


def study(args: argparse.Namespace, configs: Mapping[str, Config], folder: Path) -> int:
    """Run a study as the command line asks; returns the command's exit code."""
    cells = plan_study(configs, args.seeds, args.runs_dir)
    path: Path = args.rows or folder / f"{cells[0].study}.jsonl"
    rows = read_rows(path)
    check_rows(path, rows, cells)
    if args.plan:
        return show_plan(cells, rows)
    require_writable(path)
    logs = args.runs_dir / "logs"
    try:
        part = "sampled" if args.sampled else args.split
        if part is None:
            run_left(cells, rows, args, logs, path)
        else:
            play_left(part, cells, rows, args, logs, path)
    except Stopped as error:
        print(f"{error}; what is done is committed: the same command goes on from there", file=sys.stderr)
        return SIGNALLED + error.signum
    except WorkerLost as error:
        print(f"error: {error}; what was committed is intact: the same command goes on", file=sys.stderr)
        return FAILURE
    return conclude(cells, path)


def show_plan(cells: Sequence[Cell], rows: Sequence[Row]) -> int:
    """One line a run, in the order in which they begin, and how many there are to do."""
    states = first_states(cells, rows)
    for cell in cells:
        needs = "" if cell.after is None else f", after {cell.after}"
        say(f"{states[cell.key]:<8} {cell.folder} (config {cell.digest[:12]}{needs})")
    counts = Counter(states.values())
    say(f"{len(cells)} runs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 0


def run_left(
    cells: Sequence[Cell], rows: Sequence[Row], args: argparse.Namespace, logs: Path, path: Path
) -> None:
    """Run the cells that wait, and write each row as it comes."""
    parts = {
        (row["method"], row["seed"]): {part: row[part] for part in LATER if row.get(part)} for row in rows
    }

    def write(cell: Cell, row: Row) -> None:
        write_row(path, row | parts.get(cell.key, {}))
        say(f"{cell.folder}: {row_words(row)}")

    run_cells(
        cells,
        first_states(cells, rows),
        jobs=args.jobs,
        pinned=not args.all_cores,
        logs=logs,
        write=write,
        say=say,
    )


def play_left(
    part: str,
    cells: Sequence[Cell],
    rows: Sequence[Row],
    args: argparse.Namespace,
    logs: Path,
    path: Path,
) -> None:
    """Play a part of a row with every finished run that has not done so."""
    left = []
    for cell in cells:
        row = row_of(rows, cell)
        if row is None or row["config"] != cell.digest or row["status"] != FINISHED:
            what = (
                "no row" if row is None else f"a row that says {row['status']} of config {row['config'][:12]}"
            )
            raise ConfigError(
                f"{path}: method {cell.method}, seed {cell.seed}: found {what}, expected a finished run of "
                f"config {cell.digest[:12]} ({cell.source}); only finished runs play later"
            )
        if row.get(part):
            say(f"{cell.folder}: has played {LATER[part].words}")
        else:
            left.append(cell)

    def write(cell: Cell, found: dict[str, Any]) -> None:
        row = row_of(read_rows(path), cell)
        assert row is not None  # it was there
        write_row(path, row | {part: found})
        rewards = {agent: one["mean_reward"] for agent, one in found["agents"].items()}
        say(
            f"{cell.folder}: {part} reward "
            + ", ".join(f"{a} {r:.3f}" for a, r in rewards.items() if r is not None)
        )

    play_finished(left, part, jobs=args.jobs, pinned=not args.all_cores, logs=logs, write=write, say=say)


def row_words(row: Row) -> str:
    """What became of a run, for people."""
    if row["status"] == "failed":
        return f"failed: {row['why']}"
    own = [one for one in row["evaluations"] if one["agent"] == row["agents"][0] and "name" not in one]
    last = max(own, key=lambda one: one["round"], default=None)
    reward = "–" if last is None or last["mean_reward"] is None else f"{last['mean_reward']:.3f}"
    audit = "not audited" if row["audit"] is None else f"audit: {row['audit']['words']}"
    why = f" ({row['why']})" if row.get("why") else ""
    spent = time_words(row["spent"]["seconds"])
    return (
        f"{row['status']}{why}, {row['how']}, {spent}; reward {reward} after round {row['rounds']}; {audit}"
    )


def conclude(cells: Sequence[Cell], path: Path) -> int:
    """Say how many runs have which row; the exit code is 1 where one failed or its audit is broken."""
    rows = read_rows(path)
    found = [row_of(rows, cell) for cell in cells]
    counts = Counter("without a row" if row is None else row["status"] for row in found)
    say(f"{path}: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    return FAILURE if counts["failed"] or counts["broken"] else 0


def write_page(page: Path, paths: Sequence[Path], bases: Path) -> int:
    """Write the tables of a page from files of rows and the records of bases."""
    from coevo_jax.study.page import write_tables

    for name in write_tables(page, {path: read_rows(path) for path in paths}, bases):
        say(f"{page}: {name}")
    return 0
