"""Audit a run and say what held."""

import argparse
import json
from dataclasses import asdict

from coevo_jax.audit.audit import run_audit
from coevo_jax.audit.check import Check
from coevo_jax.commands.codes import FAILURE


def line(check: Check) -> str:
    """A check for the terminal."""
    return f"{check.state:<13} {check.name}: {check.words}"


def audit(options: argparse.Namespace) -> int:
    """Print every check as it is made, or all of them as JSON; returns the command's exit code."""
    checks: list[Check] = []
    for check in run_audit(options.run, options.scored):
        checks.append(check)
        if not options.json:
            print(line(check), flush=True)
    broken = sum(check.state == "BROKEN" for check in checks)
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        held = sum(check.state == "held" for check in checks)
        print(f"{held} held, {broken} broken, {len(checks) - held - broken} not checkable")
    return FAILURE if broken else 0
