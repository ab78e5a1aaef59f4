"""Statistics of a data set, collected row by row, so that a set of any size can be read."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.data.interchange.pairs import LABEL, is_invented, prompt_text
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
class Learned:
    """Counts of what imitation learns from the rows of one layout; a pair is imitated by its chosen side."""

    rows: int = 0
    spoken: int = 0  # messages of the agent
    learned: int = 0  # of them
    compared: int = 0  # messages of the agent in rejected sides


@dataclass
class SetSummary:
    """The statistics of a data set; `lengths` holds, by name, one number per row."""

    rows: int = 0
    ids: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    rewards: list[float] = field(default_factory=list)
    without_reward: int = 0
    families: dict[str, Family] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # by title: how often each value stands
    notes: Counter[str] = field(default_factory=Counter)  # what is allowed, and worth a look
    learned: dict[str, Learned] = field(default_factory=dict)  # by how the file has the rows
    prompts: dict[str, int] = field(default_factory=dict)  # by id: a hash of the first prompt
    samples: list[Record] = field(default_factory=list)


def summarize_records(records: Iterable[tuple[str, Record]], samples: int) -> SetSummary:
    """Collect the statistics of a set, and its first `samples` rows."""
    summary = SetSummary()
    for _, record in records:
        summary.rows += 1
        if len(summary.samples) < samples:
            summary.samples.append(record)
        _count(summary, record)
    if repeated := sum(count > 1 for count in summary.ids.values()):
        summary.notes["ids with several rows"] = repeated
    return summary


def learned_words(layout: str, kind: Learned) -> str:
    """One line about the rows of a layout."""
    words = f"{kind.rows} rows of {layout}: {kind.learned} of the agent's {kind.spoken} messages are learned"
    return f"{words}, {kind.compared} of rejected sides only compared" if kind.compared else words


def _count(summary: SetSummary, record: Record) -> None:
    if isinstance(record, Conversation):
        _conversation(summary, record)
    elif isinstance(record, TextPair):
        _pair(summary, record)
    else:
        _trajectory(summary, record)


def _conversation(summary: SetSummary, row: Conversation) -> None:
    characters, said, spoken, skipped, plain, empty, keyed = 0, 0, 0, 0, 0, 0, 0
    agent = Speaker.GPT
    for message in row.messages:
        text = message.text
        characters += len(text)
        if not text or text.isspace():
            empty += 1
        if message.extra is not None:
            keyed += 1
        if message.speaker is agent:
            spoken += 1
            said += len(text)
            skipped += message.skipped
            plain += "Action:" not in text
    _length(summary, "turns", spoken)
    _length(summary, "characters", characters + len(row.system_prompt))
    _length(summary, "characters of the agent", said)
    _system_prompt(summary, row.system_prompt)
    below = row.reward is not None and row.reward < SOLVED_REWARD and row.extra.get(LABEL) is not False
    found = {
        "messages not learned from (by a flag, a label or as part of a prompt)": skipped,
        "rows from which nothing is learned": skipped == spoken,
        'agent\'s messages without "Action:"': plain,
        "empty messages": empty,
        "conversations that the agent begins": row.messages[0].speaker is Speaker.GPT,
        "messages with other keys, which are kept and not learned from": keyed,
        "rows with a reward below 1, which are learned from all the same": below,
    }
    for note, count in found.items():
        if count:
            summary.notes[note] += count
    _learned(summary, row.layout or "conversations", spoken, spoken - skipped)
    _reward(summary, row.reward)
    _row(summary, row, row.messages, spoken, row.reward)


def _pair(summary: SetSummary, row: TextPair) -> None:
    for name, side in (("chosen", row.chosen), ("rejected", row.rejected)):
        _length(summary, f"turns, {name}", len(_spoken(side)))
        _length(summary, f"characters, {name}", _characters(side))
    _length(summary, "characters, prompt", _characters(row.prompt) + len(row.system_prompt))
    _system_prompt(summary, row.system_prompt)
    same = row.chosen[: len(row.rejected)] == row.rejected
    summary.notes["rejected side is a part of the chosen one"] += same
    spoken = _spoken(row.prompt + row.chosen)
    learned = sum(not message.skipped for message in spoken)
    compared = len(_spoken(row.rejected))
    _learned(summary, row.layout or "pairs", len(spoken), learned, compared)
    _row(summary, row, row.prompt, len(_spoken(row.chosen)), None)


def _trajectory(summary: SetSummary, row: Trajectory) -> None:
    _length(summary, "turns", len(row.turns))
    _length(summary, "tokens", len(row.tokens))
    _length(summary, "tokens of the agent", int(row.agent_mask.sum()))
    summary.counts.setdefault("endings", Counter())[row.ending.value] += 1
    summary.counts.setdefault("agents", Counter())[row.agent] += 1
    _learned(summary, "trajectories", len(row.turns), len(row.turns) if row.agent_mask.any() else 0)
    _reward(summary, row.reward)
    _family(summary, row.task_id, {}, len(row.turns), row.reward)


def _learned(summary: SetSummary, layout: str, spoken: int, learned: int, compared: int = 0) -> None:
    kind = summary.learned.setdefault(layout, Learned())
    kind.rows += 1
    kind.spoken += spoken
    kind.learned += learned
    kind.compared += compared


def _row(
    summary: SetSummary,
    row: Conversation | TextPair,
    heard: Iterable[Message],
    turns: int,
    reward: float | None,
) -> None:
    """Count what rows of text have in common: an id, a prompt and other keys."""
    prompt = prompt_text(heard)
    mark = hash(prompt)
    if is_invented(row.id, prompt):
        summary.notes["rows without an id, which their prompt names"] += 1
    if summary.prompts.setdefault(row.id, mark) != mark:
        summary.notes["rows whose id stands for another prompt, too: never compared with that one's"] += 1
    if row.extra.get("tools"):
        summary.notes["rows with descriptions of tools, which are kept and not shown to the agent"] += 1
    _family(summary, row.id, row.extra, turns, reward)


def _spoken(messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if message.speaker is Speaker.GPT]


def _characters(messages: Iterable[Message]) -> int:
    return sum(len(message.text) for message in messages)


def _length(summary: SetSummary, name: str, number: int) -> None:
    summary.lengths.setdefault(name, []).append(number)


def _system_prompt(summary: SetSummary, text: str) -> None:
    first = text.strip().split("\n")[0][:60] or "(none)"
    summary.counts.setdefault("system prompts", Counter())[first] += 1


def _reward(summary: SetSummary, reward: float | None) -> None:
    if reward is None:
        summary.without_reward += 1
    else:
        summary.rewards.append(reward)


def _family(
    summary: SetSummary, row_id: str, extra: dict[str, Any], turns: int, reward: float | None
) -> None:
    summary.ids[row_id] += 1
    name = family_of(row_id, extra)
    family = summary.families.get(name)
    if family is None:
        name = OTHER if len(summary.families) >= MOST_FAMILIES else name
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
    """The share of rewards that count as solved; 0 where there are none."""
    return sum(reward >= SOLVED_REWARD for reward in rewards) / max(len(rewards), 1)
