"""What roll-outs amount to, counted again: rewards with bootstrapped intervals, hard negatives, diversity."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from coevo_jax.audit.after_errors import IsError, Met, after_error, met
from coevo_jax.audit.reading import BROKEN, Episode, counted_endings

RESAMPLES = 2000  # of tasks, for a percentile interval of 95 % (Efron 1979)
BINS = 10  # of rewards in [0, 1); solved ones are counted apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What statistics need of a trajectory: many are in memory at once."""

    task_id: str
    agent: str
    sample: int
    reward: float
    ending: str
    actions: tuple[str, ...]
    agent_tokens: int
    met: Met | None = None  # None where nothing tells the environment's errors
    fault: str = ""  # why its environment broke

    @property
    def finished(self) -> bool:
        return self.ending not in BROKEN

    @property
    def failure(self) -> bool:
        return self.finished and self.reward < 1


def outcome(episode: Episode, is_error: IsError | None = None) -> Outcome:
    """The outcome of an episode that was read with its turns and mask."""
    return Outcome(
        task_id=episode.task_id,
        agent=episode.agent,
        sample=episode.sample,
        reward=episode.reward,
        ending=episode.ending,
        actions=tuple(turn["action"] for turn in episode.turns),
        agent_tokens=int(episode.agent_mask[episode.replayed_tokens :].sum()),
        met=met(episode, is_error) if is_error is not None and episode.finished else None,
        fault=episode.fault or "",
    )


def summary(episodes: Sequence[Outcome], threshold: float, seed: int, errors: bool = False) -> dict[str, Any]:
    """The entries of a summary in results.json, from what became of trajectories.

    Args:
      errors: with what followed errors; the outcomes know them.
    """
    ordered = sorted(episodes, key=lambda e: (e.task_id, e.agent, e.sample, e.reward))
    played = [e for e in ordered if e.finished]
    failures = [e for e in played if e.failure]
    hard = [e for e in failures if e.reward >= threshold]
    rewards = [e.reward for e in played]
    solved = [float(e.reward >= 1) for e in played]
    intervals = bootstrap([e.task_id for e in played], np.array([rewards, solved]), seed)
    reasons = broken_by([e for e in ordered if e.ending == "fault"])
    return {
        "n": len(ordered),
        "finished": len(played),
        "faults": len(ordered) - len(played),
        "tasks": len({e.task_id for e in played}),
        "mean_reward": _mean(rewards),
        "mean_reward_ci": intervals[0],
        "success_rate": _mean(solved),
        "success_rate_ci": intervals[1],
        "histogram": histogram(rewards),
        "hard_negative_threshold": threshold,
        "hard_negative_share": _share(len(hard), len(played)),
        "hard_negative_share_of_failures": _share(len(hard), len(failures)),
        "failure_count": len(failures),
        "mean_failure_reward": _mean([e.reward for e in failures]),
        "endings": counted_endings([e.ending for e in ordered]),
        "mean_turns": _mean([len(e.actions) for e in played]),
        "mean_agent_tokens": _mean([e.agent_tokens for e in played]),
        "diversity": diversity(failures),
        **({"fault_reasons": reasons} if reasons else {}),
    } | ({"after_error": after_error([e.met for e in played if e.met])} if errors else {})


def broken_by(faults: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The five most frequent first lines of why environments broke, and the first episode of each."""
    lines = [(e.fault.strip().split("\n")[0] or "unknown")[:200] for e in faults]
    entries = []
    for line, count in Counter(lines).most_common(5):
        first = faults[lines.index(line)]
        entries.append({"reason": line, "count": count, "first": f"{first.task_id}, sample {first.sample}"})
    return entries


def bootstrap(tasks: Sequence[str], values: np.ndarray, seed: int) -> list[list[float] | None]:
    """Percentile intervals of the means of rows of values, over resampled tasks with all their samples."""
    if not tasks:
        return [None] * len(values)
    names, index = np.unique(tasks, return_inverse=True)
    totals = np.zeros((len(values), len(names)))
    for row, total in zip(values, totals, strict=True):
        np.add.at(total, index, row)
    sizes = np.bincount(index)
    rng = generator("bootstrap", seed, len(names))
    means = np.zeros((len(values), RESAMPLES))
    for resample in range(RESAMPLES):
        drawn = np.bincount(rng.integers(0, len(names), size=len(names)), minlength=len(names))
        means[:, resample] = totals @ drawn / (sizes @ drawn)
    return [[float(bound) for bound in np.quantile(row, [0.025, 0.975])] for row in means]


def generator(name: str, *numbers: int) -> np.random.Generator:
    """The generator that a run's randomness of a name and numbers is defined by.

    NumPy's default one, seeded with the SHA-256 of the JSON list [name, number, ...], read as one integer
    with the most significant byte first.
    """
    digest = hashlib.sha256(json.dumps([name, *numbers]).encode()).hexdigest()
    return np.random.default_rng(int(digest, 16))


def histogram(rewards: Sequence[float]) -> list[int]:
    """Counts of rewards in equal bins over [0, 1), followed by the number of solved ones."""
    counts = [0] * (BINS + 1)
    for reward in rewards:
        counts[min(int(reward * BINS), BINS - 1) if reward < 1 else BINS] += 1
    return counts


def diversity(failures: Sequence[Outcome]) -> dict[str, float | None]:
    """Distinct sequences of actions, distinct neighbouring words of actions, and repeats within a task."""
    sequences = [e.actions for e in failures]
    by_task = {(e.task_id, sequence) for e, sequence in zip(failures, sequences, strict=True)}
    words = 0
    distinct: set[tuple[str, str]] = set()
    for sequence in sequences:
        for action in sequence:
            neighbours = list(pairwise(action.split()))
            words += len(neighbours)
            distinct.update(neighbours)
    return {
        "distinct_sequences": _share(len(set(sequences)), len(failures)),
        "distinct_bigrams": _share(len(distinct), words),
        "duplicates": _share(len(failures) - len(by_task), len(failures)),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
