"""The allocator that keeps what is freed: taken where it helps, once, and inherited by nobody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coevo_jax.hosts import allocator

ROOT = Path(__file__).resolve().parents[2]

SAY = (
    "import os, sys; from coevo_jax.hosts import allocator; "
    "allocator.begin(os.environ, sys.orig_argv); "
    "print(os.getpid(), allocator.keeps_freed_memory(), allocator.VARIABLE in os.environ, sys.argv[1:])"
)


def said(**environment: str) -> tuple[int, list[str]]:
    """The process that was started, and what the one that it became says."""
    chosen = (allocator.VARIABLE, allocator.OPTION, "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    process = subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", SAY, "a b", "--c"],
        stdout=subprocess.PIPE,
        text=True,
        env=kept | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, out.split(maxsplit=3)


@pytest.mark.skipif(not allocator._glibc(), reason="only glibc has these tunables")
def test_a_process_starts_over_once_as_itself_and_passes_nothing_on():
    pid, (own, kept, left, arguments) = said()
    assert (int(own), kept, left) == (pid, "True", "False")
    assert arguments.strip() == "['a b', '--c']"


@pytest.mark.parametrize(
    "chosen",
    [
        {allocator.OPTION: allocator.SYSTEM},
        {allocator.VARIABLE: "glibc.malloc.arena_max=2"},
        {"JAX_PLATFORMS": "cuda,cpu"},
    ],
)
def test_a_choice_of_the_users_and_accelerators_leave_it_alone(chosen):
    _, (_, kept, left, _) = said(**chosen)
    assert (kept, left) == ("False", str(allocator.VARIABLE in chosen))


def test_another_allocator_is_left_alone():
    assert not allocator.helps({"JAX_PLATFORMS": "cpu", "LD_PRELOAD": "libjemalloc.so.2"})


def test_what_a_study_starts_inherits_it_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(allocator, "_kept", True)
    monkeypatch.delenv(allocator.VARIABLE, raising=False)
    with allocator.inherited():
        child = dict(os.environ)
    assert allocator.VARIABLE not in os.environ
    assert allocator.took(child)
    assert allocator.VARIABLE not in child


@pytest.mark.parametrize("words", [("-m", "launch.train", "--help"), ("-m", "launch.report", "nowhere")])
def test_a_command_says_the_same_after_it_has_started_over(words):
    kept = {name: value for name, value in os.environ.items() if name != allocator.VARIABLE}
    told = []
    for choice in (allocator.SYSTEM, "keep"):
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=kept | {allocator.OPTION: choice},
            check=False,
        )
        told.append((done.returncode, done.stdout, done.stderr))
    assert told[0] == told[1]
