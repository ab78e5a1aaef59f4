"""Runs of several real processes on one machine, over CPU collectives."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.shared import made_once
from tests.tiny import write_config

ROOT = Path(__file__).resolve().parents[2]
QUICK = (  # to compile: every process compiles all programs
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
# Of the flags that the suite runs with, this makes every process a quarter cheaper; not every XLA knows it.
EMITTERS = "--xla_cpu_use_fusion_emitters=false"
DEVICES = 4  # of all processes together: the mesh is the same whatever their number
MIDDLE = "learn_target 2"  # a commit in the middle of a learning phase
TINY = [
    "mesh={data: 2, fsdp: 2}",
    "model.num_layers=1",
    "warm_start={tasks: '0:24', epochs: 4, learning_rate: 2e-2}",
    "explore={tasks: ['40:49'], samples: 2, block_tasks: 6}",
    "evaluate={split: dev, tasks: ':6'}",
    "recipe=frozen-failure",
    "agents.target.epochs=1",
    "rounds=2",
    "checkpoint={every_steps: 2, keep: 100}",
]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that is over."""

    code: int
    output: str
    error: str


def launch(
    count: int,
    *arguments: str | Path,
    environment: dict[str, str] | None = None,
    own: Sequence[Sequence[str]] = (),
    timeout: float = 300,
) -> list[Ended]:
    """Run `python -m tests.hosts.train ARGUMENTS` in `count` processes until all have ended.

    Args:
      own: further arguments of each process.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = os.environ | (environment or {})
    known = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag == EMITTERS]
    shared["XLA_FLAGS"] = " ".join(
        [f"--xla_force_host_platform_device_count={DEVICES // count}", QUICK, *known]
    )
    if count > 1:
        shared |= {"COEVO_COORDINATOR": f"127.0.0.1:{port}", "COEVO_PROCESSES": str(count)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.train", *arguments, *(own[number] if own else ())],
            cwd=ROOT,
            env=shared | ({"COEVO_PROCESS_ID": str(number)} if count > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        said = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [
        Ended(code=process.returncode, output=out, error=error)
        for process, (out, error) in zip(started, said, strict=True)
    ]


def play(folder: Path, count: int, **at: str) -> Path:
    """A whole run of `count` processes; returns its folder."""
    ended = launch(count, write_config(folder), f"runs_dir={folder / 'runs'}", *TINY, environment=at)
    assert [one.code for one in ended] == [0] * count, ended[-1].error
    return folder / "runs" / "tiny"


def at(phase: str, what: str, process: int) -> dict[str, str]:
    return {"COEVO_TEST_AT": phase, "COEVO_TEST_DO": what, "COEVO_TEST_BY": str(process)}


def run_of_one(factory: pytest.TempPathFactory) -> Path:
    """A run of one process, made once; beside it what was on disk in the middle of its second round."""

    def make(folder: Path) -> None:
        play(folder, 1, **at(f"round-02/{MIDDLE}", f"copy {folder / 'middle' / 'tiny'}", 0))

    return made_once(factory, "hosts-one", make) / "runs" / "tiny"


def run_of_two(factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, made once."""
    return made_once(factory, "hosts-two", lambda folder: play(folder, 2)) / "runs" / "tiny"
