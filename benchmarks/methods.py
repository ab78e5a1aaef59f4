"""Run configs over seeds and write their table into the README.

python -m benchmarks.methods quickstart-sft quickstart-eto quickstart --seeds 0 1 2 --table quickstart
python -m benchmarks.methods --runs runs/seeds/* --table quickstart        only write the table

Every run is `launch.train` in a process of its own, so a run that was interrupted goes on where it was.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.files import write_whole
from coevo_jax.report.comparison import Comparison, Interval, compare, final_evaluation
from coevo_jax.report.results import Results, load_results

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
COLUMNS = {
    "success": "final_success",
    "hard neg. of roll-outs": "final_hard",
    "of failures": "final_hard_of_failures",
    "failure agent's reward": "failure_reward",
}


def run_all(configs: Sequence[str], seeds: Sequence[int], runs_dir: Path) -> list[Path]:
    """Train every config with every seed, one after the other; returns the run folders."""
    folders = []
    for seed in seeds:
        for config in configs:
            folder = runs_dir / f"{config}-{seed}"
            path = ROOT / "configs" / f"{config}.yaml"
            new = [str(path), f"name={folder.name}", f"runs_dir={runs_dir}", f"seed={seed}"]
            arguments = ["--resume", str(folder)] if folder.exists() else new
            subprocess.run([sys.executable, "-m", "launch.train", *arguments], cwd=ROOT, check=True)
            folders.append(folder)
    return folders


def cell(value: Interval | None, digits: int = 3) -> str:
    """A mean with half of its 95 % interval over seeds."""
    if value is None or value["mean"] is None:
        return "–"
    text = f"{value['mean']:.{digits}f}"
    return text if value["high"] is None else f"{text} ± {value['high'] - value['mean']:.{digits}f}"


def markdown(comparison: Comparison, runs: Sequence[Results]) -> str:
    """The table of methods by rounds, the differences paired by seed, and where it was measured."""
    rounds = sorted({number for row in comparison["methods"] for number in row["rounds"]})
    names = ["warm start" if number == 0 else f"round {number}" for number in rounds]
    header = ["method", "seeds", *names, *COLUMNS, "minutes"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in comparison["methods"]:
        measures = row["measures"]
        seconds = measures["seconds"]["mean"]
        cells = [row["method"], str(len(row["seeds"]))]
        cells += [cell(row["rounds"].get(number)) for number in rounds]
        cells += [cell(measures[key]) for key in COLUMNS.values()]
        cells.append("–" if seconds is None else f"{seconds / 60:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += [""] if comparison["differences"] else []
    for row in comparison["differences"]:
        lines.append(f"- Final mean reward, {row['method']} minus {row['other']}: {cell(row['final'])}.")
    tasks = {e["n"] for run in runs for e in run["evaluations"]}
    versions = runs[0]["environment"]["packages"]
    devices = ", ".join(runs[0]["environment"]["devices"])
    lines += [
        "",
        f"Mean reward on the {comparison['split']} split ({max(tasks)} tasks, greedy), {spread(runs)}. "
        f"Measured on {cpu()}, {os.cpu_count()} cores, {devices}, jax {versions['jax']}, "
        f"Python {platform.python_version()}.",
    ]
    return "\n".join(lines)


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


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


def write_table(name: str, text: str, path: Path = README) -> None:
    """Replace what stands between `<!-- table:NAME -->` and `<!-- /table -->`."""
    begin, end = f"<!-- table:{name} -->", "<!-- /table -->"
    before, found, rest = path.read_text().partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{path}: has no place for a table: expected the lines {begin} and {end}")
    write_whole(path, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("configs", nargs="*", help="names of configs/NAME.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs") / "seeds")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="finished run folders to tabulate")
    parser.add_argument("--table", help="name of the README's table to replace; printed where none is given")
    args = parser.parse_args()
    folders = [*args.runs, *run_all(args.configs, args.seeds, args.runs_dir)]
    if not folders:
        parser.error("give configs to run, or --runs")
    runs = [load_results(folder) for folder in folders]
    text = markdown(compare(runs), runs)
    if args.table:
        write_table(args.table, text)
    print(text)


if __name__ == "__main__":
    main()
