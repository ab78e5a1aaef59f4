"""Curves of learning, from metrics.jsonl: one group of charts per agent."""

from collections.abc import Sequence
from html import escape

from coevo_jax.report.cast import TONES, Cast, agent_name, kind_name
from coevo_jax.report.charts import Series, line_chart
from coevo_jax.report.page import note, section
from coevo_jax.run_folder.metrics import MetricsLine, metric_series

Points = list[tuple[int, float, str]]

_TOGETHER = {
    "Loss": {"loss": "all", "loss/preference": "preference", "loss/sft": "SFT"},
    "Reward of the pair's sides": {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    "Log-probability of the pair's sides": {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    "Steps taken for an expert's (D)": {"probability/expert": "experts'", "probability/own": "own"},
    "Steps told apart": {"accuracy/expert": "experts'", "accuracy/own": "own"},
}
_BY_KIND = {
    "Margin (chosen minus rejected reward)": "rewards/margins",
    "Pairs ranked right": "rewards/accuracies",
    "Loss per pair": "loss/pair",
}
_SHARES = ("rewards/accuracies",)


def training_section(lines: Sequence[MetricsLine], cast: Cast) -> str:
    """Losses, margins, accuracies and log-probabilities over optimizer steps; everything else folded away."""
    if not lines:
        return section("learning", "Learning", '<p class="empty">No training metrics yet.</p>')
    agents: dict[str, dict[str, Points]] = {}
    for tag, points in metric_series(lines).items():
        agent, _, name = tag.partition("/")
        agents.setdefault(agent if name else "", {})[name or tag] = points
    text = (
        "Over optimizer steps; long curves show means of equal stretches. Rewards are beta times the "
        "change of a trajectory's log-probability since the reference, in nats."
    )
    order = sorted(agents, key=lambda a: (cast.place(a), a))
    return section("learning", "Learning", note(text), *(_agent(a, agents[a]) for a in order))


def _agent(agent: str, metrics: dict[str, Points]) -> str:
    shown: set[str] = set()
    charts = []
    for title, names in _TOGETHER.items():
        present = {name: label for name, label in names.items() if name in metrics}
        if present:
            charts.append(_chart(title, [(label, metrics[name]) for name, label in present.items()], False))
            shown.update(present)
    for title, base in _BY_KIND.items():
        curves = _kinds(base, metrics)
        if curves:
            charts.append(_chart(title, curves, base in _SHARES))
        shown.update(name for name in metrics if _base(name) == base)
    rest = [name for name in sorted(metrics) if name not in shown and _base(name) not in shown]
    more = [
        _chart(base, _kinds(base, metrics), False) for base in dict.fromkeys(_base(name) for name in rest)
    ]
    grid_more = f'<div class="charts">{"".join(more)}</div>'
    folded = f"<details><summary>More curves ({len(more)})</summary>{grid_more}</details>"
    grid = f'<div class="charts">{"".join(charts)}</div>' if charts else ""
    return f"<h3>{escape(agent_name(agent))}</h3>{grid}{folded if more else ''}"


def _kinds(base: str, metrics: dict[str, Points]) -> list[tuple[str, Points]]:
    """The curve over all pairs, and one per kind where there are several kinds."""
    own = {name.removeprefix(f"{base}/"): points for name, points in metrics.items() if _base(name) == base}
    kinds = [(kind_name(kind), points) for kind, points in own.items() if kind != base]
    every = [("all", metrics[base])] if base in metrics else []
    return every if len(kinds) == 1 and every else every + kinds


def _base(name: str) -> str:
    return "/".join(name.split("/")[:2])  # what follows is the kind of pair


def _chart(title: str, curves: Sequence[tuple[str, Points]], share: bool) -> str:
    several = len(curves) > 1
    series = [
        Series(
            name=label if several else "",
            tone=TONES[i % len(TONES)],
            points=[(x, y) for x, y, _ in points],
            dashed=label in ("rejected", "SFT"),
        )
        for i, (label, points) in enumerate(curves)
    ]
    longest = max((points for _, points in curves), key=len)
    return line_chart(title, series, x_label="optimizer step", percent=share, marks=_round_starts(longest))


def _round_starts(points: Points) -> list[tuple[float, str]]:
    marks: list[tuple[float, str]] = []
    last = None
    for x, _, phase in points:
        place = phase.partition("/")[0]
        if place != last and place.startswith("round-"):
            marks.append((float(x), place.replace("-0", " ").replace("-", " ")))
        last = place
    return marks if len(marks) > 1 else []
