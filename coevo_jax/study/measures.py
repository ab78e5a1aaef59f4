"""What a row says of a run: everything from the run's own records and trajectories."""

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.files import CODE_ROOT
from coevo_jax.recipe import schedule
from coevo_jax.report.browser import find_groups
from coevo_jax.run_folder.environment import cores, cpu
from coevo_jax.run_folder.folder import read_config
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.results import Results, evaluation_label, wall_time
from coevo_jax.study.plan import Cell
from coevo_jax.trajectory import Trajectory

DIGITS = 6
SUMMARY = (
    *(
        "n",
        "faults",
        "mean_reward",
        "success_rate",
        "histogram",
        "endings",
        "mean_turns",
        "mean_agent_tokens",
    ),
    *("failure_count", "mean_failure_reward", "hard_negative_share", "hard_negative_share_of_failures"),
    *("diversity", "after_error"),
)
"""What is kept of a summary of roll-outs."""


def head(cell: Cell) -> dict[str, Any]:
    """Who a row is about, and where and when it was written."""
    return {
        "study": cell.study,
        "method": cell.method,
        "seed": cell.seed,
        "config": cell.digest,
        "base": cell.base,
        "commit": commit(),
        "dirty": is_dirty(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "cores_used": cores()},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def measured(folder: Path, results: Results) -> dict[str, Any]:
    """What a run did, as far as it came: evaluations with rewards by task, explorations, pairs and costs."""
    learnings = _learnings(folder)
    evaluations = [
        _summary(entry, ("round", "agent", "name", "split", "test_feedback"))
        for entry in results["evaluations"]
        if entry["round"] or entry["agent"] == results["agents"][0]  # all agents begin as one
    ]
    groups = find_groups(folder)
    for entry in evaluations:
        paths = groups[entry["round"], f"eval-{evaluation_label(entry)}"]
        entry |= task_rewards(read_trajectories(paths))
    explorations = [
        _summary(entry, ("round", "agent", "phase", "points")) for entry in results["explorations"]
    ]
    return rounded(
        {
            "agents": results["agents"],
            "rounds": results["rounds"],
            "evaluations": evaluations,
            "explorations": explorations,
            "pairs": results["pairs"],
            "learnings": learnings,
            "collapses": results["collapses"],
            "began": results["environment"].get("git"),
            "cost": {
                "rollouts": sum(entry["n"] for entry in results["explorations"]),
                "explored_tokens": _explored_tokens(folder),
                "learned_tokens": sum(one["learned_tokens"] for one in learnings),
                "steps": sum(one["steps"] for one in learnings),
                "seconds": wall_time(results),
            },
        }
    )


def task_rewards(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Rewards in the order of the tasks' names, and a digest of these names, by which runs are paired.

    The reward of a task is the mean of its finished episodes, None where each was a fault.
    """
    found: dict[str, list[float]] = {}
    for one in trajectories:
        earned = found.setdefault(one.task_id, [])
        if one.finished:
            earned.append(one.reward)
    names = sorted(found)
    return {
        "tasks": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
        "rewards": [_short(float(np.mean(found[name]))) if found[name] else None for name in names],
    }


def audit_counts(checks: Sequence[Check]) -> dict[str, Any]:
    """How many checks held, with the names of the broken ones."""
    broken = [check.name for check in checks if check.state == "BROKEN"]
    held = sum(check.state == "held" for check in checks)
    counts: dict[str, Any] = {
        "held": held,
        "broken": len(broken),
        "not_checkable": len(checks) - held - len(broken),
    }
    words = f"{held} held, {len(broken)} broken, {counts['not_checkable']} not checkable"
    return counts | {"words": words} | ({"broken_checks": broken} if broken else {})


def rounded(value: Any) -> Any:
    """Plain data with its floats rounded, so that a row stays short."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value


@cache
def commit() -> str | None:
    """The commit of the code, None where it is in no repository: as this process found it when it began."""
    return _git("rev-parse", "HEAD")


@cache
def is_dirty() -> bool | None:
    """Whether code or configs differed from the commit when this process began; None without one."""
    found = _git("status", "--porcelain", "--untracked-files=no", "--", "coevo_jax", "launch", "configs")
    return None if found is None else bool(found)


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(CODE_ROOT), *words]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def _summary(entry: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
    return {key: entry[key] for key in (*more, *SUMMARY) if key in entry}


def _short(reward: float) -> float | int:
    """A reward with three digits, whole ones without a point."""
    value = round(reward, 3)
    return int(value) if value == int(value) else value


def _learnings(folder: Path) -> list[dict[str, Any]]:
    """Steps and tokens of every finished learning of a round, by the run's manifest."""
    manifest, learned = read_manifest(folder), []
    for phase in schedule(read_config(folder)):
        record = manifest.record(phase.name)
        if phase.kind != "learn" or record is None:
            continue
        records = record.records
        own = {
            key: records[key]
            for key in ("learned_tokens", "trajectories", "pull", "budget")
            if key in records
        }
        learned.append({"round": phase.round, "agent": phase.agent, "steps": record.position, **own})
    return learned


def _explored_tokens(folder: Path) -> int:
    """Tokens that agents wrote in explorations and branches of all rounds."""
    manifest = read_manifest(folder)
    records = [
        manifest.record(phase.name)
        for phase in schedule(read_config(folder))
        if phase.kind in ("explore", "branch")
    ]
    return sum(record.records["agent_tokens"] for record in records if record is not None)
