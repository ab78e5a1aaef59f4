"""A study's process: it hands cells to its workers, takes their rows, and ends them where they can commit."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from coevo_jax.hosts import allocator
from coevo_jax.run_folder.fork import beginning
from coevo_jax.run_folder.stopping import SIGNALS, Stopped
from coevo_jax.study.order import State, next_cell
from coevo_jax.study.plan import Cell, is_finished
from coevo_jax.study.rows import FINISHED, LATER, Row, is_settled, row_of
from coevo_jax.study.worker import STOPPED, serve

Say = Callable[[str], None]


class WorkerLost(Exception):
    """A worker ended without an answer: it was killed, or out of memory."""


@dataclass
class Worker:
    """A worker's process, the way to talk to it, and the cell that it works on."""

    process: SpawnProcess
    connection: Connection
    log: Path
    cell: Cell | None = None


def alike(one: Cell, other: Cell) -> bool:
    """Whether two cells begin with one warm start."""
    return one.base == other.base and beginning(one.config) == beginning(other.config)


def first_states(cells: Sequence[Cell], rows: Sequence[Row]) -> dict[tuple[str, int], State]:
    """What is known of each cell before anything runs.

    A cell with a settled row is done, wherever it ran; unless another one needs its run, which is not here.
    """
    settled = {cell.key: is_settled(row_of(rows, cell), cell) for cell in cells}
    needed = {cell.after for cell in cells if cell.after is not None and not settled[cell.key]}
    states: dict[tuple[str, int], State] = {}
    for cell in cells:
        row = row_of(rows, cell)
        if not settled[cell.key] or row is None:
            states[cell.key] = "waiting"
        elif row["status"] != FINISHED:
            states[cell.key] = "lost"
        else:
            here = cell.folder not in needed or is_finished(cell.folder)
            states[cell.key] = "done" if here else "waiting"
    return states


def run_cells(
    cells: Sequence[Cell],
    states: Mapping[tuple[str, int], State],
    *,
    jobs: int,
    pinned: bool,
    logs: Path,
    write: Callable[[Cell, Row], None],
    say: Say,
) -> None:
    """Run every cell that waits, `jobs` at a time, and give each row to `write` as it comes.

    Args:
      pinned: whether each worker has a core of its own; else all have all cores, as one on a GPU needs them.

    Raises:
      Stopped: a signal asked to end; the runs under way have committed what they had done.
      WorkerLost: a worker is gone.
    """
    known = dict(states)
    count = sum(state == "waiting" for state in known.values())
    begun = 0
    with _workers(min(jobs, max(count, 1)), pinned, logs) as (workers, asked):
        while True:
            for worker in workers:
                cell = None if worker.cell is not None or asked() else next_cell(cells, known, alike)
                if cell is None:
                    continue
                relatives = [other.folder for other in cells if other is not cell and alike(cell, other)]
                begun += 1
                say(f"[{begun}/{count}] {cell.folder} begins (progress: {worker.log})")
                known[cell.key], worker.cell = "running", cell
                worker.connection.send(("run", cell, relatives))
            if all(worker.cell is None for worker in workers):
                break
            for worker, answer in _answers(workers):
                cell, worker.cell = worker.cell, None
                assert cell is not None
                if answer == STOPPED:
                    continue
                known[cell.key] = "done" if answer["status"] == FINISHED else "lost"
                write(cell, answer)
        if (signum := asked()) is not None:
            raise Stopped(signum)


def play_finished(
    cells: Sequence[Cell],
    part: str,
    *,
    jobs: int,
    pinned: bool,
    logs: Path,
    write: Callable[[Cell, dict[str, Any]], None],
    say: Say,
) -> None:
    """Let each cell's run play a part of its row, and give what came out to `write`.

    Raises:
      Stopped: a signal asked to end; what was written counts.
      WorkerLost: a worker is gone.
    """
    left = list(cells)
    with _workers(min(jobs, max(len(cells), 1)), pinned, logs) as (workers, asked):
        while True:
            for worker in workers:
                if worker.cell is None and left and not asked():
                    worker.cell = left.pop(0)
                    say(f"[{len(cells) - len(left)}/{len(cells)}] {worker.cell.folder}: {LATER[part].words}")
                    worker.connection.send((part, worker.cell, ()))
            if all(worker.cell is None for worker in workers):
                break
            for worker, answer in _answers(workers):
                cell, worker.cell = worker.cell, None
                assert cell is not None
                if answer != STOPPED:
                    write(cell, answer)
        if (signum := asked()) is not None:
            raise Stopped(signum)


@contextmanager
def _workers(
    jobs: int, pinned: bool, logs: Path
) -> Iterator[tuple[list[Worker], Callable[[], signal.Signals | None]]]:
    """Workers, on a core each where they are pinned, and whether a signal has asked to end.

    It is passed on to them once. A second signal ends the study and its workers at once.
    """
    able = pinned and hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if able else []
    context = multiprocessing.get_context("spawn")
    workers: list[Worker] = []
    heard: list[signal.Signals] = []

    def hear(signum: int, _frame: object) -> None:
        if heard:
            for worker in workers:
                worker.process.kill()
            raise KeyboardInterrupt
        heard.append(signal.Signals(signum))
        for worker in workers:
            if worker.cell is not None:
                worker.process.terminate()

    before = {one: signal.signal(one, hear) for one in SIGNALS}
    try:
        for number in range(jobs):
            ours, theirs = context.Pipe()
            core = cores[number % len(cores)] if cores else None
            log = logs / f"worker-{number}.log"
            process = context.Process(target=serve, args=(theirs, core, log))
            with allocator.inherited():
                process.start()
            theirs.close()
            workers.append(Worker(process=process, connection=ours, log=log))
        yield workers, lambda: heard[0] if heard else None
    finally:
        for worker in workers:
            if worker.cell is not None and not heard:  # the study broke off
                worker.process.terminate()
            worker.connection.close()
        for worker in workers:
            worker.process.join(timeout=60)
        for one, handler in before.items():
            signal.signal(one, handler)


def _answers(workers: Sequence[Worker]) -> list[tuple[Worker, Any]]:
    """What workers answered, once at least one has."""
    busy = [worker for worker in workers if worker.cell is not None]
    ready = wait([worker.connection for worker in busy])
    found = []
    for worker in (worker for worker in busy if worker.connection in ready):
        try:
            answer = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            answer = _without_answer(worker)
        if isinstance(answer, Exception):
            raise answer
        found.append((worker, answer))
    return found


def _without_answer(worker: Worker) -> str:
    worker.process.join(timeout=60)
    if worker.process.exitcode == -signal.SIGTERM:
        return STOPPED  # between two of its run's commits, nobody heard it but the system
    raise WorkerLost(
        f"a worker ended with exit code {worker.process.exitcode}; its last words stand in {worker.log}"
    )
