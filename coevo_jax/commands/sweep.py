"""Run a config over preference losses, betas and seeds, and tabulate them.

python -m launch.sweep configs/quickstart.yaml --losses sigmoid ipo "sigmoid=0.8,sft=0.2" --seeds 0 1 2
python -m launch.sweep my.yaml rounds=1 --losses my_losses:mine --betas 0.1 0.5 --table sweep.md sweep.json
python -m launch.sweep --list

A loss is a name, a mixture NAME=WEIGHT,NAME=WEIGHT, or your own as package.module:function. Every run is a
folder NAME-AGENT-LOSS-betaBETA-seedSEED in runs_dir: a finished one is reused, an interrupted one resumed.
Runs of a seed share the warm start and the first exploration.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from coevo_jax.commands.cli import SIGNALLED
from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe import lead_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.learning.loss_table import loss_entries
from coevo_jax.progress import CONSOLE
from coevo_jax.report.html import write_report
from coevo_jax.report.sweep import (
    SweepRun,
    SweepTable,
    sweep_markdown,
    sweep_record,
    sweep_table,
    terminal_table,
)
from coevo_jax.run_folder.budget import resolve_budget
from coevo_jax.run_folder.stopping import Stopped
from coevo_jax.sweep import Cell, Outcome, plan_sweep, run_sweep, swept_agents

SUFFIXES = (".md", ".json")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m launch.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0 when every run finished or diverged, 2 when what was given cannot be used, 143\n"
        "or 130 after SIGTERM or Ctrl-C: the same command goes on",
    )
    parser.add_argument("config", nargs="?", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="as in launch.train")
    parser.add_argument("--losses", nargs="+", default=[], metavar="LOSS")
    parser.add_argument(
        "--betas", nargs="+", type=float, default=[], metavar="BETA", help="default: the config's, by round"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="SEED", help="default: the config's"
    )
    parser.add_argument(
        "--agent",
        metavar="NAME",
        help="whose loss it is, by the recipe's name, or all (default: the first that it names)",
    )
    parser.add_argument(
        "--table", nargs="+", type=Path, default=[], metavar="FILE", help="write the table: .md or .json"
    )
    parser.add_argument("--list", action="store_true", help="show the losses and their options")
    args = parser.parse_args(argv)
    if not args.list and (args.config is None or not args.losses):
        parser.print_usage(sys.stderr)
        raise ConfigError("give a config file and --losses, or --list")
    for path in args.table:
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"--table {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
        if not path.parent.is_dir():
            raise ConfigError(f"--table {path}: the folder {path.parent} does not exist")
    return args


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
    CONSOLE.print(
        f"\n[{number}/{count}] {cell.config.method}, seed {cell.seed}: {cell.folder}", soft_wrap=True
    )


def conclude(outcome: Outcome) -> None:
    """One line on what became of a run."""
    if outcome.diverged is not None:
        CONSOLE.print(f"diverged: {outcome.diverged}; the sweep goes on", soft_wrap=True)
        return
    lead = outcome.results["agents"][0]
    last = [e for e in outcome.results["evaluations"] if e["agent"] == lead][-1]
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


def write_tables(paths: Sequence[Path], sweep: SweepTable, command: str) -> None:
    for path in paths:
        record = json.dumps(sweep_record(sweep, command), indent=1) + "\n"
        write_whole(path, sweep_markdown(sweep, command) if path.suffix == ".md" else record)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if args.list:
        CONSOLE.print(loss_list())
        return
    base = resolve_budget(load_config(args.config, args.overrides))
    seeds = args.seeds or [base.seed]
    cells = plan_sweep(base, agent=args.agent, losses=args.losses, betas=args.betas, seeds=seeds)
    agent = args.agent or lead_of(base.recipe)
    command = shlex.join(["python", "-m", "launch.sweep", *argv])
    done: list[Outcome] = []

    def after(outcome: Outcome) -> None:
        conclude(outcome)
        done.append(outcome)
        write_tables(args.table, tabulate(done, agent), command)

    try:
        run_sweep(cells, lambda number, cell: announce(number, len(cells), cell), after)
    except Stopped as error:
        print(f"{error}; what is done is committed: the same command goes on from there", file=sys.stderr)
        sys.exit(SIGNALLED + error.signum)
    CONSOLE.print()
    CONSOLE.print(terminal_table(tabulate(done, agent)))
    for path in args.table:
        CONSOLE.print(f"written to {path}", soft_wrap=True)
