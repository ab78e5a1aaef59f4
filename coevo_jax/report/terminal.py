"""Results as tables for a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coevo_jax.report.comparison import COSTS, MEASURES, Comparison, Interval
from coevo_jax.report.results import Evaluation, Results
from coevo_jax.report.words import (
    AGENT_NAMES,
    bounds,
    count,
    duration,
    memory,
    number,
    percent,
    phase_name,
    signed,
)


def print_run(results: Results, console: Console) -> None:
    """Print a run: rounds x agents, collapses, exploration, pairs, wall time per phase, peak memory."""
    title = f"{results['name']}: {results['method']} on {results['env']}, seed {results['seed']}"
    console.print(Text(title, style="bold"))
    if results["evaluations"]:
        console.print(rounds_table(results))
    else:
        console.print("No evaluation yet.")
    for collapse in results["collapses"]:
        agent = AGENT_NAMES.get(collapse["agent"], collapse["agent"])
        console.print(
            Text(f"Collapse in round {collapse['round']}, {agent}: {collapse['why']}.", style="red")
        )
    if results["explorations"]:
        console.print(exploration_table(results))
    if results["pairs"]:
        console.print(pairs_table(results))
    if results["phases"]:
        console.print(phases_table(results))
    console.print(f"Peak memory: {memory(results['peak_memory_bytes'])}")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print several runs: measures per method over seeds, what they cost, and differences paired by seed."""
    title = f"{len(comparison['methods'])} methods on {comparison['env']}, split {comparison['split']}"
    console.print(Text(f"{title}; mean over seeds and 95 % t-interval", style="bold"))
    console.print(_methods_table(comparison))
    console.print(_costs_table(comparison))
    if comparison["differences"]:
        console.print(_differences_table(comparison))
    console.print(
        "The best round is picked on the split it is reported on, so it is optimistic.", style="dim"
    )


def rounds_table(results: Results) -> Table:
    """Mean reward with interval, success and hard negatives of both agents after every round."""
    agents = [a for a in ("target", "failure") if any(e["agent"] == a for e in results["evaluations"])]
    split = results["evaluations"][0]["split"]
    table = Table(title=f"Evaluation, split {split}", title_justify="left", title_style="bold")
    table.add_column("Round", justify="right")
    for agent in agents:
        name = AGENT_NAMES[agent]
        for column in (f"{name}: reward [95 % CI]", "success", "hard neg. of all / of failures"):
            table.add_column(column, justify="right")
    entries = {(e["round"], e["agent"]): e for e in results["evaluations"]}
    for round_number in sorted({e["round"] for e in results["evaluations"]}):
        cells = (cell for a in agents for cell in _evaluation_cells(entries.get((round_number, a))))
        table.add_row("warm start" if round_number == 0 else str(round_number), *cells)
    return table


def exploration_table(results: Results) -> Table:
    """What each exploration found on the training tasks, and how diverse its failures are."""
    table = Table(title="Exploration", title_justify="left", title_style="bold")
    for column in ("Round", "Phase"):
        table.add_column(column)
    columns = (
        "roll-outs",
        "faults",
        "success",
        "failures' reward",
        "hard neg. of failures",
        "distinct",
        "doubles",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for e in results["explorations"]:
        table.add_row(
            str(e["round"]),
            phase_name(e["phase"]),
            count(e["n"]),
            count(e["faults"]),
            percent(e["success_rate"]),
            number(e["mean_failure_reward"]),
            percent(e["hard_negative_share_of_failures"]),
            percent(e["diversity"]["distinct_sequences"]),
            percent(e["diversity"]["duplicates"]),
        )
    return table


def pairs_table(results: Results) -> Table:
    """How many pairs of each kind each agent learned from."""
    table = Table(title="Preference pairs", title_justify="left", title_style="bold")
    for column in ("Round", "Agent", "Kind"):
        table.add_column(column)
    for column in ("pairs", "tasks", "mean reward gap"):
        table.add_column(column, justify="right")
    for p in results["pairs"]:
        agent = AGENT_NAMES.get(p["agent"], p["agent"])
        gap = number(p["mean_reward_gap"])
        table.add_row(str(p["round"]), agent, p["kind"], count(p["count"]), count(p["tasks"]), gap)
    return table


def phases_table(results: Results) -> Table:
    """Wall time of every phase and their sum."""
    total = sum(p["seconds"] for p in results["phases"])
    table = Table(title="Wall time", title_justify="left", title_style="bold", show_footer=True)
    table.add_column("Phase", footer="all")
    table.add_column("time", footer=duration(total), justify="right")
    table.add_column("share", justify="right")
    for phase in results["phases"]:
        share = percent(phase["seconds"] / total) if total else "–"
        table.add_row(phase_name(phase["name"]), duration(phase["seconds"]), share)
    return table


def _evaluation_cells(entry: Evaluation | None) -> list[str]:
    if entry is None:
        return ["–", "–", "–"]
    reward = f"{number(entry['mean_reward'])} {bounds(entry['mean_reward_ci'])}".strip()
    hard = f"{percent(entry['hard_negative_share'])} / {percent(entry['hard_negative_share_of_failures'])}"
    return [reward, percent(entry["success_rate"]), hard]


def interval_text(value: Interval) -> str:
    """A mean with half the width of its interval, e.g. "0.612 ± 0.034"; the mean alone from one seed."""
    if value["mean"] is None or value["high"] is None:
        return number(value["mean"])
    return f"{number(value['mean'])} ± {number(value['high'] - value['mean'])}"


def _methods_table(comparison: Comparison) -> Table:
    table = Table(title="Methods", title_justify="left", title_style="bold")
    table.add_column("Method")
    table.add_column("seeds", justify="right")
    for label, _ in MEASURES.values():
        table.add_column(label, justify="right")
    for row in comparison["methods"]:
        cells = (interval_text(row["measures"][key]) for key in MEASURES)
        table.add_row(row["method"], str(len(row["seeds"])), *cells)
    return table


def _costs_table(comparison: Comparison) -> Table:
    table = Table(title="Cost per run, mean over seeds", title_justify="left", title_style="bold")
    table.add_column("Method")
    for label, _ in COSTS.values():
        table.add_column(label, justify="right")
    for row in comparison["methods"]:
        table.add_row(row["method"], *(count(row["measures"][key]["mean"]) for key in COSTS))
    return table


def _differences_table(comparison: Comparison) -> Table:
    title = "Differences in mean reward, paired by seed"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("Methods")
    table.add_column("seeds", justify="right")
    for column in ("last round [95 % CI]", "best round [95 % CI]"):
        table.add_column(column, justify="right")
    for row in comparison["differences"]:
        table.add_row(
            f"{row['method']} − {row['other']}",
            str(len(row["final"]["values"])),
            f"{signed(row['final']['mean'])} {bounds((row['final']['low'], row['final']['high']))}".strip(),
            f"{signed(row['best']['mean'])} {bounds((row['best']['low'], row['best']['high']))}".strip(),
        )
    return table
