"""Measure environments: turns and episodes a second, latency, memory; write docs/environments.md's table.

python -m benchmarks.environments --table environments
python -m benchmarks.environments webshop intercode_sql --seconds 5
python -m benchmarks.environments my_env:make_my_env seed=1

Each row is a process of its own: half of its episodes replay experts, half play the experts' actions in
random order. Instances are made and warmed up before the clock starts; the pool is the one roll-outs use.
"""

import argparse
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import ROOT, write_table
from coevo_jax.config.reading import read_options
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance.footprint import child_processes
from coevo_jax.envs.env import Env, EnvFault, PreparesExperts, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.registry import make_env
from coevo_jax.run_folder.environment import cores, cpu

NAMES = ("intercode_sql", "webshop", "textworld", "scienceworld")  # those that need no download
TASKS = 16  # tasks played again and again
STEP_TIMEOUT = 120.0
CHUNK_SECONDS = 0.5  # of play in one call of the pool
SAMPLE_SECONDS = 0.1  # between two looks at the memory
MIB = 2**20

Play = tuple[Task, tuple[str, ...]]  # a task and the actions of one episode


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One environment with one number of workers. Seconds are wall-clock, memory is resident."""

    name: str
    workers: int
    setup_seconds: float  # the first instance made and its first episode reset
    turns_per_second: float
    episodes_per_second: float
    median_ms: float  # of a step
    p95_ms: float
    p99_ms: float
    peak_mib: float  # of the process and all that it started
    mean_reward: float
    faults: int


def plays_of(env: Env) -> list[Play]:
    """Episodes to play: experts as they are, and their actions in random order."""
    tasks = list(env.tasks("train"))[:TASKS]
    if isinstance(env, PreparesExperts):
        env.prepare_experts(tasks, lambda done, total: None)
    experts = {task: expert for task in tasks if (expert := env.expert(task)) is not None}
    if not experts:
        raise ConfigError(f"{env.name}: found no expert for the first {TASKS} tasks, expected one to replay")
    rng = np.random.default_rng([0])
    known = [turn.action for expert in experts.values() for turn in expert.turns]
    plays: list[Play] = []
    for task, expert in experts.items():
        plays.append((task, tuple(turn.action for turn in expert.turns)))
        plays.append((task, tuple(rng.choice(known, env.max_turns(task)).tolist())))
    return plays


def play(env: Env, task: Task, actions: Sequence[str]) -> tuple[list[float], float]:
    """Seconds of every step of one episode, and its reward."""
    env.reset(task)
    seconds = []
    for action in actions:
        start = time.perf_counter()
        result = env.step(action)
        seconds.append(time.perf_counter() - start)
        if result.done:
            return seconds, result.reward
    return seconds, env.reward_at_limit()


def measure(name: str, options: dict[str, Any], workers: int, seconds: float) -> Measurement:
    """Play for that many seconds, one slot for every worker. Raises ConfigError for unusable input."""
    make = make_env(name, options)
    first = make()
    plays = plays_of(first)
    first.close()
    latencies: list[float] = []
    rewards: list[float] = []
    faults = 0
    with Memory() as memory, EnvPool(make, workers=workers, step_timeout=STEP_TIMEOUT) as pool:
        setup = _warm_up(pool, plays[0][0], workers)
        start, number = time.monotonic(), 0
        while time.monotonic() - start < seconds:
            for slot in range(workers):
                pool.submit(slot, _chunk(plays, number))
                number += 1
            for outcome in pool.wait().values():
                if isinstance(outcome, EnvFault):
                    faults += 1
                else:
                    latencies += outcome[0]
                    rewards += outcome[1]
        elapsed = time.monotonic() - start
    milliseconds = (
        np.percentile(np.array(latencies) * 1000, [50, 95, 99]) if latencies else np.full(3, np.nan)
    )
    return Measurement(
        name=name,
        workers=workers,
        setup_seconds=setup,
        turns_per_second=len(latencies) / elapsed,
        episodes_per_second=len(rewards) / elapsed,
        median_ms=float(milliseconds[0]),
        p95_ms=float(milliseconds[1]),
        p99_ms=float(milliseconds[2]),
        peak_mib=memory.peak / MIB,
        mean_reward=float(np.mean(rewards)) if rewards else 0.0,
        faults=faults,
    )


def _chunk(plays: Sequence[Play], number: int) -> Callable[[Env], tuple[list[float], list[float]]]:
    """A call that plays episodes for a while: seconds of every step, and every episode's reward."""

    def run(env: Env) -> tuple[list[float], list[float]]:
        order = np.random.default_rng([1, number]).permutation(len(plays))
        start, latencies, rewards = time.monotonic(), [], []
        for index in itertools.cycle(order):
            seconds, reward = play(env, *plays[index])
            latencies += seconds
            rewards.append(reward)
            if time.monotonic() - start > CHUNK_SECONDS:
                break
        return latencies, rewards

    return run


def _warm_up(pool: EnvPool, task: Task, workers: int) -> float:
    """Make every slot's instance; returns the seconds until all have answered a reset."""
    start = time.monotonic()
    for slot in range(workers):
        pool.submit(slot, lambda env: env.reset(task))
    for outcome in pool.wait().values():
        if isinstance(outcome, EnvFault):
            raise ConfigError(f"the environment cannot be started: {outcome}")
    return time.monotonic() - start


class Memory:
    """Watches the resident memory of this process and of those it starts, in a thread."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, sum(map(resident, [os.getpid(), *child_processes()])))
            if self._stop.wait(SAMPLE_SECONDS):
                return


def resident(pid: int) -> int:
    """Resident bytes of a process; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def measure_apart(name: str, options: Sequence[str], workers: int, seconds: float) -> Measurement:
    """`measure` in a process of its own, so that memory and caches are this environment's alone."""
    command = [sys.executable, "-m", "benchmarks.environments", "--row", str(workers)]
    command += ["--seconds", str(seconds), name, *options]
    done = subprocess.run(command, cwd=os.getcwd(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def markdown(rows: Sequence[Measurement], command: str) -> str:
    """The table, and where and how it was measured."""
    header = ["environment", "workers", "turns/s", "episodes/s", "step ms (median / 95 % / 99 %)"]
    header += ["first reset s", "peak memory MiB", "mean reward", "faults"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        latency = f"{row.median_ms:.2f} / {row.p95_ms:.2f} / {row.p99_ms:.2f}"
        cells = [
            row.name,
            str(row.workers),
            f"{row.turns_per_second:,.0f}",
            f"{row.episodes_per_second:,.1f}",
        ]
        cells += [latency, f"{row.setup_seconds:.1f}", f"{row.peak_mib:,.0f}", f"{row.mean_reward:.2f}"]
        lines.append("| " + " | ".join([*cells, str(row.faults)]) + " |")
    lines += [
        "",
        "Half of the episodes replay experts, half play their actions in random order; a worker is a thread "
        "with an instance of its own. Memory counts the Python process and all it starts. Measured on "
        f"{cpu()}, {cores()} cores, Python {platform.python_version()}, by `{command}`.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.environments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="environments, or one and its key=value options")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="of play for each row (default: 10)")
    parser.add_argument("--table", help="name of the table to replace; printed where none is given")
    parser.add_argument("--row", type=int, metavar="WORKERS", help="measure one row and print it as JSON")
    args = parser.parse_args()
    options = [word for word in args.names if "=" in word]
    names = [word for word in args.names if "=" not in word] or list(NAMES)
    try:
        if options and len(names) != 1:
            raise ConfigError(f"options {' '.join(options)}: expected one environment that they belong to")
        if args.row:
            print(json.dumps(asdict(measure(names[0], read_options(options), args.row, args.seconds))))
            return
        for name in names:
            make_env(name, read_options(options))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    rows = [measure_apart(name, options, count, args.seconds) for name in names for count in args.workers]
    text = markdown(rows, shlex.join(["python", "-m", "benchmarks.environments", *sys.argv[1:]]))
    if args.table:
        write_table(args.table, text, ROOT / "docs" / "environments.md")
    print(text)


if __name__ == "__main__":
    main()
