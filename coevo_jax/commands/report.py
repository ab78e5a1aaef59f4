"""Show what runs did: tables in the terminal, and a self-contained HTML page.

python -m launch.report runs/quickstart             one run: tables and runs/quickstart/report.html
python -m launch.report runs/coevo-* runs/eto-*     several: methods over seeds and comparison.html
python -m launch.report runs/* --baseline eto       the same, with every method's difference from this one
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from coevo_jax.config.strict import ConfigError
from coevo_jax.report.comparison import compare, told_apart
from coevo_jax.report.html import write_comparison, write_report
from coevo_jax.report.paired import pair_with_baseline, read_task_rewards
from coevo_jax.report.terminal import print_comparison, print_run
from coevo_jax.run_folder.results import load_results

FILE_WIDTH = 120  # columns where the output is a file or a pipe and tells no width


def report(runs: Sequence[Path], out: Path | None, baseline: str | None, console: Console) -> Path:
    """Print tables of one run or of several side by side, and write their page; returns its path."""
    results = [load_results(run) for run in runs]
    if len(results) == 1:
        if baseline is not None:
            raise ConfigError("--baseline: found one run, expected several to compare")
        path = write_report(runs[0], out)
        print_run(results[0], console)
        return path
    results = told_apart(results, runs)
    comparison = compare(results)
    rewards = [read_task_rewards(run, result) for run, result in zip(runs, results, strict=True)]
    paired = pair_with_baseline(rewards, baseline)
    path = write_comparison(comparison, paired, out or Path("comparison.html"))
    print_comparison(comparison, paired, console)
    return path


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m launch.report", description="Report on one run or several."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: RUN/report.html, or comparison.html)"
    )
    parser.add_argument(
        "--baseline",
        metavar="METHOD",
        help="what the others are compared with, task by task (default: sft-more, else the first run's)",
    )
    options = parser.parse_args(argv)
    width = None if sys.stdout.isatty() else FILE_WIDTH
    path = report(
        options.runs, options.out, options.baseline, Console(markup=False, highlight=False, width=width)
    )
    print(f"Page: {path}")
