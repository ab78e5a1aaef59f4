"""What a run reports, from its trajectories: results.json, metrics.jsonl and the tables of report.html."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from coevo_jax.audit.adaptation import episodes_of, lines_of, step_counts
from coevo_jax.audit.after_errors import IsError
from coevo_jax.audit.check import Check, NotCheckable, differs, judge, same
from coevo_jax.audit.collapses import collapses, told
from coevo_jax.audit.order import Phase, agents_in, finished
from coevo_jax.audit.pages import Row, expected_tables, read_tables
from coevo_jax.audit.reading import RunFiles, counted_endings, read_episodes
from coevo_jax.audit.statistics import Outcome, outcome, summary
from coevo_jax.audit.whose import Tasks
from coevo_jax.files import as_called

RESULTS, PAGE = "results.json", "report.html"
INTERVALS = ("mean_reward_ci", "success_rate_ci")
Entry = dict[str, Any]


def report_checks(files: RunFiles, tasks: Tasks, pairs: Sequence[Entry]) -> Iterator[Check]:
    """What the run recorded, reported and logged.

    Args:
      pairs: numbers of the derived pairs, by phase and kind.
    """
    found = Counted(tasks.is_error)
    for phase in finished(files, "explore", "branch", "evaluate"):
        left_out = "" if tasks.is_error else " but for what followed errors"
        if is_earlier(files, phase):
            left_out = " but for intervals and what followed errors: made by an earlier version"
        words = f"summary and log, recounted{left_out}"
        yield judge(f"report/{phase.name}", found.problems(files, phase), lambda words=words: words)
    entries = Entries(found.evaluations(files), found.explorations, pairs, pulls(files))
    yield judge("report/results.json", result_problems(files, entries), entries.words)
    tables: list[str] = []
    yield judge(
        "report/report.html",
        page_problems(files, entries, tables),
        lambda: f"the tables {', '.join(tables)}, to the last digit",
    )


def is_earlier(files: RunFiles, phase: Phase) -> bool:
    """Whether a version played the phase that drew intervals otherwise, and did not look at errors."""
    return "agent_tokens" not in files.record(phase.name)


class Entries(NamedTuple):
    """What results.json lists, counted again."""

    evaluations: Sequence[Entry]
    explorations: Sequence[Entry]
    pairs: Sequence[Entry]
    pulls: Sequence[Entry]  # as recorded, where the checks of pulls have looked at them

    def words(self) -> str:
        counts = [f"{len(entries)} {name}" for name, entries in self._asdict().items()]
        return ", ".join(counts).replace("pairs", "counts of pairs")


def pulls(files: RunFiles) -> list[Entry]:
    """The pulls that learning phases recorded."""
    phases = [phase for phase in finished(files, "learn") if "pull" in files.record(phase.name)]
    return [
        {"round": phase.round, "agent": phase.agent} | files.record(phase.name)["pull"] for phase in phases
    ]


class Counted:
    """The summaries of the collections counted so far, without their trajectories."""

    def __init__(self, is_error: IsError | None) -> None:
        self._is_error = is_error
        self._evaluations: list[Entry] = []
        self.explorations: list[Entry] = []

    def problems(self, files: RunFiles, phase: Phase) -> Iterator[str]:
        """The summary a phase recorded, and each block's line in the log."""
        config = files.config
        episodes: list[Outcome] = []
        blocks: list[dict[str, float]] = []
        for path in files.collection(phase.round, phase.collection):
            found = read_episodes(path, ("turns", "agent_mask"))
            own = [outcome(episode, self._is_error) for episode in found]
            played = own or phase.kind == "branch"  # which plays one block where there is no point
            blocks += [block_values(own)] if played else []
            episodes += own
        knows = self._is_error is not None
        entry = summary(episodes, config.evaluate.hard_negative_threshold, config.seed, errors=knows)
        record = files.record(phase.name)
        if is_earlier(files, phase):
            entry.pop("after_error", None)
            entry |= {name: record["summary"][name] for name in INTERVALS}
        where = {"round": phase.round, "agent": phase.agent}
        shown = as_recorded(entry, record["summary"])
        if phase.kind == "evaluate":
            name = phase.collection.removeprefix("eval-")
            where |= {"name": name} if name != phase.agent else {}
            where |= {"mark": phase.mark} if phase.mark else {}
            adapts = phase.adapting is not None  # and no other evaluation may say so
            counts = step_counts(lines_of(files, phase), episodes_of(files, phase)) if adapts else None
            where |= {"test_feedback": counts}
            self._evaluations.append(where | {"split": config.evaluate.split} | shown)
        else:
            points = {name: record[name] for name in ("points", "points_by_turn") if name in record}
            self.explorations.append(where | {"phase": phase.name.rpartition("/")[2]} | points | shown)
        yield from entry_problems(f"{phase.name}: summary", record["summary"], entry)
        yield from block_problems(files, phase, blocks)
        if not is_earlier(files, phase):
            tokens = sum(episode.agent_tokens for episode in episodes)
            yield from differs(f"{phase.name}: agent_tokens", record["agent_tokens"], tokens)
            yield from error_problems(files, phase, entry.get("after_error"))

    def evaluations(self, files: RunFiles) -> list[Entry]:
        """All agents start as the same warm start: the evaluation of the lead is that of all."""
        listed = []
        for entry in self._evaluations:
            agents = agents_in(files.config) if entry["round"] == 0 else [entry["agent"]]
            listed += [entry | {"agent": agent} for agent in agents]
        return listed


def as_recorded(counted: Entry, recorded: Mapping[str, Any]) -> Entry:
    """What was counted, in the very bits that were recorded where the two agree up to rounding.

    A page rounds a number that lies half-way between two of its digits by the last bit.
    """
    agreed = {name for name in counted.keys() & recorded.keys() if same(recorded[name], counted[name])}
    return {name: recorded[name] if name in agreed else value for name, value in counted.items()}


def block_values(episodes: Sequence[Outcome]) -> dict[str, float]:
    """What the log says of a block, but for what the clock decides."""
    endings = counted_endings([e.ending for e in episodes])
    played = [e.reward for e in episodes if e.finished]
    values = {"episodes": len(episodes), "faults": endings["fault"] + endings.get("lost", 0)}
    values |= {f"ending_{ending}": count for ending, count in endings.items()}
    return {key: float(n) for key, n in values.items()} | {"mean_reward": sum(played) / max(1, len(played))}


def block_problems(files: RunFiles, phase: Phase, blocks: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """One line of the log for each block that was played, with its counts."""
    lines = [(line, v) for line, _, v in files.metrics.get(phase.name, []) if "rollout/episodes" in v]
    yield from differs(f"metrics.jsonl: blocks of {phase.name}", len(lines), len(blocks))
    for (line, values), block in zip(lines, blocks, strict=False):
        yield from _line_problems(line, values, {f"rollout/{name}": value for name, value in block.items()})


def error_problems(files: RunFiles, phase: Phase, errors: Mapping[str, Any] | None) -> Iterator[str]:
    """One more line for what followed errors; null stands where there is nothing to divide by."""
    prefix = "rollout/after_error/"
    lines = [(line, v) for line, _, v in files.metrics.get(phase.name, []) if f"{prefix}episodes" in v]
    yield from differs(f"metrics.jsonl: lines of {phase.name} with {prefix}", len(lines), 1)
    for line, values in lines if errors is not None else ():
        expected = {prefix + name: None if n is None else float(n) for name, n in (errors or {}).items()}
        yield from _line_problems(line, values, expected)


def _line_problems(
    line: int, values: Mapping[str, float | None], expected: Mapping[str, float | None]
) -> Iterator[str]:
    for name, value in expected.items():
        if name not in values or not same(values[name], value):
            yield f"metrics.jsonl:{line}: {name}: found {values.get(name)}, expected {value}"


def entry_problems(where: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Every entry that is derived here; a report may hold more."""
    for name, value in expected.items():
        if not same(found.get(name), value):
            yield f"{where}: {name}: found {found.get(name)}, expected {value}"


def result_problems(files: RunFiles, entries: Entries) -> Iterator[str]:
    """results.json says what was counted again, of the run that the folder holds."""
    path = files.folder / RESULTS
    if not path.is_file():
        raise NotCheckable(f"no {RESULTS} yet")
    results = json.loads(path.read_text(encoding="utf-8"))
    config = files.config
    for name, value in (("name", config.name), ("method", config.method), ("seed", config.seed)):
        yield from differs(f"{RESULTS}: {name}", results[name], value)
    yield from differs(f"{RESULTS}: rounds", results["rounds"], config.rounds)
    times = [_phase_entry(record) for record in files.manifest["done"]]
    yield from differs(f"{RESULTS}: phases", results["phases"], times)
    agents = agents_in(config)
    yield from differs(f"{RESULTS}: agents", results.get("agents", agents), agents)
    listed = told(results["collapses"])
    own = [entry for entry in entries.evaluations if "name" not in entry]  # others may be to fail
    from_start = [entry for entry in entries.explorations if entry["phase"].startswith("explore_")]
    derived = collapses(agents[0], own, from_start)
    yield from differs(f"{RESULTS}: collapses", listed, derived)
    for part, expected in entries._asdict().items():
        parts = results.get(part, [])
        yield from differs(f"{RESULTS}: {part}", len(parts), len(expected))
        for place, (found, wanted) in enumerate(zip(parts, expected, strict=False)):
            yield from entry_problems(f"{RESULTS}: {part}[{place}]", found, wanted)


def _phase_entry(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the results say of a finished phase: its time, and the steps that it skipped if it did."""
    skipped = len(record["records"].get("skipped_steps", []))
    own = {"skipped_steps": skipped} if skipped else {}
    return {"name": record["name"], "seconds": record["seconds"], **own}


def page_problems(files: RunFiles, entries: Entries, looked: list[str]) -> Iterator[str]:
    """The page's tables of numbers show what was counted again."""
    path = files.folder / PAGE
    if not path.is_file():
        raise NotCheckable(as_called(f"no {PAGE}: python -m launch.report writes it"))
    tables = read_tables(path)
    for section, rows in expected_tables(*entries).items():
        if rows:
            looked.append(section)
            yield from table_problems(section, tables.get(section, []), rows)


def table_problems(section: str, tables: Sequence[Sequence[Row]], rows: Sequence[Row]) -> Iterator[str]:
    """A section's table has the rows, cell by cell; columns that are not derived here are left alone."""
    fitting = [table for table in tables if table and set(rows[0]) <= set(table[0])]
    if len(fitting) != 1:
        columns = ", ".join(rows[0])
        yield f"{PAGE}: {section}: found {len(fitting)} tables with the columns {columns}, expected 1"
        return
    yield from differs(f"{PAGE}: {section}: rows", len(fitting[0]), len(rows))
    for number, (found, wanted) in enumerate(zip(fitting[0], rows, strict=False), start=1):
        for column, cell in wanted.items():
            yield from differs(f"{PAGE}: {section}: row {number}: {column}", found[column], cell)
