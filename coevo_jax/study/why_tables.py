"""The tables of a study that say why: negatives, the second agent, behaviour after errors, and costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from coevo_jax.episode_stats.after_error import FOLLOWED
from coevo_jax.episode_stats.summary import HISTOGRAM_BINS
from coevo_jax.report.comparison import interval
from coevo_jax.report.markdown import cell, table
from coevo_jax.report.words import count, number, percent, pull_ratio
from coevo_jax.study.rows import FINISHED, Row
from coevo_jax.study.sample import Sample, evaluation

Entry = Mapping[str, Any]


BINS = tuple(f"{low / 10:g}–{(low + 1) / 10:g}" for low in range(HISTOGRAM_BINS))
FAILURES = ("failures", "their reward", *BINS, "hard")
"""The columns of `failure_cells`."""


def failure_cells(entries: Sequence[Entry]) -> list[str]:
    """How many failures some summaries have together, what they earned, and which share was hard."""
    counts = np.sum([entry["histogram"][:HISTOGRAM_BINS] for entry in entries], axis=0)
    failures = int(counts.sum())
    cells = [count(failures), number(_mean(entries, "mean_failure_reward"))]
    cells += [percent(n / failures) if failures else "–" for n in counts.tolist()]
    return [*cells, percent(_mean(entries, "hard_negative_share_of_failures"))]


def negatives_table(sample: Sample) -> str:
    """What failures the last round's roll-outs gave: rewards in bins, hard negatives, diversity."""
    header = ["method", "played", *FAILURES, "distinct", "duplicates"]
    rows = []
    for method in sample.with_rows:
        played = _last_explorations(sample, method)
        if not played:
            rows.append(_empty(method, header))
        for phase, entries in played.items():
            cells = [method, phase, *failure_cells(entries)]
            for key in ("distinct_sequences", "duplicates"):
                cells.append(percent(_mean([entry["diversity"] for entry in entries], key)))
            rows.append(cells)
    return "\n".join([table(header, rows), *sample.not_run()])


def second_agent_table(sample: Sample) -> str:
    """The second agent round by round: its roll-outs before and after it learned, and its dev reward."""
    with_one = [
        method
        for method in sample.with_rows
        if any(len(row["agents"]) > 1 for row in sample.finished(method).values())
    ]
    if not with_one:
        return "No finished run of a method with a second agent yet."
    rounds = max(row["rounds"] for method in with_one for row in sample.finished(method).values())
    header, measures = ["method"], []
    for one in range(1, rounds + 1):
        for place, words in enumerate(("first roll-outs", "last roll-outs")):
            header.append(f"round {one}: {words}")
            measures.append(_explored(one, -place))
        header.append(f"round {one}: dev")
        measures.append(_evaluated(one))
    rows = [[method, *(sample.cell(method, measure) for measure in measures)] for method in with_one]
    return table(header, rows)


def errors_table(sample: Sample) -> str:
    """What leads did after their first error in the last dev evaluation, all seeds together."""
    header = ["method", "episodes with an error", *(words.replace("_", " ") for words in FOLLOWED)]
    header += ["successes through an error", "agent tokens of failures behind it", "at the token limit"]
    rows = []
    start = [found for row in sample.starts if (found := evaluation(row, 0)) is not None]
    if start:
        rows.append(["*warm start*", *_error_cells(start)])
    for method in sample.with_rows:
        rows_of = sample.finished(method).values()
        found = [one for row in rows_of if (one := evaluation(row)) is not None and one["after_error"]]
        rows.append([method, *_error_cells(found)] if found else _empty(method, header))
    return "\n".join([table(header, rows), *sample.not_run()])


def costs_table(sample: Sample) -> str:
    """What methods spent, all rounds together, the warm start's learning left out; means over seeds."""
    header = ["method", "roll-outs", "tokens explored", "tokens learned", "optimizer steps", "minutes"]
    header += ["preferences : imitation"]
    rows = []
    for method in sample.with_rows:
        own = sample.finished(method).values()
        if not own:
            rows.append(_empty(method, header))
            continue
        costs = [row["cost"] for row in own]
        cells = [
            count(_mean(costs, key)) for key in ("rollouts", "explored_tokens", "learned_tokens", "steps")
        ]
        minutes = interval({row["seed"]: row["cost"]["seconds"] / 60 for row in own})
        rows.append([method, *cells, cell(minutes, 1), _pull(list(own))])
    return "\n".join([table(header, rows), *sample.not_run()])


def provenance(sample: Sample) -> str:
    """Which rows the tables rest on: base, configs, commits, machines, audits."""
    if not sample.rows:
        return "No run yet."
    finished = [row for row in sample.rows if row["status"] == FINISHED]
    audits = [row["audit"] for row in sample.rows if row.get("audit")]
    held, broken, not_checkable = (
        sum(one[key] for one in audits) for key in ("held", "broken", "not_checkable")
    )
    machines = sorted({f"{row['machine']['cpu']} ({row['machine']['cores']} cores)" for row in sample.rows})
    commits = sorted({_commit(row) for row in sample.rows})
    configs = {row["method"]: row["config"][:12] for row in sample.rows}
    base = sample.rows[0]["base"]
    dates = sorted(row["date"][:10] for row in sample.rows)
    lines = [
        f"- {len(sample.rows)} runs have a row, {len(finished)} of them are finished; written {dates[0]} to "
        f"{dates[-1]}.",
        f"- Base: {'none, from random weights' if base is None else f'sha256 {base}'}.",
        f"- Audits: {len(audits)}; checks {count(held)} held, {count(broken)} broken, {count(not_checkable)} "
        "not checkable.",
        f"- Code: {', '.join(commits)}. Machines: {'; '.join(machines)}; one core a run.",
        "- Configs (sha256, first 12): "
        + ", ".join(f"{name} {digest}" for name, digest in configs.items())
        + ".",
    ]
    return "\n".join(lines)


def _commit(row: Row) -> str:
    return f"{(row['commit'] or 'no repository')[:12]}{' with changes' if row['dirty'] else ''}"


def _empty(method: str, header: Sequence[str]) -> list[str]:
    """The row of a method none of whose runs is finished, or that plays nothing."""
    return [method, *["–"] * (len(header) - 1)]


def _mean(entries: Sequence[Entry], key: str) -> float | None:
    values = [entry[key] for entry in entries if entry[key] is not None]
    return float(np.mean(values)) if values else None


def _last_explorations(sample: Sample, method: str) -> dict[str, list[Entry]]:
    """The explorations of the last round by what they fill, each over the seeds."""
    found: dict[str, list[Entry]] = {}
    for row in sample.finished(method).values():
        for entry in row["explorations"]:
            if entry["round"] == row["rounds"]:
                found.setdefault(_phase_words(entry), []).append(entry)
    return found


def _phase_words(entry: Entry) -> str:
    """A collection and who played it: "target", "hard negatives (failure)"."""
    collection = entry["phase"].partition("_")[2]
    name = collection.replace("_", " ")
    return name if collection == entry["agent"] else f"{name} ({entry['agent']})"


def _explored(number: int, place: int) -> Callable[[Row], float | None]:
    """The second agent's reward in its first (place 0) or last (-1) exploration of a round."""

    def measure(row: Row) -> float | None:
        second = row["agents"][1]
        own = [one for one in row["explorations"] if (one["round"], one["agent"]) == (number, second)]
        return own[place]["mean_reward"] if own else None

    return measure


def _evaluated(number: int) -> Callable[[Row], float | None]:
    def measure(row: Row) -> float | None:
        found = evaluation(row, number, row["agents"][1])
        return None if found is None else found["mean_reward"]

    return measure


def _error_cells(found: Sequence[Entry]) -> list[str]:
    errors = [one["after_error"] for one in found]
    episodes = sum(one["episodes"] for one in errors)
    played = sum(one["n"] - one["faults"] for one in found)
    cells = [f"{count(episodes)} of {count(played)}"]
    cells += [percent(sum(one[key] for one in errors) / episodes) if episodes else "–" for key in FOLLOWED]
    successes = sum(one["histogram"][HISTOGRAM_BINS] for one in found)
    cells.append(f"{count(sum(one['successes'] for one in errors))} of {count(successes)}")
    cells.append(percent(_mean(errors, "failure_tokens_behind")))
    limit = sum(one["endings"].get("token_limit", 0) for one in found)
    return [*cells, percent(limit / played) if played else "–"]


def _pull(rows: Sequence[Row]) -> str:
    """How hard preferences and imitation pulled at the start of the lead's first learning, on average."""
    pulls = [
        one["pull"]
        for row in rows
        for one in row["learnings"]
        if one["agent"] == row["agents"][0] and one["round"] == 1 and "pull" in one
    ]
    if not pulls:
        return "–"
    preference, sft = (float(np.mean([pull[key] for pull in pulls])) for key in ("preference", "sft"))
    return pull_ratio(preference, sft)
