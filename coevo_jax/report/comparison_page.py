"""The page of several runs: methods with intervals over seeds, paired differences, rounds and costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from coevo_jax.report.cast import TONES
from coevo_jax.report.charts import DotRow, Series, dot_chart, line_chart
from coevo_jax.report.comparison import (
    COSTS,
    Comparison,
    Interval,
    final_evaluation,
    lead_words,
    measures_of,
)
from coevo_jax.report.page import note, page, section, table
from coevo_jax.report.paired import Paired, paired_cells
from coevo_jax.report.terminal import interval_text
from coevo_jax.report.timeline import phases_chart
from coevo_jax.report.words import bounds, count, duration, number, signed
from coevo_jax.run_folder.results import Results, wall_time

_PERCENT = ("final_success", "final_hard", "final_hard_of_failures")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A run of the page, and the address of its own page as seen from this one; "" where there is none."""

    results: Results
    page: str


def comparison_page(comparison: Comparison, paired: Paired, runs: Sequence[Shown] = ()) -> str:
    """The whole page as HTML; `runs` stand at its end, with what each did when."""
    methods = comparison["methods"]
    seeds = sorted({seed for row in methods for seed in row["seeds"]})
    lead = (
        f"{len(methods)} methods on {comparison['env']}, split {comparison['split']}, "
        f"seeds {', '.join(map(str, seeds))}"
    )
    body = [
        "<h1>Comparison of methods</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        _measures(comparison),
        _differences(comparison),
        _paired(paired, lead_words(comparison)),
        _rounds(comparison),
        _costs(comparison),
        _runs(runs),
        "<footer>Written by coevo_jax. Intervals are 95 % t-intervals over seeds, but for those over tasks."
        "</footer>",
    ]
    return page("Comparison of methods", "\n".join(part for part in body if part))


def _measures(comparison: Comparison) -> str:
    text = (
        "Circles are seeds, diamonds their means, bars 95 % t-intervals over seeds. "
        "The best round is picked on the split it is reported on, so it is optimistic."
    )
    subject = comparison["differences"][0]["method"] if comparison["differences"] else ""
    measures = measures_of(comparison)
    charts = "".join(
        dot_chart(
            label,
            [
                _dot(row["method"], row["measures"][key], row["method"] == subject)
                for row in comparison["methods"]
            ],
            percent=key in _PERCENT,
        )
        for key, label in measures.items()
    )
    rows = [
        (escape(row["method"]), str(len(row["seeds"])), *(_cell(row["measures"][k], k) for k in measures))
        for row in comparison["methods"]
    ]
    strong = [i for i, row in enumerate(comparison["methods"]) if row["method"] == subject]
    columns = ("Method", "Seeds", *measures.values())
    grid = f'<div class="charts wide">{charts}</div>'
    return section("methods", "Methods", note(text), grid, table(columns, rows, strong=strong))


def _differences(comparison: Comparison) -> str:
    differences = comparison["differences"]
    if not differences:
        return ""
    subject = differences[0]["method"]
    text = (
        f"{subject} minus each other method, seed by seed, in mean reward of {lead_words(comparison)}. "
        "An interval that holds zero shows no difference at this number of seeds."
    )
    charts = "".join(
        dot_chart(label, [_dot(f"− {d['other']}", d[key], False) for d in differences], zero=True)
        for label, key in (("Last round", "final"), ("Best round", "best"))
    )
    rows = [
        (
            escape(f"{d['method']} − {d['other']}"),
            str(len(d["final"]["values"])),
            f"{signed(d['final']['mean'])} <small>{bounds((d['final']['low'], d['final']['high']))}</small>",
            f"{signed(d['best']['mean'])} <small>{bounds((d['best']['low'], d['best']['high']))}</small>",
        )
        for d in differences
    ]
    columns = ("Methods", "Shared seeds", "Last round", "Best round")
    grid = f'<div class="charts wide">{charts}</div>'
    return section("differences", "Differences, paired by seed", note(text), grid, table(columns, rows))


def _paired(paired: Paired, whose: str) -> str:
    """Differences from the baseline, with the interval over seeds beside that over tasks."""
    if not paired["rows"]:
        return ""
    baseline = paired["baseline"]
    text = (
        f"Each method minus {baseline}, task by task: what {whose} earned in its last evaluation. "
        "The interval over seeds keeps the tasks and asks whether the method would show it, trained again. "
        "That over tasks keeps the trained agents and asks whether other tasks would show it; what all seeds "
        "earned in one task is one cluster."
    )
    seeds = [_dot(f"{row['method']} (seeds)", row["seeds"], False) for row in paired["rows"]]
    tasks = [
        DotRow(
            name=f"{row['method']} (tasks)",
            mean=row["tasks"]["mean"],
            low=row["tasks"]["low"],
            high=row["tasks"]["high"],
            values={},
        )
        for row in paired["rows"]
    ]
    both = [one for rows in zip(seeds, tasks, strict=True) for one in rows]
    chart = dot_chart(
        f"Mean reward minus that of {baseline}: 95 % over seeds, and over tasks", both, zero=True
    )
    columns = (
        "Methods",
        "Difference",
        "Seeds",
        "95 % interval over seeds (these tasks)",
        "Tasks",
        "95 % interval over tasks (these agents)",
        "Faults left out",
    )
    rows = [(escape(f"{row['method']} − {baseline}"), *paired_cells(row)) for row in paired["rows"]]
    lines = "".join(f"<li>{escape(line)}</li>" for line in paired["unpaired"])
    left_out = f'<p class="note">Not paired:</p><ul class="note">{lines}</ul>' if lines else ""
    title = f"Differences from {baseline}, paired by task"
    grid = f'<div class="charts wide">{chart}</div>'
    return section("paired", title, note(text), grid, table(columns, rows), left_out)


def _rounds(comparison: Comparison) -> str:
    """Mean reward per round: methods share a chart as long as their colours differ."""
    methods = comparison["methods"]
    charts = []
    for start in range(0, len(methods), len(TONES)):
        series = [
            Series(
                name=row["method"],
                tone=TONES[i],
                points=[(n, v["mean"]) for n, v in row["rounds"].items() if v["mean"] is not None],
                band=[
                    (v["low"], v["high"]) if v["low"] is not None and v["high"] is not None else None
                    for v in row["rounds"].values()
                    if v["mean"] is not None
                ],
                dots=True,
            )
            for i, row in enumerate(methods[start : start + len(TONES)])
        ]
        numbers = sorted({n for row in methods for n in row["rounds"]})
        ticks = [(float(n), "warm start" if n == 0 else str(n)) for n in numbers]
        charts.append(
            line_chart("Mean reward, mean over seeds", series, x_label="round", x_ticks=ticks or None)
        )
    text = "Bands are 95 % t-intervals over seeds; one seed has none."
    return section("rounds", "Rounds", note(text), f'<div class="charts wide">{"".join(charts)}</div>')


def _costs(comparison: Comparison) -> str:
    columns = ("Method", *(label.removesuffix(", s") for label, _ in COSTS.values()))
    rows = []
    for row in comparison["methods"]:
        means = {key: row["measures"][key]["mean"] for key in COSTS}
        cells = [duration(v or 0.0) if key == "seconds" else count(v) for key, v in means.items()]
        rows.append((escape(row["method"]), *cells))
    text = "Per run, mean over seeds. Pairs count once each, however many epochs they are learned from."
    return section("costs", "Cost", note(text), table(columns, rows))


def _runs(runs: Sequence[Shown]) -> str:
    """What each run did when, and where its own page is."""
    if not runs:
        return ""
    ordered = sorted(runs, key=lambda one: (one.results["method"], one.results["seed"]))
    named = [(f"{one.results['method']}, seed {one.results['seed']}", one) for one in ordered]
    chart = phases_chart([(name, one.results) for name, one in named])
    rows = []
    for name, one in named:
        own = escape(one.results["name"])
        link = f'<a href="{escape(one.page, quote=True)}">{own}</a>' if one.page else own
        last = final_evaluation(one.results)
        reward = last["mean_reward"] if last else None
        cells = (number(reward), duration(wall_time(one.results)))
        rows.append((escape(name), *cells, link))
    text = (
        "A run's own page has its curves, its trajectories and its pairs, side by side. Where no link "
        "stands, a report on that run alone writes it."
    )
    columns = ("Run", "Mean reward, last round", "Wall time", "Page")
    grid = f'<div class="charts whole">{chart}</div>'
    return section("runs", "Runs", note(text), grid, table(columns, rows))


def _dot(name: str, value: Interval, strong: bool) -> DotRow:
    return DotRow(
        name=name,
        mean=value["mean"],
        low=value["low"],
        high=value["high"],
        values=value["values"],
        strong=strong,
    )


def _cell(value: Interval, key: str) -> str:
    if key not in _PERCENT or value["mean"] is None:
        return interval_text(value)
    half = f" ± {100 * (value['high'] - value['mean']):.1f}" if value["high"] is not None else ""
    return f"{100 * value['mean']:.1f}{half} %"
