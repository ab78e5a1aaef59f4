"""Data sets of any format by one interface: open and guess the format, read row by row."""

import difflib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.data.formats import FORMATS, TFDS_EXPERTS, TFDS_TRAJECTORIES, TRAJECTORIES
from coevo_jax.data.interchange.json_rows import JsonRow, is_packed, json_rows
from coevo_jax.data.interchange.layouts import LAYOUTS, guess_layout, parse_row
from coevo_jax.data.interchange.pairs import INVENTED, is_invented, prompt_text
from coevo_jax.data.interchange.records import Conversation, Message, Record, Speaker, TextPair
from coevo_jax.data.parquet import checked_rows, is_trajectory_file
from coevo_jax.trajectory import Trajectory

KINDS: dict[str, type[Record]] = {
    **{name: layout.kind for name, layout in LAYOUTS.items()},
    TRAJECTORIES: Trajectory,
    TFDS_EXPERTS: Conversation,
    TFDS_TRAJECTORIES: Trajectory,
}
PARQUET_MAGIC = b"PAR1"
LOOKED_AT = 20  # rows whose keys may tell the format
SHOWN_PROBLEMS = 20
OnError = Literal["refuse", "skip"]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class SetOutcome:
    """The result of reading one row: a record, or a problem."""

    where: str  # file and place in it
    done: int  # in the unit of the set's total
    record: Record | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """An opened set; `outcomes` can be read once."""

    name: str
    format: str  # one of FORMATS
    total: int | None  # bytes of a JSON file, rows of anything else; None where unknown
    outcomes: Iterator[SetOutcome]


class Problems:
    """Collects what is wrong with rows, or refuses the set at the first of them."""

    def __init__(self, on_error: OnError, most: int = SHOWN_PROBLEMS) -> None:
        self._on_error, self._most = on_error, most
        self.count = 0
        self.first: list[str] = []

    def report(self, where: str, problem: str) -> None:
        """Note a row that is left out.

        Raises:
          ConfigError: the user chose to refuse the set at the first such row.
        """
        if self._on_error == "refuse":
            raise ConfigError(f"{where}: {problem}")
        self.count += 1
        if len(self.first) < self._most:
            self.first.append(f"{where}: {problem}")


def open_set(name: str, format: str | None = None, split: str | None = None) -> DataSet:
    """Open a file, a folder or a hub set; without a format its content tells it.

    `name` is a path or `hub:owner/name`. `split` chooses among the splits of a hub set, a folder that
    `datasets` opens, or a TFDS set; None takes train, or the only one.

    Raises:
      ConfigError: the set is missing, cannot be read or is in no known format.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(
            f"format: found {format!r}, expected one of {', '.join(FORMATS)}{nearest(format, FORMATS)}"
        )
    path = Path(name)
    if name.startswith("hub:"):
        return _table(name, format, split)
    if not path.exists():
        raise ConfigError(f"{name}: no such file or folder{_nearest_path(path)}")
    if path.is_file():
        if is_trajectory_file(path):
            return _trajectories(name, [path], format)
        with path.open("rb") as handle:
            is_parquet = handle.read(4) == PARQUET_MAGIC
        return _table(name, format, split) if is_parquet else _json(path, format)
    shards = sorted(path.glob("*.parquet"))
    if shards and is_trajectory_file(shards[0]):
        return _trajectories(name, shards, format)
    if any(path.glob("*.json")) or any(path.glob("*/*.json")) or any(path.glob("*/*/*.json")):
        from coevo_jax.data.interchange.tfds_sets import (
            find_set,
        )  # TensorFlow Datasets takes a second to load

        folder = find_set(path)
        if folder is not None:
            return _tfds(name, folder, format, split)
    return _table(name, format, split)


def read_records(
    opened: DataSet, problems: Problems, on_progress: Progress = lambda done, total: None
) -> Iterator[tuple[str, Record]]:
    """Yield (where, record) for every good row; a row equal to an earlier one counts as a problem."""
    seen: dict[bytes, str] = {}
    for outcome in opened.outcomes:
        on_progress(outcome.done, opened.total)
        if outcome.record is None:
            problems.report(outcome.where, outcome.problem or "no row")
            continue
        mark = _fingerprint(outcome.record)
        if mark is not None and mark in seen:
            problems.report(outcome.where, f"the same as {seen[mark]}")
            continue
        if mark is not None:
            seen[mark] = outcome.where.removeprefix(f"{opened.name}: ")
        yield outcome.where, outcome.record


def _fingerprint(record: Record) -> bytes | None:
    """What equal rows share; None for a row that came without an id, of which there may be several."""
    if _is_unnamed(record):
        return None
    if isinstance(record, Trajectory):
        content: Any = (
            record.task_id, record.agent, record.sample, record.prompt, record.turns, record.reward
        )  # fmt: skip
    elif isinstance(record, Conversation):
        content = (record.id, record.system_prompt, _said(record.messages), record.reward, record.extra)
    else:
        sides = (_said(record.prompt), _said(record.chosen), _said(record.rejected))
        content = (record.id, record.system_prompt, sides, record.extra)
    return blake2b(repr(content).encode(), digest_size=16).digest()


def _is_unnamed(record: Record) -> bool:
    """Whether a record's id was made from its prompt."""
    if isinstance(record, Trajectory):
        return is_invented(record.task_id, record.prompt)
    messages = record.prompt if isinstance(record, TextPair) else record.messages
    return record.id.startswith(INVENTED) and is_invented(record.id, prompt_text(messages))


def _said(messages: tuple[Message, ...]) -> list[tuple[bool, bool, str, Any]]:
    agent = Speaker.GPT
    return [(m.speaker is agent, m.skipped, m.text, m.extra) for m in messages]


def _json(path: Path, format: str | None) -> DataSet:
    total = None if is_packed(path) else path.stat().st_size
    return _of_rows(str(path), ((str(path), row) for row in json_rows(path)), total, format)


def _table(name: str, format: str | None, split: str | None) -> DataSet:
    from coevo_jax.data.interchange.tables import open_table  # `datasets` takes a second to load

    table = open_table(name, split)
    return _of_rows(name, table.rows, table.total, format)


def _of_rows(
    name: str, rows: Iterator[tuple[str, JsonRow]], total: int | None, format: str | None
) -> DataSet:
    """A set of rows as JSON has them, each with its file.

    Every row is read by its own keys; with a format, rows must hold what it holds.
    """
    parse = parse_row
    looked_at: list[tuple[str, JsonRow]] = []
    if format is None:
        refused = ""
        for source, row in itertools.islice(rows, LOOKED_AT):
            looked_at.append((source, row))
            try:
                format = guess_layout(row.value)
            except ValueError as error:
                refused = refused or f"{source}: {row.where}: {error}"
            if format is not None:
                break
        if format is None:
            raise ConfigError(refused or _unknown_layout(name, [row for _, row in looked_at]))
    elif format in LAYOUTS:
        parse = LAYOUTS[format].parse
    else:
        raise ConfigError(f"{name}: found rows of text, expected {format}")

    def outcomes() -> Iterator[SetOutcome]:
        for source, row in itertools.chain(looked_at, rows):
            problem, record = row.problem, None
            if problem is None:
                try:
                    record = parse(row.value, row.index)
                except ValueError as error:
                    problem = str(error)
            yield SetOutcome(where=f"{source}: {row.where}", done=row.done, record=record, problem=problem)

    return DataSet(name=name, format=format, total=total, outcomes=outcomes())


def _unknown_layout(name: str, rows: list[JsonRow]) -> str:
    if not rows:
        return f"{name}: found no rows, expected at least one"
    expected = "'conversations', 'messages', or 'prompt', 'chosen' and 'rejected'"
    broken = next((f"{row.where}: {row.problem}" for row in rows if row.problem), None)
    keys = next((", ".join(list(row.value)[:12]) for row in rows if isinstance(row.value, dict)), None)
    if keys is not None:
        return f"{name}: unknown format: found the keys {keys}, expected {expected}"
    if broken is not None:
        return f"{name}: {broken}"
    kind = type(rows[0].value).__name__
    return f"{name}: {rows[0].where}: found a {kind}, expected an object with the keys {expected}"


def _trajectories(name: str, paths: list[Path], format: str | None) -> DataSet:
    if format not in (None, TRAJECTORIES):
        raise ConfigError(f"{name}: found a file of trajectories, expected {format}")

    def outcomes() -> Iterator[SetOutcome]:
        for path in paths:
            for index, row in enumerate(checked_rows(path)):
                where = f"{path}: row {index}"
                broken = isinstance(row, ValueError)
                yield SetOutcome(
                    where=where,
                    done=index + 1,
                    record=None if broken else row,
                    problem=str(row) if broken else None,
                )

    return DataSet(name=name, format=TRAJECTORIES, total=None, outcomes=outcomes())


def _tfds(name: str, folder: Path, format: str | None, split: str | None) -> DataSet:
    from coevo_jax.data.interchange import tfds_sets

    builder, rows = tfds_sets.open_set(folder, split)
    formats = {tfds_sets.EXPERTS: TFDS_EXPERTS, tfds_sets.TRAJECTORIES: TFDS_TRAJECTORIES}
    if builder not in formats:
        raise ConfigError(f"{folder}: found the TFDS set {builder!r}, expected one of {', '.join(formats)}")
    if format not in (None, formats[builder]):
        raise ConfigError(f"{name}: found {formats[builder]}, expected {format}")

    def outcomes() -> Iterator[SetOutcome]:
        for index in range(len(rows)):
            where = f"{name}: row {index}"
            try:
                record = tfds_sets.READERS[builder](rows[index])
            except (ValueError, KeyError, TypeError) as error:
                yield SetOutcome(where=where, done=index + 1, problem=f"broken row: {error}")
            else:
                yield SetOutcome(where=where, done=index + 1, record=record)

    return DataSet(name=name, format=formats[builder], total=len(rows), outcomes=outcomes())


def _nearest_path(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist)"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    if close:
        return f" (did you mean {path.parent / close[0]}?)"
    return "; a set of the Hugging Face hub is named hub:owner/name"
