"""A sweep's table: every loss and beta over seeds, on the terminal, as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from coevo_jax.report.comparison import Comparison, Interval, compare, further_rewards, interval
from coevo_jax.report.markdown import cell, differences, machines, measured, table
from coevo_jax.run_folder.metrics import METRICS_FILE, read_metrics
from coevo_jax.run_folder.results import Results

MEASURES = {
    "reward": "final_reward",
    "success": "final_success",
    "hard neg. of failures": "final_hard_of_failures",
}
LEARNED = {"margin": "rewards/margins", "accuracy": "rewards/accuracies"}


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """A run of a sweep as its table sees it."""

    method: str  # the loss and its beta
    seed: int
    folder: Path
    results: Results
    diverged: str | None


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """Rows in the order of the sweep, and what their differences rest on."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    comparison: Comparison | None  # None where every run diverged
    learned: dict[str, dict[str, Interval]]  # method -> name of LEARNED -> over seeds
    runs: tuple[SweepRun, ...]


def sweep_table(runs: Sequence[SweepRun], agent: str) -> SweepTable:
    """Means over seeds with half of their 95 % t-intervals; diverged runs are counted, and in no mean.

    Margin and accuracy are those of the training pairs, over the last pass of the last round that `agent`
    learned in. Differences are those of the first method to every other, paired by seed.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    whole = [run for run in runs if run.diverged is None]
    learned: dict[str, dict[str, Interval]] = {}
    for method in methods:
        own = {run.seed: _learned(run, agent) for run in whole if run.method == method}
        learned[method] = {
            name: interval({seed: values[name] for seed, values in own.items() if name in values})
            for name in LEARNED
        }
    left = [method for method in methods if any(run.method == method for run in whole)]
    comparison = compare([run.results for run in whole], subject=left[0]) if left else None
    measures = {row["method"]: row["measures"] for row in comparison["methods"]} if comparison else {}
    shown = MEASURES | (further_rewards(comparison) if comparison else {})
    rows = []
    for method in methods:
        own = [run for run in runs if run.method == method]
        diverged = [str(run.seed) for run in own if run.diverged is not None]
        seconds = measures[method]["seconds"]["mean"] if method in measures else None
        rows.append(
            (
                method,
                str(len(own) - len(diverged)),
                *(cell(measures.get(method, {}).get(key)) for key in shown.values()),
                *(cell(learned[method][name]) for name in LEARNED),
                f"{len(diverged)} (seed {', '.join(diverged)})" if diverged else "0",
                "–" if seconds is None else f"{seconds / 60:.1f}",
            )
        )
    header = ("loss", "seeds", *shown, *LEARNED, "diverged", "minutes")
    return SweepTable(
        header=header, rows=tuple(rows), comparison=comparison, learned=learned, runs=tuple(runs)
    )


def terminal_table(sweep: SweepTable) -> Table:
    """The table for a terminal."""
    shown = Table(
        title="Means over seeds ± half of the 95 % t-interval",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in sweep.header:
        shown.add_column(name, justify="left" if name == "loss" else "right", overflow="fold")
    for row in sweep.rows:
        shown.add_row(*row)
    return shown


def sweep_markdown(sweep: SweepTable, command: str) -> str:
    """The command, the table, paired differences, what diverged, and where it was measured."""
    lines = [f"`{command}`", "", table(sweep.header, sweep.rows), ""]
    if sweep.comparison is not None:
        lines += differences(sweep.comparison)
    lines += [
        f"- Diverged: {run.method}, seed {run.seed}: {run.diverged}." for run in sweep.runs if run.diverged
    ]
    whole = [run.results for run in sweep.runs if run.diverged is None]
    if sweep.comparison is not None:
        lines += [
            "",
            f"{measured(sweep.comparison, whole)} Margin (beta times the difference of the sides' log-ratios "
            "to the reference) and accuracy: training pairs, last pass of the last round.",
        ]
    return "\n".join(lines) + "\n"


def sweep_record(sweep: SweepTable, command: str) -> dict[str, Any]:
    """The same as plain data, with the value of every seed."""
    measures = sweep.comparison["methods"] if sweep.comparison else []
    rows = {
        method: {"learned": learned, "measures": {}, "rounds": {}}
        for method, learned in sweep.learned.items()
    }
    for row in measures:
        rows[row["method"]] |= {"measures": row["measures"], "rounds": row["rounds"]}
    return {
        "command": command,
        "machine": machines([run.results for run in sweep.runs]),
        "split": sweep.comparison["split"] if sweep.comparison else None,
        "losses": rows,
        "differences": sweep.comparison["differences"] if sweep.comparison else [],
        "runs": [
            {"method": run.method, "seed": run.seed, "folder": str(run.folder), "diverged": run.diverged}
            for run in sweep.runs
        ],
    }


def _learned(run: SweepRun, agent: str) -> Mapping[str, float]:
    """Means of the training metrics over the last pass of the agent's last learning phase, by pairs."""
    lines = [
        line
        for line in read_metrics(run.folder / METRICS_FILE)
        if "/learn_" in line["phase"] and f"{agent}/loss" in line["values"]
    ]
    if not lines:
        return {}
    plan = run.folder / "plans" / f"{lines[-1]['phase'].replace('/learn_', '-')}.json"
    steps = len(json.loads(plan.read_text(encoding="utf-8"))["steps"])  # of a pass
    last = [line["values"] for line in lines if line["phase"] == lines[-1]["phase"]][-steps:]
    last = [values for values in last if f"{agent}/rewards/margins" in values]
    if not last:
        return {}
    pairs = np.array([values[f"{agent}/pairs"] for values in last])
    return {
        name: float(np.average([values[f"{agent}/{key}"] for values in last], weights=pairs))
        for name, key in LEARNED.items()
    }
