"""kill -9 of training processes, at a moment of the clock or right before a write, and what is resumed."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.faults import outcomes
from benchmarks.faults.live import leftovers
from benchmarks.faults.outcomes import Injected
from benchmarks.faults.scene import Whole, differences, train, write_config

ROOT = Path(__file__).resolve().parents[2]
CLOCK, WRITE = "kill -9 by the clock", "kill -9 before a write"
MOST_SECONDS = 600.0
WRITES = 60  # of a short run, about


def kill_often(whole: Whole, times: int, rng: random.Random, scratch: Path) -> list[Injected]:
    """Begin a run, kill it so many times, each time going on from there, and let it end at last."""
    arguments = write_config(whole.method, scratch)
    runs = scratch / "runs"
    killed: list[tuple[str, str]] = []
    try:
        for _ in range(times):
            fault = rng.choice((CLOCK, WRITE))
            before = rng.randrange(1, WRITES) if fault == WRITE else 0
            after = rng.uniform(0.0, 8.0)
            process, ended = _start(arguments, before, runs), None
            try:
                if fault == WRITE:
                    ended = process.wait(MOST_SECONDS)
                else:
                    _await_begin(process, runs)
                    ended = process.wait(after)
            except subprocess.TimeoutExpired:
                process.kill()
                ended = process.wait()
            where = f"write {before}" if fault == WRITE else f"{after:.1f} s"
            if ended == 0:
                break  # it has ended before: nothing was killed
            if ended != -9:
                words = (scratch / "output.txt").read_text()[-600:]
                row = {"fault": fault, "how": "process", "method": whole.method, "where": where}
                return [Injected(**row, outcome=outcomes.TRACEBACK, words=words)]
            killed.append((fault, where))
        outcome, words, lost = _end(whole, arguments, runs)
    finally:
        shutil.rmtree(scratch)
    return [
        Injected(
            fault=fault,
            how="process",
            method=whole.method,
            where=where,
            outcome=outcome,
            lost=lost if number == 0 else 0,
            words=words,
        )
        for number, (fault, where) in enumerate(killed)
    ]


def _start(arguments: list[str], before: int, runs: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.faults.child", str(before), str(runs)]
    with (runs.parent / "output.txt").open("wb") as sink:
        return subprocess.Popen(
            [*command, "--auto-resume", *arguments], cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT
        )


def _await_begin(process: subprocess.Popen, runs: Path) -> None:
    """Wait until the process holds its run, or ends: imports take longer than a small run."""
    begun = time.monotonic()
    known = _newest(runs)
    while process.poll() is None and _newest(runs) == known:
        if time.monotonic() - begun > MOST_SECONDS:
            return
        time.sleep(0.02)


def _newest(runs: Path) -> float:
    return max((path.stat().st_mtime for path in runs.glob("*/.lock")), default=0.0)


def _end(whole: Whole, arguments: list[str], runs: Path) -> tuple[str, str, int]:
    ended = train("--auto-resume", *arguments)
    if ended.code:
        return (outcomes.TRACEBACK if ended.traceback else outcomes.LOST), ended.error[-600:], 1
    found = differences(whole.folder, runs / whole.method)
    if left := leftovers(runs):
        return outcomes.OTHER_BITS, f"left behind: {left[0]}", 0
    return (outcomes.OTHER_BITS, found[0], len(found)) if found else (outcomes.SAME_BITS, "", 0)
