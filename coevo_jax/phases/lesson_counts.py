"""What a learning learns from, counted: for its record, for the metrics log, and in words for people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from coevo_jax.data.packing.plan import BatchPlan
from coevo_jax.data.pairing import Extra, PairSet
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import PreferencePair, Trajectory


def plan_counts(plan: BatchPlan) -> dict[str, float]:
    """What packing did with the round's trajectories, for the metrics log."""
    return {
        "plan/too_long": len(plan.too_long),
        "plan/cut": plan.cut,
        "plan/dropped_pairs": plan.dropped_pairs,
        "plan/padding": plan.padding,
        "plan/shared": plan.shared,
        "plan/microbatches": len(plan.batches),
    }


def beside_counts(records: dict[str, Any]) -> dict[str, float]:
    """The draws beside a weak model, for the metrics log."""
    return {f"beside/{name}": n for name, n in records.get("beside", {}).items() if name != "weak"}


def pair_counts(pair_set: PairSet, kinds: Iterable[str]) -> list[dict[str, Any]]:
    """How many pairs of each kind there are, of how many tasks, and how far their rewards are apart."""
    counts = []
    for kind in kinds:
        pairs = [pair for pair in pair_set.pairs if pair.kind == kind]
        if not pairs:
            continue
        sides = [(pair_set.trajectories[p.chosen], pair_set.trajectories[p.rejected]) for p in pairs]
        gap = float(np.mean([chosen.reward - rejected.reward for chosen, rejected in sides]))
        tasks = len({pair.task_id for pair in pairs})
        count = {"kind": kind, "count": len(pairs), "tasks": tasks, "mean_reward_gap": gap}
        counts.append(count | _turn_counts(pair_set, pairs))
    return counts


def _turn_counts(pair_set: PairSet, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """How many pairs count from which turn of their rejected side, where some do not from the first.

    Critical is a turn of a rejected side from which a pair counts; the share is of all turns of these sides.
    """
    if not any(pair.chosen_from or pair.rejected_from for pair in pairs):
        return {}
    by_turn = Counter(pair.rejected_from for pair in pairs)
    sides = {pair.rejected for pair in pairs}
    turns = sum(len(turn_starts(pair_set.trajectories[side])) for side in sides)
    critical = len({(pair.rejected, pair.rejected_from) for pair in pairs})
    return {
        "by_turn": {str(turn): by_turn[turn] for turn in sorted(by_turn)},
        "critical_turn_share": critical / turns,
    }


def imitated_counts(extras: Iterable[Extra]) -> dict[str, Any]:
    """Of what is imitated with weights of turns: how much, and the turns of weight 0."""
    turns = [extra.turns for extra in extras]
    left_out = sum(own.count(0.0) for own in turns if own is not None)
    weighed = sum(own is not None for own in turns)
    counts = {"trajectories": len(turns), "weighed": weighed, "turns_left_out": left_out}
    return {"imitated": counts} if weighed else {}


def mark_counts(pair_set: PairSet, extras: Iterable[Extra]) -> list[dict[str, Any]]:
    """How many trajectories are imitated under each mark; none where no mark is learned."""
    imitated: dict[str, list[Trajectory]] = {}
    for trajectory in (pair_set.trajectories[one.trajectory] for one in extras):
        imitated.setdefault(trajectory.mark, []).append(trajectory)
    return [
        {
            "mark": mark,
            "count": len(own),
            "tasks": len({one.task_id for one in own}),
            "mean_reward": float(np.mean([one.reward for one in own])),
        }
        for mark, own in sorted(imitated.items(), key=lambda both: -max(one.reward for one in both[1]))
        if set(imitated) != {""}
    ]


def kind_words(count: dict[str, Any]) -> str:
    """How many pairs of a kind there are, for people, who count turns from 1."""
    by_turn = count.get("by_turn", {})
    turns = ", ".join(f"{pairs} from turn {int(turn) + 1}" for turn, pairs in by_turn.items())
    return f"{count['count']} {count['kind']}" + (f" ({turns})" if turns else "")


def imitated_words(records: dict[str, Any]) -> list[str]:
    """What is imitated with weights of turns, for people; none where nothing is."""
    counts = records.get("imitated")
    if counts is None:
        return []
    return [f"{counts['trajectories']} imitated without {counts['turns_left_out']} of their turns"]


def noted_words(noted: dict[str, dict[str, int]]) -> list[str]:
    """What imitation builders met, for people."""
    return [
        f"{source}: {', '.join(f'{count} {what}' for what, count in met.items())}"
        for source, met in noted.items()
    ]


def mark_words(marks: Iterable[dict[str, Any]]) -> str:
    """The same for people; "" without marks."""
    return ", ".join(f"{one['count']} under {one['mark']!r}" for one in marks)
