"""Checks that every environment passes, to be run on one's own: `python -m launch.conformance NAME`."""

from coevo_jax.envs.conformance.probe import Violation
from coevo_jax.envs.conformance.runner import CHECKS, CheckResult, run_checks

__all__ = ["CHECKS", "CheckResult", "Violation", "run_checks"]
