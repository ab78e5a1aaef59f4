"""Faults while a run plays and learns: environments, a full disk, rights taken away, poisoned parameters."""

import collections
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.faults import outcomes
from benchmarks.faults.gate import ruled
from benchmarks.faults.letters import KILLED, KINDS, ROUNDED, FaultyOptions, broken
from benchmarks.faults.outcomes import Injected
from benchmarks.faults.scene import Ended, Whole, differences, faulty, train, write_config
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.learning.train_state import Agents
from coevo_jax.phases.table import PHASES
from coevo_jax.trajectory import Ending, Trajectory

FULL, TMPFS, FORBIDDEN = "the disk full at a write", "a small disk fills up", "writing is forbidden"
NAN = "parameters are NaN"
SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-\d{5}\.parquet")
KEPT = (".lock",)
BROKEN = (Ending.FAULT, Ending.LOST)


def break_environment(method: str, rng: random.Random, scratch: Path, apart: bool) -> list[Injected]:
    """A run whose environment breaks at some steps; a row for each that did.

    Args:
      apart: the environments are processes of their own, which are killed.
    """
    kinds = [KILLED] if apart else list(KINDS)
    done_in = scratch / "done.txt"
    arguments = write_config(method, scratch)
    rate = 0.06 if apart else rng.choice([0.1, 0.2, 0.3])
    options = FaultyOptions(
        kinds=tuple(kinds), rate=rate, fault_seed=rng.randrange(10**6), done_in=str(done_in)
    )
    ended = train(*arguments, *faulty(options))
    done = done_in.read_text().splitlines() if done_in.is_file() else []
    try:
        return _rows(method, ended, done, scratch / "runs" / method, options)
    finally:
        shutil.rmtree(scratch)


def _rows(method: str, ended: Ended, done: list[str], folder: Path, options: FaultyOptions) -> list[Injected]:
    if ended.code:
        outcome = outcomes.TRACEBACK if ended.traceback else outcomes.BROKE_OFF
        return [
            Injected(fault=kind, method=method, where="a step", outcome=outcome, words=ended.error[-600:])
            for kind in done
        ]
    faults, entered, words = look_through(folder, options)
    # Some steps break where what was played is played again, which makes no episode.
    seen = faults <= len(done)
    words = words if seen else f"{len(done)} steps broke, {faults} episodes are faults; {words}"
    rows = []
    for number, kind in enumerate(done):
        outcome = outcomes.CLAMPED if kind == ROUNDED else outcomes.WENT_ON
        rows.append(
            Injected(
                fault=kind,
                method=method,
                where="a step",
                outcome=outcome if seen else outcomes.UNSEEN,
                entered=entered if number == 0 else 0,
                words=words,
            )
        )
    return rows


def look_through(folder: Path, options: FaultyOptions) -> tuple[int, int, str]:
    """The episodes of a run that are faults, how often one entered what is learned, and the first such.

    An episode with a step at which the environment breaks, and which is no fault, is one that entered.
    """
    faulty_ones: dict[int, set[tuple[str, str, int]]] = collections.defaultdict(set)
    found: list[str] = []
    count = 0
    for path in sorted((folder / "trajectories").glob("round-*/*.parquet")):
        named = SHARD.fullmatch(path.name)
        assert named is not None
        number = int(path.parent.name.removeprefix("round-"))
        for one in read_trajectories([path]):
            if one.ending in BROKEN:
                count += 1
                faulty_ones[number].add((named["name"], one.task_id, one.sample))
            elif lies := [kind for kind in _breaking(options, one) if kind != ROUNDED]:
                found.append(f"{path.name}: {one.task_id}, sample {one.sample} is no fault: {lies[0]}")
    for path in sorted((folder / "pairs").glob("round-*.jsonl")):
        for line in path.read_text().splitlines():
            pair = json.loads(line)
            sides = [(pair[side]["source"], pair["task_id"], pair[side]["sample"]) for side in _SIDES]
            found += [f"{path.name}: {side}" for side in sides if side in faulty_ones[_round(path)]]
    for path in sorted((folder / "plans").glob("round-*.json")):
        for one in json.loads(path.read_text())["trajectories"]:
            place = (one["source"], one["task_id"], one["sample"])
            found += [f"{path.name}: {place}"] if place in faulty_ones[_round(path)] else []
    return count, len(found), found[0] if found else ""


_SIDES = ("chosen", "rejected")


def _breaking(options: FaultyOptions, one: Trajectory) -> list[str]:
    """How the environment breaks at the steps of an episode."""
    actions = [turn.action for turn in one.turns if turn.action]
    kinds = [broken(options, one.task_id, turn, action) for turn, action in enumerate(actions, start=1)]
    return [kind for kind in kinds if kind is not None]


def _round(path: Path) -> int:
    return int(path.name.removeprefix("round-")[:2])


def fill_disk(whole: Whole, fault: str, rng: random.Random, scratch: Path) -> Injected | None:
    """A run that cannot write from some moment on, and then can again; None where no disk can be mounted."""
    arguments = [*write_config(whole.method, scratch)]
    runs = scratch / "runs"
    runs.mkdir()
    if fault == TMPFS:
        size = sum(path.stat().st_size for path in whole.folder.rglob("*") if path.is_file())
        room = rng.randrange(100_000, max(size, 200_000)) // 4096 * 4096
        with small_disk(runs, room) as grow:
            if grow is None:
                return None
            return _refused_then_whole(whole, fault, f"{room:,} bytes", arguments, grow)
    writes = 0

    def count(path: str, writing: bool) -> None:
        nonlocal writes
        writes += writing

    with ruled(runs, count):
        ended = train(*arguments)
    assert ended.code == 0, ended.error
    shutil.rmtree(runs / whole.method)
    last = rng.randrange(1, writes)
    number = 28 if fault == FULL else 13
    done = 0

    def refuse(path: str, writing: bool) -> None:
        nonlocal done
        done += writing
        if writing and done > last:
            raise OSError(number, os.strerror(number), path)

    lift = contextlib.ExitStack()
    lift.enter_context(ruled(runs, refuse))
    try:
        return _refused_then_whole(whole, fault, f"write {last} of {writes}", arguments, lift.close)
    finally:
        lift.close()
        shutil.rmtree(scratch)


def _refused_then_whole(whole: Whole, fault: str, where: str, arguments: list[str], lift: Any) -> Injected:
    """A run that is refused for as long as a rule is in force, and goes on once it is lifted."""
    ended = train("--auto-resume", *arguments)
    lift()
    row = {"fault": fault, "method": whole.method, "where": where}
    told = ended.code == 2 and ("No space left" in ended.error or "Permission denied" in ended.error)
    if ended.traceback or (ended.code and not told):
        outcome = outcomes.TRACEBACK if ended.traceback else outcomes.UNNAMED
        return Injected(**row, outcome=outcome, words=ended.error[-600:])
    return resumed(whole, row, arguments, ended.words)


def resumed(whole: Whole, row: dict[str, str], arguments: list[str], words: str) -> Injected:
    """The row of a fault after which the same command is given again."""
    again = train("--auto-resume", *arguments)
    folder = Path(arguments[1].partition("=")[2]) / whole.method
    if again.code:
        return Injected(**row, outcome=outcomes.LOST, lost=1, words=again.error[-600:])
    kept = ("nonfinite/",) if row["fault"] == NAN else ()  # the batch of a broken step is a file more
    found = differences(whole.folder, folder, kept)
    left = leftovers(folder.parent)
    if found or left:
        return Injected(**row, outcome=outcomes.OTHER_BITS, lost=len(found), words=(found or left)[0])
    return Injected(**row, outcome=outcomes.SAME_BITS, words=words[:300])


def leftovers(runs: Path) -> list[str]:
    """Temporary files and folders that nobody has removed."""
    return [str(path.relative_to(runs)) for path in runs.rglob(".*") if path.name not in KEPT]


@contextlib.contextmanager
def small_disk(place: Path, room: int) -> Iterator[Any]:
    """A disk of so many bytes at a place, and what makes it larger; None without the right to mount one."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place.parent)


def poison(whole: Whole, rng: random.Random, scratch: Path) -> Injected:
    """All parameters become NaN before a phase; then the run is begun again where it was."""
    arguments = write_config(whole.method, scratch)
    phases = json.loads((whole.folder / "manifest.json").read_text())["done"]
    name = rng.choice([record["name"] for record in phases if record["name"] != "prepare"])

    def poisoned(play: Any) -> Any:
        def play_poisoned(run: Any, world: Any, agents: Agents, phase: Any) -> Agents:
            if phase.name == name:
                states = {agent: _all_nan(state) for agent, state in agents.states.items()}
                agents = Agents(states=states, frozen=agents.frozen)
            return play(run, world, agents, phase)

        return play_poisoned

    try:
        with mock.patch.dict(PHASES, {kind: poisoned(play) for kind, play in PHASES.items()}):
            ended = train("--auto-resume", *arguments)
        row = {"fault": NAN, "method": whole.method, "where": name}
        if ended.traceback:
            return Injected(**row, outcome=outcomes.TRACEBACK, words=ended.error[-600:])
        if not ended.code:
            _, entered, words = look_through(scratch / "runs" / whole.method, FaultyOptions())
            found = differences(whole.folder, scratch / "runs" / whole.method)
            return Injected(
                **row,
                outcome=outcomes.ENTERED if found else outcomes.UNREAD,
                entered=entered or len(found),
                words=words or "; ".join(found[:2]),
            )
        return resumed(whole, row, arguments, ended.words)
    finally:
        shutil.rmtree(scratch)


def _all_nan(state: Any) -> Any:
    return dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
