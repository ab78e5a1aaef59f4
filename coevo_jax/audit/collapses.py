"""Which roll-outs show that an agent has collapsed, and by how many signs; how it is told is left alone."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Sign = tuple[int, str, str, int]  # round, agent, where, number of signs
FEW = 20  # fewer failures say nothing of their reward or diversity


def collapses(lead: str, *series: Sequence[Entry]) -> list[Sign]:
    """The signs in evaluations and explorations, each agent against its first and its last entry.

    All agents but the lead are there to fail: one with nothing left to fail is of no use any more.
    """
    found: list[Sign] = []
    for entries in series:
        first: dict[str, Entry] = {}
        last: dict[str, Entry] = {}
        for entry in entries:
            agent = entry["agent"]
            count = signs(entry, last.get(agent), first.get(agent), fails=agent != lead)
            where = entry.get("phase", f"evaluation on {entry.get('split')}").replace("_", " ")
            found += [(entry["round"], agent, where, count)] if count else []
            first.setdefault(agent, entry)
            last[agent] = entry
    return found


def told(listed: Sequence[Entry]) -> list[Sign]:
    """The same of what results.json lists."""
    return [(c["round"], c["agent"], c["why"].partition(": ")[0], c["why"].count("; ") + 1) for c in listed]


def signs(entry: Entry, before: Entry | None, first: Entry | None, *, fails: bool) -> int:
    """How many of the signs of a collapse a set of roll-outs shows.

    Args:
      fails: the agent is there to fail.
    """
    if not entry["finished"]:
        return 0
    failing = entry["failure_count"] >= FEW and first is not None
    distinct = entry["diversity"]["distinct_sequences"]
    shown = (
        _fell(entry, first),
        _fell(entry, before),
        failing and _defined(first, "mean_failure_reward") >= 0.05 and entry["mean_failure_reward"] < 0.01,
        fails and entry["success_rate"] > 0.95,
        entry["endings"]["token_limit"] / entry["finished"] > 0.25,
        failing and distinct < 0.05 and _defined(first and first["diversity"], "distinct_sequences") >= 0.15,
    )
    return sum(map(bool, shown))


def _fell(entry: Entry, before: Entry | None) -> bool:
    """The mean reward is below half of what it was, and was more than noise."""
    then = _defined(before, "mean_reward")
    return then >= 0.05 and entry["mean_reward"] < then / 2


def _defined(entry: Entry | None, name: str) -> float:
    """A number, or one below every bound where there is none."""
    value = None if entry is None else entry[name]
    return -1.0 if value is None else value
