"""Why environments broke: the reasons of a set of roll-outs, with how often and where first."""

from collections.abc import Iterable, Sequence
from typing import TypedDict

from coevo_jax.trajectory import Ending, Trajectory

MOST_REASONS = 5
LONGEST_REASON = 200  # characters


class FaultReason(TypedDict):
    """One reason for which environments broke."""

    reason: str
    count: int
    first: str  # task and sample


def fault_reasons(trajectories: Iterable[Trajectory]) -> list[FaultReason]:
    """The most frequent reasons of faults; those that begin with the same line are one."""
    found: dict[str, FaultReason] = {}
    for one in trajectories:
        if one.ending is Ending.FAULT:
            reason = (one.fault.strip().splitlines() or ["unknown"])[0][:LONGEST_REASON]
            place = f"{one.task_id}, sample {one.sample}"
            found.setdefault(reason, FaultReason(reason=reason, count=0, first=place))["count"] += 1
    return sorted(found.values(), key=lambda entry: -entry["count"])[:MOST_REASONS]


def reason_words(reasons: Sequence[FaultReason]) -> str:
    """The reasons in words: "11 times KeyError: 'x' (first: train/3, sample 0)"."""
    return "; ".join(
        f"{one['count']} {'time' if one['count'] == 1 else 'times'} {one['reason']} (first: {one['first']})"
        for one in reasons
    )
