"""How a data set looks in a terminal: tables of its numbers, and samples as dialogues."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coevo_jax.data.interchange.records import Conversation, Message, Record, Speaker, TextPair
from coevo_jax.data.interchange.set_summary import SetSummary, learned_words, solved_share
from coevo_jax.trajectory import Trajectory

MOST_ROWS = 20
LONGEST_MESSAGE = 280  # characters shown of a sample's message
MOST_MESSAGES = 8
STYLES = {Speaker.HUMAN: "cyan", Speaker.GPT: "green"}
BAR = 20


def print_summary(console: Console, name: str, format: str, summary: SetSummary, broken: int) -> None:
    """All tables of a set, then its samples."""
    ids = f", {len(summary.ids)} ids" if len(summary.ids) != summary.rows else ""
    head = Text.assemble((name, "bold"), f"  {format}, {summary.rows} rows{ids}")
    if broken:
        head.append(f", {broken} broken rows left out", "bold red")
    console.print(head, soft_wrap=True)
    if not summary.rows:
        return
    console.print(_lengths(summary))
    if summary.rewards:
        console.print(_rewards(summary))
    if len(summary.families) > 1:
        console.print(_families(summary))
    for title, counts in summary.counts.items():
        if len(counts) > 1 or title == "endings":
            console.print(_counted(title, counts))
    for layout, kind in summary.learned.items():
        console.print(Text(learned_words(layout, kind)))
    for note, count in summary.notes.items():
        if count:
            console.print(Text.assemble((f"{count:>8}", "yellow"), f"  {note}"))
    for number, record in enumerate(summary.samples):
        console.print(_sample(number, record))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table


def _lengths(summary: SetSummary) -> Table:
    table = _table("Lengths per row", ("", "min", "median", "mean", "95 %", "max", "total"))
    for name, numbers in summary.lengths.items():
        values = np.array(numbers)
        places = np.percentile(values, [50, 95])
        table.add_row(
            name,
            f"{values.min():,}",
            f"{places[0]:,.0f}",
            f"{values.mean():,.1f}",
            f"{places[1]:,.0f}",
            f"{values.max():,}",
            f"{values.sum():,}",
        )
    return table


def _rewards(summary: SetSummary) -> Table:
    rewards = np.array(summary.rewards)
    title = f"Rewards: mean {rewards.mean():.3f}, solved {solved_share(summary.rewards):.1%}"
    if summary.without_reward:
        title += f", {summary.without_reward} rows without one"
    table = _table(title, ("reward", "rows", "share"))
    table.add_column("")
    edges = (0.0, 1e-9, 0.25, 0.5, 0.75, 1.0, np.inf)
    names = ("0", "0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 1", "1")
    for name, low, high in zip(names, edges, edges[1:], strict=False):
        count = int(((rewards >= low) & (rewards < high)).sum())
        share = count / len(rewards)
        table.add_row(name, f"{count:,}", f"{share:.1%}", Text("█" * round(BAR * share), "green"))
    return table


def _families(summary: SetSummary) -> Table:
    families = sorted(summary.families.items(), key=lambda item: (-item[1].rows, item[0]))
    table = _table(f"Families ({len(families)})", ("family", "rows", "turns", "reward", "solved"))
    for name, family in families[:MOST_ROWS]:
        rewards = family.rewards
        table.add_row(
            Text(name),
            f"{family.rows:,}",
            f"{family.turns / family.rows:.1f}",
            f"{np.mean(rewards):.3f}" if rewards else "–",
            f"{solved_share(rewards):.1%}" if rewards else "–",
        )
    if len(families) > MOST_ROWS:
        rest = [family for _, family in families[MOST_ROWS:]]
        table.add_row(f"… {len(rest)} more", f"{sum(family.rows for family in rest):,}", "", "", "")
    return table


def _counted(title: str, counts: Counter[str]) -> Table:
    table = _table(title.capitalize(), (title, "rows"))
    for value, count in counts.most_common(MOST_ROWS):
        table.add_row(Text(value), f"{count:,}")
    return table


def _sample(number: int, record: Record) -> Panel:
    if isinstance(record, Conversation):
        reward = "" if record.reward is None else f", reward {record.reward:.3g}"
        title = f"row {number}: {record.id}{reward}"
        body = _dialogue(record.messages, record.system_prompt)
    elif isinstance(record, TextPair):
        title = f"pair {number}: {record.id}"
        body = Group(
            _dialogue(record.prompt, record.system_prompt),
            Text("chosen", "bold green"),
            _dialogue(record.chosen),
            Text("rejected", "bold red"),
            _dialogue(record.rejected),
        )
    else:
        title = (
            f"trajectory {number}: {record.task_id}, {record.agent}, sample {record.sample}, "
            f"{record.ending.value}, reward {record.reward:.3g}, {len(record.tokens)} tokens"
        )
        body = _dialogue(_messages(record))
    return Panel(body, title=Text(title), title_align="left", border_style="dim")


def _messages(trajectory: Trajectory) -> list[Message]:
    messages = [Message(speaker=Speaker.HUMAN, text=trajectory.prompt)]
    for turn in trajectory.turns:
        messages.append(Message(speaker=Speaker.GPT, text=turn.response))
        messages.append(Message(speaker=Speaker.HUMAN, text=turn.observation))
    return messages


def _dialogue(messages: Sequence[Message], system_prompt: str = "") -> Table:
    """One row a message, the speaker on the left; the middle of a long dialogue is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=6)
    grid.add_column(overflow="fold")
    if system_prompt:
        grid.add_row(Text("system", "bold magenta"), _cut(system_prompt))
    hidden = range(MOST_MESSAGES - 2, len(messages) - 2) if len(messages) > MOST_MESSAGES + 1 else range(0)
    for index, message in enumerate(messages):
        if hidden and index == hidden.start:
            grid.add_row("", Text(f"… {len(hidden)} messages …", "dim"))
        if index in hidden:
            continue
        word = f"{message.speaker.value}*" if message.skipped else message.speaker.value
        grid.add_row(Text(word, f"bold {STYLES[message.speaker]}"), _cut(message.text))
    return grid


def _cut(text: str) -> Text:
    return Text(text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + " …")
