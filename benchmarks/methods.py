"""Run configs over seeds and write their table into README.md or a page of docs/.

python -m benchmarks.methods quickstart-sft quickstart-eto quickstart --seeds 0 1 2 --table quickstart
python -m benchmarks.methods --runs runs/seeds/* --table quickstart        only write the table

Every run is `launch.train` in a process of its own, so a run that was interrupted goes on where it was. Runs
of a seed begin with one warm start, where their configs allow it; its time counts for each of them.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.report.comparison import Comparison, compare, further_rewards
from coevo_jax.report.markdown import (
    cell,
    differences,
    has_table,
    measured,
    paired_table,
    replace_table,
    table,
)
from coevo_jax.report.paired import Paired, pair_with_baseline, read_task_rewards
from coevo_jax.run_folder.fork import find_source
from coevo_jax.run_folder.results import Results, load_results

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COLUMNS = {
    "success": "final_success",
    "hard neg. of roll-outs": "final_hard",
    "of failures": "final_hard_of_failures",
}


def run_all(configs: Sequence[str], seeds: Sequence[int], runs_dir: Path) -> list[Path]:
    """Train every config with every seed, one after the other; returns the run folders."""
    folders = []
    for seed in seeds:
        for config in configs:
            folder = runs_dir / f"{config}-{seed}"
            path = ROOT / "configs" / f"{config}.yaml"
            new = [str(path), f"name={folder.name}", f"runs_dir={runs_dir}", f"seed={seed}"]
            matched = load_config(path).budget.run
            if matched is not None:  # the run of this seed, made here before
                new.append(f"budget.run={runs_dir / f'{Path(matched).name}-{seed}'}")
            source = find_source(folders, load_config(path, new[1:]))
            fresh = new if source is None else ["--fork", str(source), *new]
            arguments = ["--resume", str(folder)] if folder.exists() else fresh
            subprocess.run([sys.executable, "-m", "launch.train", *arguments], cwd=ROOT, check=True)
            folders.append(folder)
    return folders


def markdown(comparison: Comparison, runs: Sequence[Results], paired: Paired) -> str:
    """The table of methods by rounds, differences paired by seed and by task, and where it was measured."""
    rounds = sorted({number for row in comparison["methods"] for number in row["rounds"]})
    names = ["warm start" if number == 0 else f"round {number}" for number in rounds]
    columns = COLUMNS | further_rewards(comparison)
    header = ["method", "seeds", *names, *columns, "minutes"]
    rows = []
    for row in comparison["methods"]:
        measures = row["measures"]
        seconds = measures["seconds"]["mean"]
        cells = [row["method"], str(len(row["seeds"]))]
        cells += [cell(row["rounds"].get(number)) for number in rounds]
        cells += [cell(measures[key]) for key in columns.values()]
        rows.append([*cells, "–" if seconds is None else f"{seconds / 60:.1f}"])
    lines = [table(header, rows), *([""] if comparison["differences"] else []), *differences(comparison)]
    lines += ["", paired_table(paired)] if paired["rows"] else []
    lines += ["", measured(comparison, runs)]
    return "\n".join(lines)


def write_table(name: str, text: str, page: Path | None = None) -> None:
    """Replace the table of that name in a page; by default in the one page that has it.

    Raises:
      ConfigError: no page has a place for it, or several have.
    """
    if page is None:
        pages = [path for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if has_table(name, path)]
        if len(pages) != 1:
            found = ", ".join(path.name for path in pages) or "none"
            raise ConfigError(f"--table {name}: found {found}, expected one page with <!-- table:{name} -->")
        [page] = pages
    replace_table(name, text, page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("configs", nargs="*", help="names of configs/NAME.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs") / "seeds")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="finished run folders to tabulate")
    parser.add_argument("--table", help="name of the table to replace; printed where none is given")
    args = parser.parse_args()
    folders = [*args.runs, *run_all(args.configs, args.seeds, args.runs_dir)]
    if not folders:
        parser.error("give configs to run, or --runs")
    runs = [load_results(folder) for folder in folders]
    rewards = [read_task_rewards(folder, run) for folder, run in zip(folders, runs, strict=True)]
    text = markdown(compare(runs), runs, pair_with_baseline(rewards))
    if args.table:
        write_table(args.table, text)
    print(text)


if __name__ == "__main__":
    main()
