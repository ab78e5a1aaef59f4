"""Play the checks of an environment and tabulate what became of them."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coevo_jax.commands.codes import FAILURE
from coevo_jax.config.reading import read_options
from coevo_jax.envs.conformance import CheckResult, run_checks
from coevo_jax.envs.registry import make_env
from coevo_jax.progress import CONSOLE

STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def conformance_table(name: str, results: Sequence[CheckResult]) -> Table:
    """One row per check: what it verifies, what became of it, what was seen."""
    table = Table(title=f"Conformance of {name}", title_justify="left", show_lines=False)
    for column in ("check", "verifies", "result", "seen"):
        table.add_column(column, overflow="fold")
    for result in results:
        status = Text(result.status, style=STYLES[result.status])
        table.add_row(result.name, Text(result.sentence), status, Text(result.message))
    return table


def check_environment(args: argparse.Namespace, console: Console = CONSOLE) -> int:
    """Run the checks and print them; returns the command's exit code."""
    make = make_env(args.name, read_options(args.options))
    with console.status("") as status:
        results = run_checks(
            make,
            tasks_per_split=args.tasks,
            seed=args.seed,
            call_timeout=args.timeout,
            only=args.check,
            on_result=lambda result: status.update(f"{result.name}: {result.status}"),
        )
    console.print(conformance_table(args.name, results))
    counts = {status: sum(result.status == status for result in results) for status in STYLES}
    words = ", ".join(f"{number} {status}" for status, number in counts.items())
    console.print(f"{words}, {sum(result.seconds for result in results):.1f} s")
    return FAILURE if counts["failed"] else 0
