"""Differences from a baseline, paired by task: what the same tasks say where seeds are few.

Two runs are paired where they share the seed, the environment with its options, the split and the tasks of
their last evaluation. For task i of G and seed s of S, d[s, i] is the difference of the two runs' rewards (of
their leads, greedy; the mean of a task's finished episodes). The difference is the mean of all
d, which is that of the seeds' means where no fault left a task out. Its two intervals answer two questions,
and neither answers the other's:

- over tasks, these agents kept: would other tasks of the same kind show it? A task is a cluster, because all
  seeds play it: with u[i] = sum over s of (d[s, i] - mean d) and N the number of all d, the standard error is
  sqrt(G / (G - 1) * sum over i of u[i]^2) / N (cluster-robust: Liang and Zeger 1986, Biometrika 73(1), 13-22;
  paired and clustered for evaluations: Miller 2024, arXiv 2411.00640), times Student's t with G - 1 degrees;
- over seeds, these tasks kept: would the method show it, trained again? Student's t over the seeds' means.

A task that ended in a fault in one of the two runs is in no difference of that seed, and is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from scipy.special import stdtrit

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.episode_stats.summary import CONFIDENCE
from coevo_jax.report.browser import find_groups
from coevo_jax.report.comparison import Interval, final_evaluation, interval
from coevo_jax.report.words import bounds, count, signed
from coevo_jax.run_folder.results import Results

USUAL_BASELINE = "sft-more"


@dataclass(frozen=True, kw_only=True)
class TaskRewards:
    """A run, and what its lead earned in every task of its last evaluation."""

    results: Results
    rewards: Mapping[str, float | None]  # by task id; None where every episode was a fault; empty: not stored


class TaskInterval(TypedDict):
    """A mean with its 95 % interval over tasks; no interval from one task."""

    mean: float | None
    low: float | None
    high: float | None
    tasks: int


class PairedRow(TypedDict):
    """`method` minus the baseline."""

    method: str
    seeds: Interval  # over seeds, these tasks kept
    tasks: TaskInterval  # over tasks, these agents kept
    faults: int  # pairs of episodes left out


class Paired(TypedDict):
    """All methods against the baseline, and in plain words which runs have no partner."""

    baseline: str
    rows: list[PairedRow]
    unpaired: list[str]


def read_task_rewards(run_dir: Path, results: Results) -> TaskRewards:
    """Read what the lead earned, task by task, in the last evaluation that the results hold."""
    last = final_evaluation(results)
    paths = find_groups(run_dir).get((last["round"], f"eval-{last['agent']}"), []) if last else []
    found: dict[str, list[float]] = {}
    for one in read_trajectories(paths):
        earned = found.setdefault(one.task_id, [])
        if one.finished:
            earned.append(one.reward)
    means = {task: float(np.mean(earned)) if earned else None for task, earned in found.items()}
    return TaskRewards(results=results, rewards=means)


def pair_with_baseline(runs: Sequence[TaskRewards], baseline: str | None = None) -> Paired:
    """Compare every method with the baseline: the named one, else "sft-more", else the first run's method.

    Raises:
      ConfigError: no run has the method that is named.
    """
    methods = list(dict.fromkeys(run.results["method"] for run in runs))
    if baseline is not None and baseline not in methods:
        hint = nearest(baseline, methods)
        raise ConfigError(f"--baseline: found {baseline!r}, expected a method of these runs{hint}")
    baseline = baseline or (USUAL_BASELINE if USUAL_BASELINE in methods else methods[0])
    partners = {run.results["seed"]: run for run in runs if run.results["method"] == baseline}
    rows, unpaired, used = [], [], set()
    for method in methods:
        differences: dict[int, dict[str, float]] = {}
        faults = 0
        for run in (run for run in runs if run.results["method"] == method != baseline):
            partner = partners.get(run.results["seed"])
            why = _why_unpaired(run, partner, baseline)
            if why is not None or partner is None:
                unpaired.append(f"{_name(run)}: {why}")
                continue
            used.add(run.results["seed"])
            differences[run.results["seed"]], left_out = _differences(run, partner)
            faults += left_out
        if method != baseline:
            rows.append(_row(method, differences, faults))
    alone = [run for seed, run in partners.items() if seed not in used]
    unpaired += [f"{_name(run)}: no run of another method is paired with it" for run in alone]
    return Paired(baseline=baseline, rows=rows, unpaired=unpaired)


def clustered(differences: Mapping[int, Mapping[str, float]]) -> TaskInterval:
    """The mean of all differences (seed -> task -> difference), with its interval over tasks as clusters."""
    mean, error, number = clustered_error(differences)
    if mean is None or error is None:
        return TaskInterval(mean=mean, low=None, high=None, tasks=number)
    half = float(stdtrit(number - 1, (1 + CONFIDENCE) / 2) * error)
    return TaskInterval(mean=mean, low=mean - half, high=mean + half, tasks=number)


def clustered_error(
    differences: Mapping[int, Mapping[str, float]],
) -> tuple[float | None, float | None, int]:
    """The mean of all differences, its standard error over tasks as clusters, and their number.

    There is no mean of none, and no error from one task.
    """
    every = [value for of_seed in differences.values() for value in of_seed.values()]
    clusters: dict[str, list[float]] = {}
    for of_seed in differences.values():
        for task, value in of_seed.items():
            clusters.setdefault(task, []).append(value)
    number = len(clusters)
    mean = float(np.mean(every)) if every else None
    if mean is None or number == 1:
        return mean, None, number
    sums = np.array([np.sum(np.subtract(values, mean)) for values in clusters.values()])
    return mean, float(np.sqrt(number / (number - 1) * np.sum(sums**2)) / len(every)), number


def paired_cells(row: PairedRow) -> tuple[str, ...]:
    """Difference, seeds, interval over seeds, tasks, interval over tasks, and faults, for any table."""
    seeds, tasks = row["seeds"], row["tasks"]
    return (
        signed(tasks["mean"]),
        count(len(seeds["values"])),
        bounds((seeds["low"], seeds["high"])) or "–",
        count(tasks["tasks"]),
        bounds((tasks["low"], tasks["high"])) or "–",
        count(row["faults"]),
    )


def _row(method: str, differences: dict[int, dict[str, float]], faults: int) -> PairedRow:
    means = {seed: float(np.mean(list(of.values()))) for seed, of in differences.items() if of}
    return PairedRow(method=method, seeds=interval(means), tasks=clustered(differences), faults=faults)


def _differences(run: TaskRewards, partner: TaskRewards) -> tuple[dict[str, float], int]:
    """Differences by task, and the tasks left out for a fault."""
    found = {}
    for task, reward in run.rewards.items():
        other = partner.rewards[task]
        if reward is not None and other is not None:
            found[task] = reward - other
    return found, len(run.rewards) - len(found)


def _why_unpaired(run: TaskRewards, partner: TaskRewards | None, baseline: str) -> str | None:
    """Why two runs cannot be paired, in plain words; None where they can."""
    if partner is None:
        return f"no run of {baseline} has seed {run.results['seed']}"
    for one in (run, partner):
        if not one.rewards:
            return f"the folder of {one.results['name']} holds no trajectories of its last evaluation"
    ours, theirs = (one.results["config"].get("env", {}).get("options", {}) for one in (run, partner))
    if (run.results["env"], ours) != (partner.results["env"], theirs):
        return f"{_name(partner)} was played with other options of the environment"
    only = len(run.rewards.keys() - partner.rewards.keys()), len(partner.rewards.keys() - run.rewards.keys())
    if any(only):
        return f"other tasks than {_name(partner)}: {only[0]} only here, {only[1]} only there"
    return None


def _name(run: TaskRewards) -> str:
    return f"{run.results['name']} ({run.results['method']}, seed {run.results['seed']})"
