"""Differences between methods by seed and by task, tests of them, and Holm's correction for many."""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from scipy.special import stdtr

from coevo_jax.report.comparison import Interval, interval
from coevo_jax.report.paired import TaskInterval, clustered, clustered_error

Rewards = Sequence[float | None]  # by task; None where every episode was a fault


class Difference(TypedDict):
    """A method minus another, over the seeds in which both have played the same tasks."""

    seeds: Interval
    tasks: TaskInterval
    p_seeds: float | None  # two-sided, Student's t over the seeds' differences
    p_tasks: float | None  # two-sided, over tasks as clusters


def difference(ours: Mapping[int, Rewards], theirs: Mapping[int, Rewards]) -> Difference:
    """Pair two methods by seed and task; rewards of a seed stand in one order of the tasks for both.

    What the two intervals say, `report.paired` tells.
    """
    apart: dict[int, dict[str, float]] = {}
    for seed in sorted(ours.keys() & theirs.keys()):
        pairs = enumerate(zip(ours[seed], theirs[seed], strict=True))
        apart[seed] = {str(i): a - b for i, (a, b) in pairs if a is not None and b is not None}
    means = {seed: float(np.mean(list(of.values()))) for seed, of in apart.items() if of}
    mean, error, number = clustered_error(apart)
    return Difference(
        seeds=interval(means),
        tasks=clustered(apart),
        p_seeds=paired_test(list(means.values())),
        p_tasks=None if mean is None or error is None else p_value(mean, error, number - 1),
    )


def paired_test(differences: Sequence[float]) -> float | None:
    """The two-sided p-value that a mean difference is 0 by Student's t; None from fewer than two."""
    count = len(differences)
    if count < 2:
        return None
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    return p_value(float(np.mean(differences)), error, count - 1)


def p_value(mean: float, error: float, degrees: int) -> float:
    """The two-sided p-value of a mean with a standard error; without any spread 1 for 0 and else 0."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(degrees, -abs(mean) / error))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number by Holm's step-down procedure.

    The k-th smallest of m is multiplied by m - k + 1; none is smaller than one before it, or larger than 1
    (Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70).
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[name]))
        adjusted[name] = largest
    return adjusted
