"""CPU seconds until a command has said its help or refused a config, for this tree and another one.

python -m benchmarks.start_up [--before FOLDER] [--repeats 5]

FOLDER is another checkout, such as a worktree of an earlier commit. The two take turns, so a busy machine
slows both. CPU is user and system time of the whole process.
"""

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "configs/quickstart.yaml"
LINES: Mapping[str, Sequence[str]] = {
    **{
        f"{name} --help": [name, "--help"]
        for name in ("train", "evaluate", "report", "compile", "export", "sweep", "data", "conformance")
    },
    "audit --help": ["audit", "--help"],
    "scaling --help": ["scaling", "--help"],
    "train, unknown key": ["train", CONFIG, "target.bete=[0.1]"],
    "train, wrong value": ["train", CONFIG, "rounds=many"],
    "train, no such file": ["train", "nowhere.yaml"],
    "train, unknown loss": ["train", CONFIG, "target.loss=sigmoyd"],
    "train, unknown option of the environment": ["train", CONFIG, "env.options.sead=1"],
    "compile, unknown key": ["compile", CONFIG, "target.bete=[0.1]"],
    "sweep, unknown key": ["sweep", CONFIG, "target.bete=[0.1]", "--losses", "ipo"],
    "evaluate, no run": ["evaluate", "nowhere"],
    "audit, no run": ["audit", "nowhere"],
}


def cpu_seconds(folder: Path, line: Sequence[str]) -> float:
    """User and system time of one call."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    name, *words = line
    subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *words], cwd=folder, capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_up", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="calls of each (default: 5)")
    args = parser.parse_args(argv)
    trees = [*([args.before.resolve()] if args.before else []), ROOT]
    table = Table(title="CPU seconds, best and median", title_justify="left")
    for column in ("call", *(["before"] if args.before else []), "here"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for label, line in LINES.items():
        seconds = {tree: [] for tree in trees}
        for _ in range(args.repeats):
            for tree in trees:
                seconds[tree].append(cpu_seconds(tree, line))
        cells = [f"{min(seconds[tree]):.2f} / {statistics.median(seconds[tree]):.2f}" for tree in trees]
        table.add_row(label, *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
