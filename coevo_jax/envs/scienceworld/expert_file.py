"""The file of expert solutions: JSON lines, a header and then one row per task.

A task whose gold paths all failed has a row too, with the reason, so that it is not tried again.
"""

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from coevo_jax.config.strict import ConfigError, StrictModel, validate
from coevo_jax.envs.env import format_response
from coevo_jax.envs.scienceworld.families import SIMULATOR_VERSION, parse_task_id
from coevo_jax.envs.scienceworld.simulator import SIMPLIFICATIONS
from coevo_jax.files import cache_root, write_whole
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Turn

FORMAT = 3  # 1: circuits worked a turn sooner or later; 2: solutions longer than a cap were left out
HEADER = {"scienceworld_experts": FORMAT, "simulator": SIMULATOR_VERSION, "simplifications": SIMPLIFICATIONS}


def _known_task(text: str) -> str:
    parse_task_id(text)
    return text


class ExpertRow(StrictModel):
    """One task's expert as stored: observations uncut, turns up to the one that solved the task."""

    task_id: Annotated[str, AfterValidator(_known_task)]
    prompt: str = ""
    actions: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()
    unsolved: str = ""
    """Why the task has no expert; empty where it has one."""
    score: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.actions) != len(self.observations):
            raise ValueError(f"as many observations as actions ({len(self.actions)})")
        if not self.unsolved and (self.score < SOLVED_REWARD or not self.actions or not self.prompt):
            raise ValueError('a prompt, actions and score 1.0, or a reason in "unsolved"')
        return self

    def demonstration(self, observation_chars: int) -> Demonstration | None:
        """Give the record an agent learns from, observations cut; None for an unsolved task."""
        if self.unsolved:
            return None
        turns = tuple(
            Turn(response=format_response("", action), action=action, observation=seen[:observation_chars])
            for action, seen in zip(self.actions, self.observations, strict=True)
        )
        return Demonstration(task_id=self.task_id, prompt=self.prompt, turns=turns, reward=self.score)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a file holds: the rows that can be used, and its broken lines with what is wrong with each."""

    rows: dict[str, ExpertRow]
    broken: list[tuple[bytes, str]]


def default_experts_path() -> Path:
    """Place of the expert file in the cache."""
    return cache_root() / f"scienceworld-{SIMULATOR_VERSION}" / f"experts-{FORMAT}.jsonl"


def scan_experts(path: Path) -> Scan:
    """Read every line of an expert file; a missing file is an empty one.

    Raises:
      ConfigError: the file cannot be read, or is one of another format, simulator or simplification.
    """
    try:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except FileNotFoundError:
        return Scan(rows={}, broken=[])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}), expected a file of expert solutions") from None
    header = _parse(lines[0], f"{path}: line 1")
    if header != HEADER:
        raise ConfigError(
            f"{path}: line 1: found {json.dumps(header)[:200]}, expected {json.dumps(HEADER)}; name another "
            "file in experts_path, or delete this one to have its experts generated anew"
        )
    rows: dict[str, ExpertRow] = {}
    broken = []
    for number, line in enumerate(lines[1:], start=2):
        source = f"{path}: line {number}"
        try:
            row = validate(ExpertRow, _parse(line, source), source)
            if row.task_id in rows:
                raise ConfigError(f"{source}: found a second row for {row.task_id}, expected one per task")
            rows[row.task_id] = row
        except ConfigError as error:
            broken.append((line, str(error)))
    return Scan(rows=rows, broken=broken)


def read_experts(path: Path) -> dict[str, ExpertRow]:
    """Read an expert file into rows by task; a missing file is an empty one.

    Raises:
      ConfigError: as in `scan_experts`, or a line is broken.
    """
    scan = scan_experts(path)
    if scan.broken:
        more = f" ({len(scan.broken)} broken lines in all)" if len(scan.broken) > 1 else ""
        raise ConfigError(
            f"{scan.broken[0][1]}{more}; generating experts into this file sets broken lines aside and "
            "solves their tasks anew"
        )
    return scan.rows


def write_experts(rows: Iterable[ExpertRow], path: Path) -> None:
    """Write an expert file, sorted by task."""
    lines = [json.dumps(HEADER)]
    for row in sorted(rows, key=lambda row: parse_task_id(row.task_id)):
        lines.append(json.dumps(row.model_dump(exclude_defaults=True), ensure_ascii=False))
    write_whole(path, "\n".join(lines) + "\n")


def repair_experts(path: Path) -> dict[str, ExpertRow]:
    """Read an expert file and move its broken lines, as one cut short, to a file beside it, with a warning.

    Raises:
      ConfigError: as in `scan_experts`.
    """
    scan = scan_experts(path)
    if scan.broken:
        aside = path.with_name(path.name + ".broken")
        kept = aside.read_bytes() if aside.exists() else b""
        write_whole(aside, kept + b"".join(line + b"\n" for line, _ in scan.broken))
        write_experts(scan.rows.values(), path)
        warnings.warn(
            f"{path}: set {len(scan.broken)} broken line(s) aside in {aside.name} and kept {len(scan.rows)} "
            f"rows; the first: {scan.broken[0][1]}",
            stacklevel=2,
        )
    return scan.rows


def _parse(line: bytes, source: str) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        shown = line[:60].decode("utf-8", "backslashreplace")
        raise ConfigError(f"{source}: found {shown!r}, expected one JSON object ({error})") from None
