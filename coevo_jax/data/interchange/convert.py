"""Conversion of records between kinds, as far as their information allows, and into files."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.data.chat.format import ChatFormat, render
from coevo_jax.data.interchange.json_rows import write_json
from coevo_jax.data.interchange.layouts import LAYOUTS
from coevo_jax.data.interchange.pairs import chosen_side, pair_up
from coevo_jax.data.interchange.records import (
    Conversation,
    Record,
    TextPair,
    from_trajectory,
    to_demonstration,
)
from coevo_jax.data.interchange.sets import (
    FORMATS,
    KINDS,
    TFDS_EXPERTS,
    TFDS_TRAJECTORIES,
    TRAJECTORIES,
    Problems,
    open_set,
    read_records,
)
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.files import write_parts
from coevo_jax.trajectory import SOLVED_REWARD, Ending, Trajectory

R = TypeVar("R", bound=Record)
Placed = Iterable[tuple[str, R]]
SUFFIXES = (".json", ".jsonl", ".parquet")


@dataclass
class Count:
    """A counter of the records that pass through it."""

    records: int = 0

    def each(self, records: Iterable[R]) -> Iterator[R]:
        """Pass records on, counting them."""
        for record in records:
            self.records += 1
            yield record


def as_conversations(
    records: Placed[Record], system_prompt: str, problems: Problems
) -> Iterator[tuple[str, Conversation]]:
    """The conversations in records of any kind; `system_prompt` is put where a record has none."""
    for where, record in records:
        if isinstance(record, TextPair):
            record = chosen_side(record)
        elif isinstance(record, Trajectory):
            try:
                record = from_trajectory(record, system_prompt)
            except ValueError as error:
                problems.report(where, str(error))
                continue
        if system_prompt and not record.system_prompt:
            record = replace(record, system_prompt=system_prompt)
        yield where, record


def as_pairs(records: Placed[Record], system_prompt: str, problems: Problems) -> Iterator[TextPair]:
    """The pairs in records: those that are pairs, and the best conversation of a task over its worse ones."""
    conversations = []
    for where, record in records:
        if isinstance(record, TextPair):
            yield replace(record, system_prompt=record.system_prompt or system_prompt)
        else:
            conversations += [
                found for _, found in as_conversations([(where, record)], system_prompt, problems)
            ]
    yield from pair_up(conversations)


def as_trajectories(
    records: Placed[Record], system_prompt: str, problems: Problems, chat: ChatFormat | None
) -> Iterator[Trajectory]:
    """The trajectories in records; text is rendered to tokens by `chat`, as an expert's is.

    Raises:
      ConfigError: there is text but no chat format.
    """
    for where, record in records:
        if isinstance(record, Trajectory):
            yield record
            continue
        if chat is None:
            raise ConfigError(
                f"{where}: found text, but trajectories hold tokens; expected --tokenizer FOLDER"
            )
        for _, conversation in as_conversations([(where, record)], system_prompt, problems):
            yield render_conversation(chat, conversation, conversation.system_prompt)


def read_conversations(
    name: str, format: str | None, split: str | None, problems: Problems
) -> list[Conversation]:
    """Read a whole set as conversations: pairs give their chosen side, trajectories their text.

    Raises:
      ConfigError: nothing usable is in it.
    """
    opened = open_set(name, format, split)
    conversations = [record for _, record in as_conversations(read_records(opened, problems), "", problems)]
    if not conversations:
        first = f" (first: {problems.first[0]})" if problems.first else ""
        raise ConfigError(f"{name}: found no usable row; {problems.count} were left out{first}")
    return conversations


def render_conversation(chat: ChatFormat, conversation: Conversation, system_prompt: str) -> Trajectory:
    """A conversation as a trajectory under the given system prompt; the agent is the expert if none is named.

    `agent_mask` is False on the turns that are not to be learned from; log-probabilities are 0.
    """
    demonstration, learned = to_demonstration(conversation)
    tokens, agent_mask = render(chat, system_prompt, demonstration.prompt, demonstration.turns, learned)
    agent, sample = (conversation.extra.get(key) for key in ("agent", "sample"))
    return Trajectory(
        task_id=demonstration.task_id,
        agent=agent if isinstance(agent, str) else "expert",
        sample=sample if isinstance(sample, int) else 0,
        prompt=demonstration.prompt,
        turns=demonstration.turns,
        reward=demonstration.reward,
        ending=Ending.SOLVED if demonstration.reward >= SOLVED_REWARD else Ending.FAILED,
        tokens=tokens,
        agent_mask=agent_mask,
        logps=np.zeros(len(tokens), np.float32),
    )


def convert(
    records: Placed[Record],
    out: Path,
    format: str,
    *,
    problems: Problems,
    split: str = "train",
    system_prompt: str = "",
    chat: ChatFormat | None = None,
) -> tuple[Path, int]:
    """Write records in a format; returns what was written, and how many rows it holds.

    JSON files and tables are written row by row; nothing appears under the name before all is well.

    Raises:
      ConfigError: the name is unusable, the result is empty, or text is to become tokens without a chat
        format.
    """
    check_target(out, format)
    count = Count()
    kind = KINDS[format]
    converted: Iterator[Any]
    if kind is TextPair:
        converted = as_pairs(records, system_prompt, problems)
    elif kind is Trajectory:
        converted = as_trajectories(records, system_prompt, problems, chat)
    else:
        converted = (found for _, found in as_conversations(records, system_prompt, problems))
    path = WRITERS.get(format, _write_rows)(
        out, count.each(_some(converted, out, format, problems)), format, split
    )
    return path, count.records


def check_target(out: Path, format: str) -> None:
    """Refuse a name that the format cannot be written to.

    Raises:
      ConfigError: there is no such format, or the name has another ending, or is a folder where a file is
        expected or the other way round.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"format: found {format!r}, expected one of {', '.join(FORMATS)}{nearest(format, FORMATS)}"
        )
    suffixes = () if format in (TFDS_EXPERTS, TFDS_TRAJECTORIES) else SUFFIXES
    if format == TRAJECTORIES:
        suffixes = (".parquet",)
    if suffixes and out.suffix not in suffixes:
        raise ConfigError(
            f"{out}: found the ending {out.suffix!r}, expected {' or '.join(suffixes)} for {format}"
        )
    if suffixes and out.is_dir():
        raise ConfigError(f"{out}: is a folder, expected the name of a file for {format}")
    if not suffixes and (out.is_file() or out.suffix in SUFFIXES):
        raise ConfigError(f"{out}: expected the name of a folder for {format}")


def _some(records: Iterator[R], out: Path, format: str, problems: Problems) -> Iterator[R]:
    """Pass records on; none at all is an error, so that no empty file replaces a good one."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        why = f"; {problems.count} rows were left out" if problems.count else ""
        if KINDS[format] is TextPair:
            why += " (pairs need two conversations of one task id and one prompt with different rewards)"
        raise ConfigError(f"{out}: nothing to write{why}")


def _write_rows(out: Path, records: Iterator[Any], format: str, split: str) -> Path:
    del split  # a file is one split
    rows = map(LAYOUTS[format].write, records)
    if out.suffix == ".parquet":
        from coevo_jax.data.interchange.tables import write_table  # `datasets` takes a second to load

        write_table(out, rows)
        return out
    return write_parts(out, write_json(rows, lines=out.suffix == ".jsonl"))


def _write_trajectories(out: Path, records: Iterator[Trajectory], format: str, split: str) -> Path:
    del format, split
    write_trajectories(out, records)
    return out


def _write_tfds(out: Path, records: Iterator[Any], format: str, split: str) -> Path:
    from coevo_jax.data.interchange import tfds_sets  # TensorFlow Datasets takes a second to load

    write = tfds_sets.write_experts if format == TFDS_EXPERTS else tfds_sets.write_trajectory_set
    return write(out, records, split)


WRITERS: dict[str, Callable[[Path, Iterator[Any], str, str], Path]] = {
    TRAJECTORIES: _write_trajectories,
    TFDS_EXPERTS: _write_tfds,
    TFDS_TRAJECTORIES: _write_tfds,
}
