"""What runs measured, but for what depends on the clock or the machine: equal runs have equal numbers."""

from pathlib import Path
from typing import Any

from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.run_folder.results import load_results

TIMED = ("per_second", "share", "seconds", "mfu")  # endings of the names of metrics that the clock decides


def results(folder: Path) -> dict[str, Any]:
    """results.json of a finished run."""
    elsewhere = {"name", "config", "phases", "seconds", "peak_memory_bytes", "environment"}
    return {key: value for key, value in load_results(folder).items() if key not in elsewhere}


def curve(folder: Path, *phases: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Phase, step and values of every line of the metrics log; of `phases` only, if any are named."""
    return [
        (
            line["phase"],
            line["step"],
            {name: value for name, value in line["values"].items() if not name.endswith(TIMED)},
        )
        for line in read_metrics(folder / "metrics.jsonl")
        if not phases or line["phase"] in phases
    ]
