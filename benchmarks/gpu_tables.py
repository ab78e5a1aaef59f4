"""What `benchmarks.gpu` has measured so far, as tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coevo_jax.files import write_whole
from coevo_jax.report.markdown import table

FIGURES, TABLES = "figures.jsonl", "figures.md"
Figure = dict[str, Any]
UTILISATION, TIMES_DENSE = 0.45, 3.0  # goals: of 1.7 B; of 0.6 B over rows of many pairs


def read_figures(out: Path) -> list[Figure]:
    """All lines that are whole: the last one may still be written."""
    path = out / FIGURES
    if not path.is_file():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def write_tables(out: Path) -> None:
    """Write the tables of what is there."""
    figures = read_figures(out)
    made = [one(figures) for one in (_machine, _attention, _steps, _rollouts, _tests, _quickstart, _ended)]
    write_whole(out / TABLES, "\n\n".join(filter(None, made)) + "\n")


def _of(figures: Sequence[Figure], part: str) -> list[Figure]:
    """A part's figures, without the word on how it ended."""
    return [one for one in figures if one["part"] == part and "ended" not in one]


def _machine(figures: Sequence[Figure]) -> str:
    found = _of(figures, "machine")
    if not found:
        return ""
    one = found[0]
    declared = one["declared_tflops"]
    rate = "" if declared is None else f", {declared:g} TFLOP/s declared"
    return f"{one['device']} ({one['memory_gib']:.1f} GiB{rate}), jax {one['jax']}."


def _attention(figures: Sequence[Figure]) -> str:
    rows = []
    for one in _of(figures, "attention"):
        took = one["milliseconds"]
        times = took["dense"] / took["kernels"] if {"dense", "kernels"} <= {*took} else None
        apart = "; ".join(f"{name} {max(x):.1e}" for name, x in one["differences"].items())
        cells = [_number(took.get(name), ".2f") for name in ("kernels", "dense", "cuDNN, causal")]
        failed = "; ".join(f"{name}: {words}" for name, words in one["failed"].items())
        rows.append(
            (
                one["row"],
                f"{one['tokens']:,}",
                one["blocks"],
                *cells,
                _number(times, ".1f"),
                apart,
                failed or "–",
            )
        )
    header = (
        "rows",
        "tokens",
        "visible blocks",
        "kernels ms",
        "dense ms",
        "causal cuDNN ms",
        "dense / kernels",
    )
    return _titled(
        "Attention, forward and backward", (*header, "largest difference from dense", "failed"), rows
    )


def _steps(figures: Sequence[Figure]) -> str:
    found = [
        (one["part"].split()[1], one["part"].split()[2], one)
        for one in figures
        if one["part"].startswith("step ") and "ended" not in one
    ]
    dense = {(model, one["row"]): one["tokens_per_second"] for model, name, one in found if name == "dense"}
    rows, goals = [], []
    for model, name, one in found:
        other = dense.get((model, one["row"])) if name == "flash" else None
        times = None if other is None else one["tokens_per_second"] / other
        used = one["utilisation"]
        rows.append(
            (
                *(model, name, one["row"], f"{one['tokens']:,}", f"{one['tokens_per_second']:,.0f}"),
                *(f"{one['tflops']:.1f}", _number(used, ".1%"), _number(times, ".2f")),
                *(f"{one['peak_gib']:.1f} ({one['peak_of']})", f"{one['first_step']:.0f}"),
                *(f"{one['loss']:.5f}", f"{one['grad_norm']:.4g}"),
            )
        )
        if (model, name) == ("1.7b", "flash") and used is not None:
            goals.append(_goal(f"1.7b, {one['row']}: {used:.1%} of the declared rate", used >= UTILISATION))
        if (model, name, one["row"]) == ("0.6b", "flash", "many pairs") and times and used is not None:
            goals.append(_goal(f"0.6b, many pairs: {times:.2f} times dense", times >= TIMES_DENSE))
    header = ("model", "attention", "rows", "tokens", "tokens/s", "TFLOP/s", "utilisation", "times dense")
    header += ("peak GiB", "first step s", "first loss", "gradient's norm")
    return "\n".join([_titled("DPO steps, operations counted over visible blocks", header, rows), *goals])


def _goal(words: str, met: bool) -> str:
    return f"\n- {words}; the goal is {'met' if met else 'not met'}."


def _rollouts(figures: Sequence[Figure]) -> str:
    rows = [
        (
            *(str(one["slots"]), one["what"], f"{one['tokens']:,}", f"{one['tokens_per_second']:,.0f}"),
            *(_number(one.get("prefilled_per_second"), ",.0f"), _number(one.get("bandwidth_share"), ".1%")),
            f"{one['compiling_pass']:.0f}",
        )
        for one in _of(figures, "roll-outs")
    ]
    header = ("slots", "what", "tokens written", "tokens/s", "prefilled tokens/s")
    header += ("weights and slots once, of memory's rate", "first pass s")
    return _titled("Roll-outs of 0.6 B", header, rows)


def _tests(figures: Sequence[Figure]) -> str:
    found = [one for one in figures if one["part"] == "tests" and "passed" in one]
    lines = [f"Numeric tests: {one['passed']} passed, {len(one['not_passed'])} not." for one in found]
    lines += [f"- {name}" for one in found for name in one["not_passed"]]
    return "\n".join(lines)


def _quickstart(figures: Sequence[Figure]) -> str:
    found = [one for one in figures if one["part"] == "quickstart" and one.get("phases")]
    rows = [(name, f"{seconds:.1f}") for one in found for name, seconds in one["phases"].items()]
    return _titled("A short quickstart", ("phase", "s"), rows)


def _ended(figures: Sequence[Figure]) -> str:
    lines = []
    for one in figures:
        if one.get("ended"):
            which = " ".join(str(one[key]) for key in ("row", "slots") if key in one)
            lines.append(f"- {one['part']}{f' ({which})' if which else ''}: {one['ended']}")
    return "\n".join(["Not whole:", "", *lines]) if lines else ""


def _titled(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"{title}:\n\n{table(header, rows)}" if rows else ""


def _number(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)
