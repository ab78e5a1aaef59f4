"""Show what runs did: tables in the terminal, and a self-contained HTML page.

python -m launch.report runs/quickstart             one run: tables and runs/quickstart/report.html
python -m launch.report runs/coevo-* runs/eto-*     several: methods over seeds and comparison.html
python -m launch.report runs/* --baseline eto       the same, with every method's difference from this one
python -m launch.report runs/quickstart --follow    write the page again and again while the run is under way
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called
from coevo_jax.run_folder.results import load_results


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.report"), description="Report on one run or several."
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
    parser.add_argument(
        "--follow",
        action="store_true",
        help="write the page of one run again and again while it is under way",
    )
    options = parser.parse_args(argv)
    if options.follow and len(options.runs) > 1:
        raise ConfigError(f"--follow: found {len(options.runs)} runs, expected one")
    results = [load_results(run) for run in options.runs]
    from coevo_jax.commands.actions.report import show

    show(options, results)
