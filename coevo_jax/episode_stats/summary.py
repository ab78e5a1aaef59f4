"""Statistics of finished episodes: rewards with intervals, hard negatives, diversity, and signs of collapse.

Everything here is a pure function of trajectories and a seed, and returns plain values that JSON can hold.
A value that is not defined (the mean reward of no roll-outs) is None.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.envs.env import says_invalid
from coevo_jax.episode_stats.after_error import AfterError, IsError, sum_up_errors
from coevo_jax.episode_stats.faults import FaultReason, fault_reasons
from coevo_jax.trajectory import SOLVED_REWARD, Ending, Trajectory, count_endings

HISTOGRAM_BINS = 10
"""Equal bins over [0, 1); the count of solved episodes follows as one more entry."""

CONFIDENCE = 0.95
_BOOTSTRAP_CHUNK = 64  # resamples drawn at once: bounds memory at 64 x tasks indices

REWARD_FALL = 0.5
"""Collapse: the mean reward is below this share of the warm start's or of the last round's."""
REWARD_FLOOR = 0.05
"""Means below this are too small for a fall to be told from noise, so they never count as a fall."""
EMPTY_FAILURE_REWARD = 0.01
"""Collapse: failures earn less than this on average although they used to earn REWARD_FLOOR or more."""
ALWAYS_SOLVED = 0.95
"""Collapse of a failure agent: it solves more than this share, so there are hardly any failures left."""
CUT_SHARE = 0.25
"""Collapse: more than this share of the episodes hit the token limit."""
REPEATED_SEQUENCES = 0.05
"""Collapse: distinct action sequences per failure fall below this although they were three times as many."""
MIN_FAILURES = 20
"""Fewer failures than this say nothing about their reward or diversity."""


class Diversity(TypedDict):
    """How much the failures differ from each other; None where there is no failure."""

    distinct_sequences: float | None  # distinct action sequences / failures
    distinct_bigrams: float | None  # distinct / all pairs of neighbouring words inside an action
    duplicates: float | None  # share of failures that repeat an earlier failure of the same task


class Summary(TypedDict):
    """The statistics of a set of roll-outs; rewards and shares are over finished ones (no faults)."""

    n: int  # roll-outs, faults included
    finished: int  # n - faults
    faults: int  # with those whose replayed beginning was lost
    tasks: int  # distinct tasks with a finished roll-out
    mean_reward: float | None
    mean_reward_ci: list[float] | None  # [low, high], bootstrap over tasks, 95 %
    success_rate: float | None
    success_rate_ci: list[float] | None
    histogram: list[int]  # 10 bins over [0, 1), then the solved ones: 11 counts
    hard_negative_threshold: float
    hard_negative_share: float | None  # failures with reward >= threshold, over finished roll-outs
    hard_negative_share_of_failures: float | None  # the same, over failures
    failure_count: int
    mean_failure_reward: float | None
    endings: dict[str, int]  # Ending value -> count, faults included
    mean_turns: float | None
    mean_agent_tokens: float | None
    diversity: Diversity
    after_error: AfterError | None  # None in the results of an earlier version
    fault_reasons: NotRequired[list[FaultReason]]  # where there are any


def summarize(
    trajectories: Iterable[Trajectory],
    *,
    hard_negative_threshold: float,
    bootstrap_samples: int = 2000,
    seed: int,
    is_error: IsError = says_invalid,
) -> Summary:
    """Sum up roll-outs of one agent: rewards with 95 % intervals, hard negatives, endings, diversity, errors.

    `is_error` tells which answers of the environment are errors (`envs.env.error_test`).

    The intervals are percentile bootstraps (Efron 1979) that resample tasks, not roll-outs: samples of
    one task are not independent. The result depends on the seed, not on the order of the trajectories.
    """
    ordered = sorted(trajectories, key=lambda t: (t.task_id, t.agent, t.sample, t.reward))
    finished = [t for t in ordered if t.finished]
    failures = [t for t in finished if t.failure]
    hard = sum(t.reward >= hard_negative_threshold for t in failures)
    rewards = np.array([t.reward for t in finished], np.float64)
    successes = np.array([t.success for t in finished], np.float64)
    tasks, task_index = np.unique([t.task_id for t in finished], return_inverse=True)
    intervals = _bootstrap(np.stack([rewards, successes]), task_index, len(tasks), bootstrap_samples, seed)
    summary = Summary(
        n=len(ordered),
        finished=len(finished),
        faults=len(ordered) - len(finished),
        tasks=len(tasks),
        mean_reward=_mean(rewards),
        mean_reward_ci=intervals[0],
        success_rate=_mean(successes),
        success_rate_ci=intervals[1],
        histogram=reward_histogram(rewards),
        hard_negative_threshold=hard_negative_threshold,
        hard_negative_share=_share(hard, len(finished)),
        hard_negative_share_of_failures=_share(hard, len(failures)),
        failure_count=len(failures),
        mean_failure_reward=_mean([t.reward for t in failures]),
        endings=count_endings(ordered),
        mean_turns=_mean([len(t.turns) for t in finished]),
        mean_agent_tokens=_mean([t.written_tokens for t in finished]),
        diversity=failure_diversity(failures),
        after_error=sum_up_errors(finished, is_error),
    )
    if reasons := fault_reasons(ordered):
        summary["fault_reasons"] = reasons
    return summary


def reward_histogram(rewards: Sequence[float] | np.ndarray) -> list[int]:
    """Counts of rewards in 10 equal bins over [0, 1), followed by the number of solved ones."""
    counts = [0] * (HISTOGRAM_BINS + 1)
    for reward in rewards:
        solved = reward >= SOLVED_REWARD
        counts[HISTOGRAM_BINS if solved else min(int(reward * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
    return counts


def failure_diversity(failures: Sequence[Trajectory]) -> Diversity:
    """Diversity of failures: distinct action sequences, distinct-2 (arXiv 1510.03055) and duplicates."""
    sequences = [tuple(turn.action for turn in t.turns) for t in failures]
    per_task = {(t.task_id, sequence) for t, sequence in zip(failures, sequences, strict=True)}
    bigrams = [
        bigram
        for sequence in sequences
        for words in (action.split() for action in sequence)
        for bigram in itertools.pairwise(words)
    ]
    return Diversity(
        distinct_sequences=_share(len(set(sequences)), len(failures)),
        distinct_bigrams=_share(len(set(bigrams)), len(bigrams)),
        duplicates=_share(len(failures) - len(per_task), len(failures)),
    )


def detect_collapse(
    summary: Summary,
    previous_summary: Summary | None,
    reference_summary: Summary | None,
    *,
    makes_negatives: bool = True,
) -> str | None:
    """Say in plain words how an agent has collapsed, or None.

    `previous_summary` is the same agent a round earlier, `reference_summary` the warm start; either may be
    None. Solving nearly everything is a collapse where an agent is there to make negatives. Several signs are
    joined by "; ".
    """
    if summary["finished"] == 0:
        return None  # nothing but faults: the environment's trouble, told by the count of faults
    signs = (
        _reward_fall(summary, reference_summary, "the warm start's"),
        _reward_fall(summary, previous_summary, "the last round's"),
        _empty_failures(summary, reference_summary),
        _nothing_left_to_fail(summary) if makes_negatives else None,
        _cut_off(summary),
        _repetition(summary, reference_summary),
    )
    return "; ".join(sign for sign in signs if sign) or None


def _reward_fall(summary: Summary, before: Summary | None, whose: str) -> str | None:
    now, then = summary["mean_reward"], before["mean_reward"] if before else None
    if now is None or then is None or then < REWARD_FLOOR or now >= REWARD_FALL * then:
        return None
    return f"mean reward {now:.3f} is less than half of {whose} {then:.3f}"


def _empty_failures(summary: Summary, reference: Summary | None) -> str | None:
    now, then = summary["mean_failure_reward"], reference["mean_failure_reward"] if reference else None
    if now is None or then is None or summary["failure_count"] < MIN_FAILURES:
        return None
    if then < REWARD_FLOOR or now >= EMPTY_FAILURE_REWARD:
        return None
    return f"its failures earn almost nothing (mean reward {now:.3f}, at warm start {then:.3f})"


def _nothing_left_to_fail(summary: Summary) -> str | None:
    rate = summary["success_rate"]
    if rate is None or rate <= ALWAYS_SOLVED:
        return None
    return f"it solves {rate:.1%} of its tasks, so hardly any failures are left to learn from"


def _cut_off(summary: Summary) -> str | None:
    share = summary["endings"][Ending.TOKEN_LIMIT] / summary["finished"]
    return f"{share:.0%} of its episodes hit the token limit" if share > CUT_SHARE else None


def _repetition(summary: Summary, reference: Summary | None) -> str | None:
    now = summary["diversity"]["distinct_sequences"]
    then = reference["diversity"]["distinct_sequences"] if reference else None
    if now is None or then is None or summary["failure_count"] < MIN_FAILURES:
        return None
    if now >= REPEATED_SEQUENCES or then < 3 * REPEATED_SEQUENCES:
        return None
    return f"its failures repeat themselves ({now:.1%} distinct action sequences, at warm start {then:.1%})"


def _bootstrap(
    values: np.ndarray, task_index: np.ndarray, tasks: int, samples: int, seed: int
) -> list[list[float] | None]:
    """95 % percentile intervals of the means of `values` [K, N], resampling tasks; None without data."""
    if tasks == 0:
        return [None] * len(values)
    sums = np.stack([np.bincount(task_index, row, minlength=tasks) for row in values])  # [K, tasks]
    sizes = np.bincount(task_index, minlength=tasks)
    rng = stream("bootstrap", seed, tasks)
    means = []
    for start in range(0, samples, _BOOTSTRAP_CHUNK):
        draw = rng.integers(0, tasks, size=(min(_BOOTSTRAP_CHUNK, samples - start), tasks))
        means.append(sums[:, draw].sum(-1) / sizes[draw].sum(-1))  # [K, chunk]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means, axis=1), [tail, 1 - tail], axis=1)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
