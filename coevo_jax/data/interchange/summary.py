"""What a set holds, in numbers: collected row by row, so that a set of any size can be looked at."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.data.interchange.records import Conversation, Message, Record, Speaker, TextPair
from coevo_jax.trajectory import SOLVED_REWARD, Trajectory

OTHER = "(others)"
MOST_FAMILIES = 1000  # beyond, ids are no families


@dataclass
class Family:
    """Rows of one family of tasks."""

    rows: int = 0
    turns: int = 0
    rewards: list[float] = field(default_factory=list)


@dataclass
class Summary:
    """Numbers of a set. `lengths` holds, by name, one number per row."""

    rows: int = 0
    ids: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    rewards: list[float] = field(default_factory=list)
    without_reward: int = 0
    families: dict[str, Family] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # by title: how often each value stands
    notes: Counter[str] = field(default_factory=Counter)  # what is allowed, and worth a look
    samples: list[Record] = field(default_factory=list)


def summarize_records(records: Iterable[tuple[str, Record]], samples: int) -> Summary:
    """Collect the numbers of a set, and its first `samples` rows."""
    summary = Summary()
    for _, record in records:
        summary.rows += 1
        if len(summary.samples) < samples:
            summary.samples.append(record)
        _count(summary, record)
    if repeated := sum(count > 1 for count in summary.ids.values()):
        summary.notes["ids with several rows"] = repeated
    return summary


def _count(summary: Summary, record: Record) -> None:
    if isinstance(record, Conversation):
        _conversation(summary, record)
    elif isinstance(record, TextPair):
        _pair(summary, record)
    else:
        _trajectory(summary, record)


def _conversation(summary: Summary, row: Conversation) -> None:
    spoken = [message for message in row.messages if message.speaker is Speaker.GPT]
    _length(summary, "turns", len(spoken))
    _length(summary, "characters", _characters(row.messages) + len(row.system_prompt))
    _length(summary, "characters of the agent", _characters(spoken))
    _system_prompt(summary, row.system_prompt)
    summary.notes["messages not learned from (loss: false)"] += sum(message.skipped for message in spoken)
    summary.notes['agent\'s messages without "Action:"'] += sum("Action:" not in m.text for m in spoken)
    summary.notes["empty messages"] += sum(not message.text.strip() for message in row.messages)
    summary.notes["conversations that the agent begins"] += row.messages[0].speaker is Speaker.GPT
    _reward(summary, row.reward)
    _family(summary, row.id, row.extra, len(spoken), row.reward)


def _pair(summary: Summary, row: TextPair) -> None:
    for name, side in (("chosen", row.chosen), ("rejected", row.rejected)):
        _length(summary, f"turns, {name}", sum(message.speaker is Speaker.GPT for message in side))
        _length(summary, f"characters, {name}", _characters(side))
    _length(summary, "characters, prompt", _characters(row.prompt) + len(row.system_prompt))
    _system_prompt(summary, row.system_prompt)
    same = row.chosen[: len(row.rejected)] == row.rejected
    summary.notes["rejected side is a part of the chosen one"] += same
    turns = sum(message.speaker is Speaker.GPT for message in row.chosen)
    _family(summary, row.id, row.extra, turns, None)


def _trajectory(summary: Summary, row: Trajectory) -> None:
    _length(summary, "turns", len(row.turns))
    _length(summary, "tokens", len(row.tokens))
    _length(summary, "tokens of the agent", int(row.agent_mask.sum()))
    summary.counts.setdefault("endings", Counter())[row.ending.value] += 1
    summary.counts.setdefault("agents", Counter())[row.agent] += 1
    _reward(summary, row.reward)
    _family(summary, row.task_id, {}, len(row.turns), row.reward)


def _characters(messages: Iterable[Message]) -> int:
    return sum(len(message.text) for message in messages)


def _length(summary: Summary, name: str, number: int) -> None:
    summary.lengths.setdefault(name, []).append(number)


def _system_prompt(summary: Summary, text: str) -> None:
    first = text.strip().split("\n")[0][:60] or "(none)"
    summary.counts.setdefault("system prompts", Counter())[first] += 1


def _reward(summary: Summary, reward: float | None) -> None:
    if reward is None:
        summary.without_reward += 1
    else:
        summary.rewards.append(reward)


def _family(summary: Summary, row_id: str, extra: dict[str, Any], turns: int, reward: float | None) -> None:
    summary.ids[row_id] += 1
    name = family_of(row_id, extra)
    if name not in summary.families and len(summary.families) >= MOST_FAMILIES:
        name = OTHER
    family = summary.families.setdefault(name, Family())
    family.rows += 1
    family.turns += turns
    if reward is not None:
        family.rewards.append(reward)


def family_of(row_id: str, extra: dict[str, Any]) -> str:
    """The family a row names, else what its id begins with: "find-animal/17" and "webshop_17" have one."""
    named = extra.get("family")
    if isinstance(named, str) and named:
        return named
    return re.sub(r"[/_:-]?[^/]*$" if "/" in row_id else r"[_:-]?\d+$", "", row_id) or "(no family)"


def solved_share(rewards: list[float]) -> float:
    """Share of rewards that say solved; 0 of none."""
    return sum(reward >= SOLVED_REWARD for reward in rewards) / max(len(rewards), 1)
