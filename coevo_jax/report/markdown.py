"""Tables as Markdown: cells of means with intervals, where they were measured, and their place in a file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.report.comparison import Comparison, Interval, final_evaluation
from coevo_jax.report.paired import Paired, paired_cells
from coevo_jax.run_folder.results import Results


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def cell(value: Interval | None, digits: int = 3) -> str:
    """A mean with half of its 95 % interval over seeds."""
    if value is None or value["mean"] is None:
        return "–"
    text = f"{value['mean']:.{digits}f}"
    return text if value["high"] is None else f"{text} ± {value['high'] - value['mean']:.{digits}f}"


def differences(comparison: Comparison) -> list[str]:
    """One line for each difference in the final mean reward."""
    return [
        f"- Final mean reward, {row['method']} minus {row['other']}: {cell(row['final'])}."
        for row in comparison["differences"]
    ]


def paired_table(paired: Paired) -> str:
    """Differences from a baseline with both of their intervals, and what could not be paired."""
    name = paired["baseline"]
    header = (f"final mean reward, minus {name}", "difference", "seeds", "95 % interval over seeds")
    header += ("tasks", "95 % interval over tasks (clusters)", "faults left out")
    rows = [(f"{row['method']} − {name}", *paired_cells(row)) for row in paired["rows"]]
    lines = [table(header, rows), *(f"- Not paired: {line}." for line in paired["unpaired"])]
    return "\n".join(lines) if rows else ""


def spread(runs: Sequence[Results]) -> str:
    """What stands behind the means: intervals over seeds, or over tasks where there is one seed."""
    if len({run["seed"] for run in runs}) > 1:
        return "± half of the 95 % t-interval over seeds; differences are paired by seed"
    last = final_evaluation(runs[0])
    interval = last["mean_reward_ci"] if last else None
    words = "one seed, so no interval over seeds"
    if interval:
        low, high = interval
        words += f"; over tasks, the last round's 95 % bootstrap interval is {low:.3f} to {high:.3f}"
    return words


def measured(comparison: Comparison, runs: Sequence[Results]) -> str:
    """One sentence on what the rewards are, and one on the machine."""
    tasks = max(e["n"] for run in runs for e in run["evaluations"])
    return (
        f"Mean reward on the {comparison['split']} split ({tasks} tasks, greedy), {spread(runs)}. "
        f"Measured on {'; '.join(machines(runs))}."
    )


def machines(runs: Sequence[Results]) -> list[str]:
    """Where the runs were made, by their own records; with the number of runs where they differ."""
    found = Counter(machine(run["environment"]) for run in runs)
    if len(found) == 1:
        return list(found)
    return [f"{words} ({count} of {len(runs)} runs)" for words, count in found.items()]


def machine(environment: Mapping[str, Any]) -> str:
    """The record of a run's environment in words; an earlier version's does not name the processor."""
    devices = environment["devices"]
    kind = environment.get("device_kind", "cpu")
    named = [environment["cpu"], f"{environment['cores']} cores"] if "cpu" in environment else []
    named += [", ".join(devices) if kind == "cpu" else f"{len(devices)} x {kind}"]
    named += [f"jax {environment['packages']['jax']}", f"Python {environment['python']}"]
    return ", ".join(named)


def has_table(name: str, path: Path) -> bool:
    """Whether a file has a place for a table."""
    begin, end = _marks(name)
    return end in path.read_text(encoding="utf-8").partition(begin)[2]


def require_table(name: str, path: Path) -> None:
    """Make sure that a file has a place for a table.

    Raises:
      ConfigError: it has none.
    """
    if not has_table(name, path):
        begin, end = _marks(name)
        raise ConfigError(f"{path}: has no place for a table: expected the lines {begin} and {end}")


def replace_table(name: str, text: str, path: Path) -> None:
    """Replace what stands between `<!-- table:NAME -->` and `<!-- /table -->`.

    Raises:
      ConfigError: the file has no such lines.
    """
    require_table(name, path)
    begin, end = _marks(name)
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    write_whole(path, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def read_rows(name: str, path: Path) -> list[list[str]]:
    """The cells of the first table that stands under a name, row by row, without its header."""
    begin, end = _marks(name)
    text = path.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- table:{name} -->", "<!-- /table -->"
