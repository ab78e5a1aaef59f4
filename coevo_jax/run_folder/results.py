"""The schema of `results.json`, the record of a run that tables and reports are made from.

A run of an earlier version lacks what was not measured then: `load_results` puts a sign of that in its place.
"""

import json
from collections.abc import Mapping
from operator import is_
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from coevo_jax.config.strict import ConfigError
from coevo_jax.episode_stats.summary import Summary
from coevo_jax.files import write_parts
from coevo_jax.run_folder.manifest import SKIPPED, PhaseRecord

RESULTS_FILE = "results.json"


class Evaluation(Summary):
    """An agent on held-out tasks after a round; round 0 is the warm start, where all agents are the same."""

    round: int
    agent: str  # by the recipe's name
    split: str
    name: NotRequired[str]  # of an evaluation beside the one that is called as its agent
    mark: NotRequired[str]  # that the tasks were played under
    # Of an agent that learned from the tasks it was tested on (`phases.adapt`): its steps and queries.
    test_feedback: NotRequired[dict[str, int]]


class Exploration(Summary):
    """An agent's roll-outs on the training tasks of a round."""

    round: int
    phase: str  # such as "explore_hard_negatives": explore_ or branch_, and the collection
    agent: str
    points: NotRequired[int]  # from which a branch_ phase played on
    points_by_turn: NotRequired[dict[str, int]]  # turn, counted from 0 -> points


class Pairs(TypedDict):
    """How many preference pairs of one kind an agent learned from in a round."""

    round: int
    agent: str
    kind: str  # of pair, by the recipe's name
    count: int
    tasks: int
    mean_reward_gap: float | None  # chosen minus rejected


class Pull(TypedDict):
    """How hard both terms of an agent's objective pull on a step's chosen sides before a round's first step.

    `learning.pull` has the formulas. Where imitation pulls many times harder, the method is imitation by
    another name.
    """

    round: int
    agent: str
    preference: float  # loss per nat
    sft: float


class Collapse(TypedDict):
    """A sign that an agent stopped being useful, in plain words."""

    round: int
    agent: str
    why: str


class PhaseTime(TypedDict):
    """Wall time of a phase."""

    name: str  # e.g. "round-01/learn_failure"
    seconds: float
    skipped_steps: NotRequired[int]  # whose gradient was not finite, where there were any


class Results(TypedDict):
    """Everything a report says about a run, save curves and trajectories."""

    name: str
    method: str
    seed: int
    env: str
    config: dict[str, Any]  # resolved
    agents: list[str]  # by the recipe's names, the one that the run is about first
    parameters: int
    rounds: int
    evaluations: list[Evaluation]
    explorations: list[Exploration]
    pairs: list[Pairs]
    pulls: list[Pull]
    collapses: list[Collapse]
    phases: list[PhaseTime]
    seconds: float | None  # wall time: phases and what lies between them; None where that was not measured
    peak_memory_bytes: int | None  # None where the platform does not tell
    environment: dict[str, Any]  # versions, devices


def phase_entry(record: PhaseRecord) -> PhaseTime:
    """What the results say of a finished phase."""
    entry: PhaseTime = {"name": record.name, "seconds": record.seconds}
    if skipped := record.records.get(SKIPPED):
        entry["skipped_steps"] = len(skipped)
    return entry


def skipped_count_words(count: int) -> str:
    """So many skipped steps, for people; nothing where there are none."""
    return f"{count} step{'s' if count > 1 else ''} skipped, not finite" if count else ""


def skipped_note(phase: PhaseTime) -> str:
    """Said behind a phase's name: how many steps it skipped; nothing where it skipped none."""
    words = skipped_count_words(phase.get("skipped_steps", 0))
    return f" ({words})" if words else ""


def evaluation_label(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation is called: as its agent, or by a name of its own."""
    return evaluation.get("name") or evaluation["agent"]


def main_evaluations(results: Results, agent: str) -> list[Evaluation]:
    """The evaluations that an agent is compared by, round by round: those that are called as it is."""
    return [e for e in results["evaluations"] if e["agent"] == agent == evaluation_label(e)]


def load_results(run_dir: Path | str) -> Results:
    """Read the results of a run folder.

    Raises:
      ConfigError: they are missing or broken.
    """
    run_dir = Path(run_dir)
    path = run_dir / RESULTS_FILE
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: no such run folder")
    if not path.is_file():
        raise ConfigError(f"{path}: not found; expected a run whose warm start has begun")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error
    if isinstance(found, dict):
        _add_what_was_not_measured(found)
    _check(path, found)
    return cast(Results, found)


def _add_what_was_not_measured(found: dict[str, Any]) -> None:
    """Put signs of what was not measured into the results of an earlier version.

    No pulls, None for what followed errors and for the time between phases."""
    found.setdefault("pulls", [])
    found.setdefault("seconds", None)
    found.setdefault("agents", ["target", "failure"])  # the two that there were before recipes
    for key in ("evaluations", "explorations"):
        entries = found.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                entry.setdefault("after_error", None)


def wall_time(results: Results) -> float:
    """Seconds that a run took so far: its phases alone where no more was measured."""
    return sum(phase["seconds"] for phase in results["phases"]) + time_between_phases(results)


def time_between_phases(results: Results) -> float:
    """Seconds of a run that stand in no phase: building its world, compiling ahead of one, commits."""
    if results["seconds"] is None:
        return 0.0
    return max(results["seconds"] - sum(phase["seconds"] for phase in results["phases"]), 0.0)


class ResultsFile:
    """The file of a run's results, written again whenever its lists have grown.

    An entry that was there before, the very object, is neither checked nor turned into text again.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self.path = Path(run_dir) / RESULTS_FILE
        self._known: dict[str, list[object]] = {key: [] for key in LISTS}
        self._texts: dict[str, list[bytes]] = {key: [] for key in LISTS}

    def save(self, results: Results) -> Path:
        """Write results in one piece: to a temporary name, then renamed.

        Raises:
          ConfigError: an entry lacks a key.
        """
        _check_keys(self.path, "the file", results, Results)
        parts: list[bytes] = []
        for key, value in results.items():
            parts += [b",\n" if parts else b"{\n", f" {json.dumps(key)}: ".encode()]
            parts += self._list(key, cast(list[Any], value)) if key in LISTS else [_text(value, 1)]
        return write_parts(self.path, [*parts, b"\n}\n"])

    def _list(self, key: str, entries: list[Any]) -> list[bytes]:
        """The text of a list in parts: put together it would be the largest object of a long run."""
        known, texts = self._known[key], self._texts[key]
        if len(known) > len(entries) or not all(map(is_, known, entries)):
            known.clear()
            texts.clear()
        for index, entry in enumerate(entries[len(known) :], start=len(known)):
            text = _text(entry, 2)
            _check_keys(self.path, f"{key}[{index}]", entry, LISTS[key])
            known.append(entry)
            texts.append((b",\n  " if texts else b"[\n  ") + text)
        return [*texts, b"\n ]"] if texts else [b"[]"]


def _text(value: Any, depth: int) -> bytes:
    """Strict JSON as it stands so deep in an indented file."""
    return json.dumps(value, indent=1, allow_nan=False).replace("\n", "\n" + " " * depth).encode()


LISTS: dict[str, type] = {
    "evaluations": Evaluation,
    "explorations": Exploration,
    "pairs": Pairs,
    "pulls": Pull,
    "collapses": Collapse,
    "phases": PhaseTime,
}


def _check(path: Path, found: object) -> None:
    """Raise ConfigError unless every record has the keys of its type."""
    _check_keys(path, "the file", found, Results)
    records = cast(dict[str, Any], found)
    for key, kind in LISTS.items():
        if not isinstance(records[key], list):
            raise ConfigError(f"{path}: {key} is {type(records[key]).__name__}, expected a list")
        for index, record in enumerate(records[key]):
            _check_keys(path, f"{key}[{index}]", record, kind)


def _check_keys(path: Path, where: str, found: object, kind: type) -> None:
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {where} is {type(found).__name__}, expected an object")
    missing = sorted(kind.__required_keys__ - found.keys())  # pyright: ignore[reportAttributeAccessIssue]
    if missing:
        raise ConfigError(f"{path}: {where} lacks {', '.join(missing)}")
