"""Print the tables of runs and write their page."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from coevo_jax.config.strict import ConfigError
from coevo_jax.progress import Screen
from coevo_jax.report.comparison import compare, told_apart
from coevo_jax.report.html import RELOAD, write_comparison, write_report
from coevo_jax.report.paired import pair_with_baseline, read_task_rewards
from coevo_jax.report.terminal import print_comparison, print_run
from coevo_jax.run_folder.results import Results
from coevo_jax.run_folder.standing import standing_of

FILE_WIDTH = 120  # columns where the output is a file or a pipe and tells no width


def report(
    runs: Sequence[Path],
    results: Sequence[Results],
    out: Path | None,
    baseline: str | None,
    console: Console,
) -> Path:
    """Print tables of one run or of several side by side, and write their page; returns its path."""
    if len(results) == 1:
        if baseline is not None:
            raise ConfigError("--baseline: found one run, expected several to compare")
        path = write_report(runs[0], out)
        print_run(results[0], console)
        if words := standing_of(runs[0]).words:
            console.print(words, soft_wrap=True)
        return path
    results = told_apart(results, runs)
    comparison = compare(results)
    rewards = [read_task_rewards(run, result) for run, result in zip(runs, results, strict=True)]
    paired = pair_with_baseline(rewards, baseline)
    shown = list(zip(runs, results, strict=True))
    path = write_comparison(comparison, paired, shown, out or Path("comparison.html"))
    print_comparison(comparison, paired, console)
    return path


def show(options: argparse.Namespace, results: Sequence[Results]) -> None:
    """Report as the command line asks."""
    width = None if sys.stdout.isatty() else FILE_WIDTH
    console = Screen(markup=False, highlight=False, width=width)
    try:
        path = report(options.runs, results, options.out, options.baseline, console)
    except OSError as error:
        error.add_note("--out FILE names another place for the page")
        raise
    print(f"Page: {path}", flush=True)
    if options.follow:
        follow(options.runs[0], options.out)


def follow(run: Path, out: Path | None) -> None:
    """Write the page of a run again and again until it is under way no more."""
    while standing_of(run).under_way:
        time.sleep(RELOAD)
        write_report(run, out)
