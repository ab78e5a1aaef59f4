"""Results as tables for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coevo_jax.episode_stats.after_error import FOLLOWED
from coevo_jax.episode_stats.summary import Summary
from coevo_jax.report.cast import agent_name, branch_lines, cast_of, fault_lines, feedback_lines, mark_lines
from coevo_jax.report.comparison import COSTS, Comparison, Interval, measures_of
from coevo_jax.report.errors import errors_table
from coevo_jax.report.paired import Paired, paired_cells
from coevo_jax.report.words import (
    BETWEEN,
    bounds,
    count,
    duration,
    memory,
    number,
    percent,
    pull_ratio,
    round_name,
    signed,
)
from coevo_jax.run_folder.results import (
    Evaluation,
    Results,
    evaluation_label,
    skipped_note,
    time_between_phases,
    wall_time,
)


def print_run(results: Results, console: Console) -> None:
    """Print a run: rounds x agents, collapses, exploration, errors, pairs and pulls, time, memory."""
    title = f"{results['name']}: {results['method']} on {results['env']}, seed {results['seed']}"
    console.print(Text(title, style="bold"))
    if results["evaluations"]:
        console.print(rounds_table(results))
        for lines in (mark_lines, feedback_lines):
            for line in lines(cast_of(results), results["evaluations"]):
                console.print(line, soft_wrap=True, markup=False)
        _print_faults(results["evaluations"], console)
    else:
        console.print("No evaluation yet.")
    for collapse in results["collapses"]:
        agent = agent_name(collapse["agent"])
        console.print(
            Text(f"Collapse in round {collapse['round']}, {agent}: {collapse['why']}.", style="red")
        )
    if results["explorations"]:
        console.print(exploration_table(results))
        for line in branch_lines(results["explorations"]):
            console.print(f"{line}.", soft_wrap=True)
        _print_faults(results["explorations"], console)
    if (errors := errors_table(results)) is not None:
        console.print(errors)
    if results["pairs"]:
        console.print(pairs_table(results))
    if results["pulls"]:
        console.print(pulls_table(results))
    if results["phases"]:
        console.print(phases_table(results))
    console.print(f"Peak memory: {memory(results['peak_memory_bytes'])}")


def _print_faults(summaries: Sequence[Any], console: Console) -> None:
    names = [f"{round_name(one['round'])}, {agent_name(one['agent'])}" for one in summaries]
    for line in fault_lines(summaries, names):
        console.print(line, soft_wrap=True, markup=False)


def print_comparison(comparison: Comparison, paired: Paired, console: Console) -> None:
    """Print several runs: measures per method over seeds, cost, differences paired by seed and by task."""
    title = f"{len(comparison['methods'])} methods on {comparison['env']}, split {comparison['split']}"
    console.print(Text(f"{title}; mean over seeds and 95 % t-interval", style="bold"))
    console.print(_methods_table(comparison))
    console.print(_costs_table(comparison))
    if comparison["differences"]:
        console.print(_differences_table(comparison))
    if paired["rows"]:
        console.print(_paired_table(paired))
        for line in paired["unpaired"]:
            console.print(Text(f"Not paired: {line}.", style="yellow"), soft_wrap=True)
    console.print(
        "The best round is picked on the split it is reported on, so it is optimistic.", style="dim"
    )


def rounds_table(results: Results) -> Table:
    """Mean reward with interval, success and hard negatives of all agents after every round."""
    cast = cast_of(results)
    split = results["evaluations"][0]["split"]
    table = _table(f"Evaluation on the {split} split; hard negatives of all | of failures")
    for column in ("Round", "Agent", "reward", "95 % CI", "success", "hard neg.", "| fail."):
        table.add_column(column, justify="left" if column in ("Round", "Agent") else "right")
    last = None

    def place(e: Evaluation) -> tuple[int, int]:
        return e["round"], cast.evaluation_place(evaluation_label(e))

    for e in sorted(results["evaluations"], key=place):
        table.add_row(
            round_name(e["round"]) if e["round"] != last else "",
            e["agent"] + cast.evaluation_suffix(evaluation_label(e), e["agent"]),
            number(e["mean_reward"]),
            bounds(e["mean_reward_ci"]),
            percent(e["success_rate"]),
            percent(e["hard_negative_share"]),
            percent(e["hard_negative_share_of_failures"]),
        )
        last = e["round"]
    return table


def summary_table(summary: Summary, title: str) -> Table:
    """One set of roll-outs: rewards with intervals, hard negatives, endings and the reward histogram."""
    table = _table(title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % CI")
    table.add_row("mean reward", number(summary["mean_reward"]), bounds(summary["mean_reward_ci"]))
    table.add_row("success", percent(summary["success_rate"]), bounds(summary["success_rate_ci"]))
    table.add_row("hard negatives, of all roll-outs", percent(summary["hard_negative_share"]), "")
    table.add_row("hard negatives, of failures", percent(summary["hard_negative_share_of_failures"]), "")
    table.add_row("mean reward of failures", number(summary["mean_failure_reward"]), "")
    table.add_row("episodes", count(summary["n"]), "")
    if (errors := summary["after_error"]) is not None:
        table.add_row("  with an error", count(errors["episodes"]), "")
        for key in FOLLOWED:
            table.add_row(f"    {key.replace('_', ' ')} after the first one", count(errors[key]), "")
    for ending, episodes in summary["endings"].items():
        table.add_row(f"  ended by {ending.replace('_', ' ')}", count(episodes), "")
    names = [f"  reward {i / 10:.1f} to {(i + 1) / 10:.1f}" for i in range(len(summary["histogram"]) - 1)]
    for name, episodes in zip([*names, "  solved"], summary["histogram"], strict=True):
        table.add_row(name, count(episodes), "")
    return table


def exploration_table(results: Results) -> Table:
    """What each exploration found on the training tasks, and how diverse its failures are."""
    table = _table("Exploration; behind the bar: of failures alone")
    measures = ("n", "faults", "success", "reward", "| reward", "hard neg.", "distinct", "doubles")
    columns = ("Round", "Phase", *measures)
    for column in columns:
        table.add_column(column, justify="left" if column in ("Round", "Phase") else "right")
    last = None
    for e in results["explorations"]:
        table.add_row(
            str(e["round"]) if e["round"] != last else "",
            e["phase"].removeprefix("explore_").replace("_", " "),
            count(e["n"]),
            count(e["faults"]),
            percent(e["success_rate"]),
            number(e["mean_reward"]),
            number(e["mean_failure_reward"]),
            percent(e["hard_negative_share_of_failures"]),
            percent(e["diversity"]["distinct_sequences"]),
            percent(e["diversity"]["duplicates"]),
        )
        last = e["round"]
    return table


def pairs_table(results: Results) -> Table:
    """How many pairs of each kind each agent learned from."""
    table = _table("Preference pairs")
    for column in ("Round", "Agent", "Kind"):
        table.add_column(column)
    for column in ("pairs", "tasks", "mean reward gap"):
        table.add_column(column, justify="right")
    for p in results["pairs"]:
        agent = agent_name(p["agent"])
        gap = number(p["mean_reward_gap"])
        table.add_row(str(p["round"]), agent, p["kind"], count(p["count"]), count(p["tasks"]), gap)
    return table


def pulls_table(results: Results) -> Table:
    """How hard preferences and imitation pull on the chosen sides at the start of each round's learning."""
    table = _table("Pull on the chosen sides at a round's start, loss per nat")
    for column in ("Round", "Agent"):
        table.add_column(column)
    for column in ("preferences", "imitation", "preferences : imitation"):
        table.add_column(column, justify="right")
    for p in results["pulls"]:
        pulls = p["preference"], p["sft"]
        agent = agent_name(p["agent"])
        table.add_row(str(p["round"]), agent, *(f"{pull:.2g}" for pull in pulls), pull_ratio(*pulls))
    return table


def phases_table(results: Results) -> Table:
    """Wall time of every phase, of what lies between them, and their sum."""
    cast = cast_of(results)
    total = wall_time(results)
    table = _table("Wall time")
    table.show_footer = True
    table.add_column("Phase", footer="all")
    table.add_column("time", footer=duration(total), justify="right")
    table.add_column("share", justify="right")
    rows = [(cast.phase_name(one["name"]) + skipped_note(one), one["seconds"]) for one in results["phases"]]
    if between := time_between_phases(results):
        rows.append((BETWEEN, between))
    for name, seconds in rows:
        table.add_row(name, duration(seconds), percent(seconds / total) if total else "–")
    return table


def interval_text(value: Interval) -> str:
    """A mean with half the width of its interval, e.g. "0.612 ± 0.034"; the mean alone from one seed."""
    if value["mean"] is None or value["high"] is None:
        return number(value["mean"])
    return f"{number(value['mean'])} ± {number(value['high'] - value['mean'])}"


def _methods_table(comparison: Comparison) -> Table:
    table = _table("Methods")
    table.add_column("Method")
    table.add_column("seeds", justify="right")
    measures = measures_of(comparison)
    for label in measures.values():
        table.add_column(label, justify="right")
    for row in comparison["methods"]:
        cells = (interval_text(row["measures"][key]) for key in measures)
        table.add_row(row["method"], str(len(row["seeds"])), *cells)
    return table


def _costs_table(comparison: Comparison) -> Table:
    table = _table("Cost per run, mean over seeds")
    table.add_column("Method")
    for label, _ in COSTS.values():
        table.add_column(label, justify="right")
    for row in comparison["methods"]:
        table.add_row(row["method"], *(count(row["measures"][key]["mean"]) for key in COSTS))
    return table


def _differences_table(comparison: Comparison) -> Table:
    title = "Differences in mean reward, paired by seed"
    table = _table(title)
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


def _paired_table(paired: Paired) -> Table:
    table = _table(f"Differences from {paired['baseline']} in mean reward, last round, paired by task")
    table.add_column("Methods")
    for column in ("difference", "seeds", "95 % over seeds", "tasks", "95 % over tasks", "faults left out"):
        table.add_column(column, justify="right")
    for row in paired["rows"]:
        table.add_row(f"{row['method']} − {paired['baseline']}", *paired_cells(row))
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
