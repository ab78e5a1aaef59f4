"""What a run reports, from its trajectories: results.json, metrics.jsonl and the tables of report.html."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coevo_jax.audit.check import Check, NotCheckable, differs, judge, same
from coevo_jax.audit.collapses import collapses, told
from coevo_jax.audit.order import Phase, finished
from coevo_jax.audit.pages import (
    AGENTS,
    EXPLORATIONS,
    KINDS,
    Row,
    fixed,
    read_tables,
    round_words,
    summary_cells,
    whole,
)
from coevo_jax.audit.reading import ENDINGS, RunFiles, read_episodes
from coevo_jax.audit.statistics import Outcome, outcome, summary

RESULTS, PAGE = "results.json", "report.html"
Entry = dict[str, Any]


def report_checks(files: RunFiles, pairs: Sequence[Entry]) -> Iterator[Check]:
    """What the run recorded, reported and logged.

    Args:
      pairs: numbers of the derived pairs, by phase and kind.
    """
    found = Counted()
    for phase in finished(files, "explore", "evaluate"):
        yield judge(
            f"report/{phase.name}", found.problems(files, phase), lambda: "summary and log, recounted"
        )
    entries = found.evaluations(files), found.explorations
    yield judge(
        "report/results.json", result_problems(files, *entries, pairs), lambda: _words(*entries, pairs)
    )
    yield judge(
        "report/report.html", page_problems(files, *entries, pairs), lambda: "three tables, to the last digit"
    )


def _words(evaluations: Sequence[Entry], explorations: Sequence[Entry], pairs: Sequence[Entry]) -> str:
    return f"{len(evaluations)} evaluations, {len(explorations)} explorations, {len(pairs)} counts of pairs"


class Counted:
    """The summaries of the collections counted so far, without their trajectories."""

    def __init__(self) -> None:
        self._evaluations: list[Entry] = []
        self.explorations: list[Entry] = []

    def problems(self, files: RunFiles, phase: Phase) -> Iterator[str]:
        """The summary a phase recorded, and each block's line in the log."""
        config = files.config
        episodes: list[Outcome] = []
        blocks: list[dict[str, float]] = []
        for path in files.collection(phase.round, phase.collection):
            own = [outcome(episode) for episode in read_episodes(path, ("turns", "agent_mask"))]
            blocks.append(block_values(own))
            episodes += own
        entry = summary(episodes, config.evaluate.hard_negative_threshold, config.seed)
        where = {"round": phase.round, "agent": phase.agent}
        if phase.kind == "evaluate":
            self._evaluations.append(where | {"split": config.evaluate.split} | entry)
        else:
            self.explorations.append(where | {"phase": phase.name.rpartition("/")[2]} | entry)
        yield from entry_problems(f"{phase.name}: summary", files.record(phase.name)["summary"], entry)
        yield from block_problems(files, phase, blocks)

    def evaluations(self, files: RunFiles) -> list[Entry]:
        """Both agents start as the same warm start: where there are two, its evaluation stands for both."""
        listed = []
        for entry in self._evaluations:
            listed.append(entry)
            if entry["round"] == 0 and files.config.failure.explore:
                listed.append(entry | {"agent": "failure"})
        return listed


def block_values(episodes: Sequence[Outcome]) -> dict[str, float]:
    """What the log says of a block, but for what the clock decides."""
    endings = {ending: sum(e.ending == ending for e in episodes) for ending in ENDINGS}
    played = [e.reward for e in episodes if e.finished]
    values = {"episodes": len(episodes), "faults": endings["fault"]}
    values |= {f"ending_{ending}": count for ending, count in endings.items()}
    return {key: float(n) for key, n in values.items()} | {"mean_reward": sum(played) / max(1, len(played))}


def block_problems(files: RunFiles, phase: Phase, blocks: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """One line of the log for each block, with its counts."""
    lines = files.metrics.get(phase.name, [])
    yield from differs(f"metrics.jsonl: blocks of {phase.name}", len(lines), len(blocks))
    for (line, _, values), block in zip(lines, blocks, strict=False):
        for name, value in block.items():
            found = values.get(f"rollout/{name}")
            if found is None or not same(found, value):
                yield f"metrics.jsonl:{line}: rollout/{name}: found {found}, expected {value}"


def entry_problems(where: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Every entry that is derived here; a report may hold more."""
    for name, value in expected.items():
        if not same(found.get(name), value):
            yield f"{where}: {name}: found {found.get(name)}, expected {value}"


def result_problems(
    files: RunFiles, evaluations: Sequence[Entry], explorations: Sequence[Entry], pairs: Sequence[Entry]
) -> Iterator[str]:
    """results.json says what was counted again, of the run that the folder holds."""
    path = files.folder / RESULTS
    if not path.is_file():
        raise NotCheckable(f"no {RESULTS} yet")
    results = json.loads(path.read_text(encoding="utf-8"))
    config = files.config
    for name, value in (("name", config.name), ("method", config.method), ("seed", config.seed)):
        yield from differs(f"{RESULTS}: {name}", results[name], value)
    yield from differs(f"{RESULTS}: rounds", results["rounds"], config.rounds)
    times = [{"name": one["name"], "seconds": one["seconds"]} for one in files.manifest["done"]]
    yield from differs(f"{RESULTS}: phases", results["phases"], times)
    listed, derived = told(results["collapses"]), collapses(evaluations, explorations)
    yield from differs(f"{RESULTS}: collapses", listed, derived)
    parts = {"evaluations": evaluations, "explorations": explorations, "pairs": pairs}
    for part, expected in parts.items():
        yield from differs(f"{RESULTS}: {part}", len(results[part]), len(expected))
        for place, (found, wanted) in enumerate(zip(results[part], expected, strict=False)):
            yield from entry_problems(f"{RESULTS}: {part}[{place}]", found, wanted)


def page_problems(
    files: RunFiles, evaluations: Sequence[Entry], explorations: Sequence[Entry], pairs: Sequence[Entry]
) -> Iterator[str]:
    """The page's tables of rounds, explorations and pairs show what was counted again."""
    path = files.folder / PAGE
    if not path.is_file():
        raise NotCheckable(f"no {PAGE}: python -m launch.report writes it")
    tables = read_tables(path)
    rounds = [
        {"Round": round_words(e["round"]), "Agent": AGENTS[e["agent"]]} | summary_cells(e)
        for e in evaluations
    ]
    explored = [
        {"Round": round_words(e["round"]), "Phase": EXPLORATIONS[e["phase"]]} | summary_cells(e)
        for e in explorations
    ]
    paired = [
        {
            "Round": round_words(p["round"]),
            "Agent": AGENTS[p["agent"]],
            "Kind": KINDS[p["kind"]],
            "Pairs": whole(p["count"]),
            "Tasks": whole(p["tasks"]),
            "Mean reward gap": fixed(p["mean_reward_gap"]),
        }
        for p in pairs
    ]
    for section, rows in (("rounds", rounds), ("exploration", explored), ("pairs", paired)):
        if rows:
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
