"""Runs of several real processes on one machine, over CPU collectives."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = (  # to compile: every process compiles all programs
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
DEVICES = 4  # of all processes together: the mesh is the same whatever their number
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
    shared["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES // count} {QUICK}"
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
