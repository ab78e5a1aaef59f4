"""Run the cells of a sweep one by one, and tabulate them."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from coevo_jax.commands.codes import SIGNALLED
from coevo_jax.config.options import Config
from coevo_jax.config.recipe_queries import lead_of
from coevo_jax.files import as_called, require_writable, write_whole
from coevo_jax.learning.loss_table import loss_entries
from coevo_jax.progress import CONSOLE
from coevo_jax.report.html import write_report
from coevo_jax.report.sweep_table import (
    SweepRun,
    SweepTable,
    sweep_markdown,
    sweep_record,
    sweep_table,
    terminal_table,
)
from coevo_jax.run_folder.budget import resolve_budget
from coevo_jax.run_folder.results import main_evaluations
from coevo_jax.run_folder.stopping import Stopped
from coevo_jax.sweep import Cell, Outcome, plan_sweep, run_sweep, swept_agents


def loss_list() -> Table:
    """The losses for the terminal."""
    table = Table(title="Preference losses", title_justify="left")
    for column in ("loss", "what it is", "options (default)", "notes"):
        table.add_column(column, overflow="fold")
    for entry in loss_entries():
        options = ", ".join(f"{key} ({default})" for key, default in entry.options)
        table.add_row(entry.name, entry.words, options, ", ".join(entry.notes))
    return table


def announce(number: int, count: int, cell: Cell) -> None:
    """Say which run comes next."""
    CONSOLE.print(
        f"\n[{number}/{count}] {cell.config.method}, seed {cell.seed}: {cell.folder}", soft_wrap=True
    )


def conclude(outcome: Outcome) -> None:
    """One line on what became of a run."""
    if outcome.diverged is not None:
        CONSOLE.print(f"diverged: {outcome.diverged}; the sweep goes on", soft_wrap=True)
        return
    lead = outcome.results["agents"][0]
    last = main_evaluations(outcome.results, lead)[-1]
    reward = "–" if last["mean_reward"] is None else f"{last['mean_reward']:.3f}"
    CONSOLE.print(f"{outcome.how}: mean reward {reward} after round {last['round']}")
    if outcome.how != "reused":
        write_report(outcome.cell.folder)


def tabulate(outcomes: Sequence[Outcome], agent: str) -> SweepTable:
    """The table of what has run so far."""
    swept = swept_agents(outcomes[0].cell.config, agent)[0]
    runs = [
        SweepRun(
            method=outcome.cell.config.method,
            seed=outcome.cell.seed,
            folder=outcome.cell.folder,
            results=outcome.results,
            diverged=outcome.diverged,
        )
        for outcome in outcomes
    ]
    return sweep_table(runs, swept)


def write_tables(paths: Sequence[Path], table: SweepTable, command: str) -> None:
    """Write the table to every file that was asked for."""
    for path in paths:
        record = json.dumps(sweep_record(table, command), indent=1) + "\n"
        write_whole(path, sweep_markdown(table, command) if path.suffix == ".md" else record)


def list_losses() -> None:
    """Print the losses and their options."""
    CONSOLE.print(loss_list())


def sweep(args: argparse.Namespace, config: Config, argv: Sequence[str]) -> None:
    """Run a sweep as the command line asks; `argv` is that line, for the record."""
    base = resolve_budget(config)
    seeds = args.seeds or [base.seed]
    cells = plan_sweep(base, agent=args.agent, losses=args.losses, betas=args.betas, seeds=seeds)
    agent = args.agent or lead_of(base.recipe)
    command = as_called(shlex.join(["python", "-m", "launch.sweep", *argv]))
    done: list[Outcome] = []
    for path in args.table:
        require_writable(path)

    def after(outcome: Outcome) -> None:
        conclude(outcome)
        done.append(outcome)
        write_tables(args.table, tabulate(done, agent), command)

    try:
        run_sweep(cells, lambda number, cell: announce(number, len(cells), cell), after)
    except Stopped as error:
        print(f"{error}; what is done is committed: the same command goes on from there", file=sys.stderr)
        sys.exit(SIGNALLED + error.signum)
    except (OSError, KeyboardInterrupt) as error:
        error.add_note("what was committed is intact: the same command goes on from there")
        raise
    CONSOLE.print()
    CONSOLE.print(terminal_table(tabulate(done, agent)))
    for path in args.table:
        CONSOLE.print(f"written to {path}", soft_wrap=True)
