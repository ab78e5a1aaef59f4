"""Check what a run claims, by code that shares nothing with what made it (docs/audit.md).

python -m launch.audit runs/quickstart                 one line a check: held, BROKEN and where, not checkable
python -m launch.audit runs/quickstart --scored all    every trajectory scored again, not 64 a phase
python -m launch.audit runs/quickstart --json          the same as a list of objects

Exits with 1 where a check is broken, with 2 where the folder is no run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.audit.opening import SCORED, open_run
from coevo_jax.files import as_called


def number_or_all(text: str) -> int | None:
    """How many trajectories of a phase are scored; None for all."""
    if text == "all":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number or all")
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.audit"), description="Check what a run's folder claims."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--scored",
        type=number_or_all,
        default=SCORED,
        metavar="N|all",
        help=f"trajectories of each phase that a checkpoint's agent scores again (default: {SCORED})",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of lines")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(argv)
    open_run(options.run)
    from coevo_jax.commands.actions.audit import audit

    return audit(options)
