"""Check what a run claims, by code that shares nothing with what made it (docs/audit.md).

python -m launch.audit runs/quickstart                 one line a check: held, BROKEN and where, not checkable
python -m launch.audit runs/quickstart --scored all    every trajectory scored again, not 64 a phase
python -m launch.audit runs/quickstart --json          the same as a list of objects

Exits with 1 where a check is broken, with 2 where the folder is no run.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from coevo_jax.audit.audit import SCORED, run_audit
from coevo_jax.audit.check import Check
from coevo_jax.commands.cli import FAILURE, USER_ERROR
from coevo_jax.config.strict import ConfigError


def number_or_all(text: str) -> int | None:
    """How many trajectories of a phase are scored; None for all."""
    if text == "all":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number or all")
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m launch.audit", description="Check what a run's folder claims."
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


def line(check: Check) -> str:
    return f"{check.state:<13} {check.name}: {check.words}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(arguments)
    checks: list[Check] = []
    try:
        for check in run_audit(options.run, options.scored):
            checks.append(check)
            if not options.json:
                print(line(check), flush=True)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    broken = sum(check.state == "BROKEN" for check in checks)
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        held = sum(check.state == "held" for check in checks)
        print(f"{held} held, {broken} broken, {len(checks) - held - broken} not checkable")
    return FAILURE if broken else 0
