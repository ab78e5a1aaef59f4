"""The tables of docs/scaling.md from the figures of `scaling`: sums, shares and crossings."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from coevo_jax.preflight.scaling import BENCHMARKS, ROW_LENGTHS, SLICES, Figures
from coevo_jax.report.markdown import table

PARTS = ("compute", "memory", "links")


def tables(figures: Mapping[str, Figures]) -> Iterator[tuple[str, str]]:
    """Every table with its name on the page."""
    cells = [one for one in figures.values() if "topology" in one]
    for trained in SLICES:
        own = [one for one in cells if one["trained"] == trained]
        yield f"memory-{trained}", _pivot(own, _memory)
        yield f"step-{trained}", _pivot(own, _step)
        yield f"efficiency-{trained}", _pivot(own, lambda one, own=own: _efficiency(one, own))
    yield "fsdp", _fsdp([one for one in figures.values() if "tokens" in one])
    cheapest = _cheapest(cells)
    yield "costs", _costs(cheapest)
    yield "benchmarks", _benchmarks(cheapest)


def _pivot(cells: Sequence[Figures], text: Callable[[Figures], str]) -> str:
    """Models by chips."""
    models = {one["model"]: one["weights"] for one in cells}
    sizes = sorted({one["chips"] for one in cells})
    rows = []
    for model, weights in models.items():
        by_chips = {one["chips"]: one for one in cells if one["model"] == model}
        rows.append([f"{model} ({weights / 1e9:.1f} B)", *(text(by_chips[chips]) for chips in sizes)])
    return table(["chips", *map(str, sizes)], rows)


def _memory(cell: Figures) -> str:
    return " / ".join(_peak(cell, phase) for phase in ("learning", "roll-outs"))


def _peak(cell: Figures, phase: str) -> str:
    compiled = cell["peak_gib"] is not None
    size = cell["peak_gib" if compiled else "resident_gib"][phase]
    text = f"{size:.1f}" if size < 100 else f"{size:.0f}"
    return f"**{text}**" if size > cell["memory_gib"] else text


def _step(cell: Figures) -> str:
    if not cell["fits"]:
        return "–"
    step = cell["step"]
    largest = max(PARTS, key=lambda part: step[part])
    return f"{_total(step):.2f} ({largest[0]} {step[largest] / _total(step):.0%})"


def _efficiency(cell: Figures, cells: Sequence[Figures]) -> str:
    if not cell["fits"]:
        return "–"
    fitting = [one for one in cells if one["model"] == cell["model"] and one["fits"]]
    first = min(fitting, key=lambda one: one["chips"])
    return f"{_chip_seconds(first) / _chip_seconds(cell):.0%}"


def _chip_seconds(cell: Figures) -> float:
    return cell["chips"] * _total(cell["step"])


def _total(step: Mapping[str, float]) -> float:
    return sum(step[part] for part in PARTS)


def _fsdp(cells: Sequence[Figures]) -> str:
    """What links take as a share of the longer of compute and memory traffic, by tokens a chip."""
    rows = []
    for model, chip in dict.fromkeys((one["model"], one["chip"]) for one in cells):
        own = {one["tokens"]: one for one in cells if (one["model"], one["chip"]) == (model, chip)}
        shares = ["–" if own[n]["refused"] else f"{_ratio(own[n]):.0%}" for n in ROW_LENGTHS]
        sent = max(one["sent_gib"] for one in own.values())
        rows.append([f"{model}, {chip}", *shares, _crossing(own), f"{sent:,.0f}"])
    head = [*(f"{n:,}" for n in ROW_LENGTHS), "100 % at", "GiB a chip sends"]
    return table(["tokens a chip", *head], rows)


def _ratio(cell: Figures) -> float:
    return cell["links"] / max(cell["compute"], cell["memory"])


def _crossing(by_tokens: Mapping[int, Figures]) -> str:
    """Tokens a chip at which links take as long as the rest, between two lengths on logarithmic scales."""
    known = [(tokens, _ratio(one)) for tokens, one in sorted(by_tokens.items()) if not one["refused"]]
    for (few, above), (many, below) in pairwise(known):
        if above >= 1 > below:
            share = math.log(above) / math.log(above / below)
            return f"about {round(few * (many / few) ** share, -1):,.0f}"
    return f"below {known[0][0]:,}" if known and known[0][1] < 1 else f"above {ROW_LENGTHS[0]:,}"


def _cheapest(cells: Sequence[Figures]) -> list[Figures]:
    """Of each model and what is trained of it, the slice on which a run takes the fewest chip-hours."""
    found: dict[tuple[str, str], Figures] = {}
    for cell in cells:
        key = cell["model"], cell["trained"]
        if cell["fits"] and (key not in found or _chip_hours(cell) < _chip_hours(found[key])):
            found[key] = cell
    return list(found.values())


def _costs(cells: Sequence[Figures]) -> str:
    head = ["model", "trained", "slice", "hours", "warm start", "target: roll-outs", "learning"]
    head += ["failure: roll-outs", "learning", "co-evolution", "ETO", "ratio"]
    return table(head, [_cost_row(cell) for cell in cells])


def _cost_row(cell: Figures) -> list[str]:
    run = cell["runs"]["WebShop"]["coevo"]
    parts = ("warm_start", "target_roll_outs", "target_learning", "failure_roll_outs", "failure_learning")
    own, eto = _chip_hours(cell), _chip_hours(cell, "WebShop", "eto")
    return [
        cell["model"],
        cell["trained"],
        f"{cell['topology']} ({cell['chips']})",
        f"{run['hours']:.1f}",
        *(f"{run[part]:,.1f}" for part in parts),
        f"{own:,.1f}",
        f"{eto:,.1f}",
        f"{own / eto:.1f}",
    ]


def _benchmarks(cells: Sequence[Figures]) -> str:
    def both(cell: Figures, name: str) -> str:
        return f"{_chip_hours(cell, name):,.1f} / {_chip_hours(cell, name, 'eto'):,.1f}"

    rows = [[cell["model"], cell["trained"], *(both(cell, name) for name in BENCHMARKS)] for cell in cells]
    return table(["model", "trained", *BENCHMARKS], rows)


def _chip_hours(cell: Figures, benchmark: str = "WebShop", method: str = "coevo") -> float:
    return sum(hours for part, hours in cell["runs"][benchmark][method].items() if part != "hours")
