"""Contenders of `benchmarks.learning` as child processes: started, given turns, and measured."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.methods import ROOT
from benchmarks.pair_sets import PairSteps, Step

EPOCHS = 3  # that share one scoring of the references
LEAST_STEPS = 2  # timed, however long they take
# Keep freed memory instead of giving it back to the system: TRL is about twice as fast with it.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
# Tunix holds about so many arrays of a microbatch's float32 logits at once (measured: 8.4 GB at 8 x 1024
# tokens and a vocabulary of 32,000).
TUNIX_LOGITS = 8
# Twice the arrays of a layer's scores that dense attention holds (2.4 GiB at 2,944 tokens): peers follow it.
DENSE_SCORES = 10
OWN = "coevo_jax"
BEFORE = "coevo_jax before"
PLAIN = "coevo_jax, prefixes not shared"
DENSE = "coevo_jax, dense attention"
OURS = OWN, BEFORE, PLAIN, DENSE
SHIMMED = "TRL, its library told of an Intel CPU"
# What Intel's library asks before it takes the kernels that it has for Intel's processors.
SHIM = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a contender reported: once ready, of its first step, and of each timed one."""

    ready: dict[str, Any]
    first: dict[str, Any]
    steps: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One set of pairs at one vocabulary."""

    model: dict[str, Any]
    vocab_size: int
    pair_steps: PairSteps
    peer_pairs: int  # of every step, the first ones: what peers train on
    measured: dict[str, Measured] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All raw times, with the pairs' sizes instead of their tokens."""
        sizes = [
            {"pairs": len(step), "tokens": self.pair_steps.tokens(step)} for step in self.pair_steps.steps
        ]
        return {
            "pairs": self.pair_steps.name,
            "model": self.model,
            "steps": sizes,
            "contenders": {name: asdict(measured) for name, measured in self.measured.items()},
            "peer_pairs": self.peer_pairs,
            "skipped": self.skipped,
        }

    def steps_of(self, name: str) -> list[Step]:
        """The pairs that a contender trains on, step by step."""
        return [step if name in OURS else step[: self.peer_pairs] for step in self.pair_steps.steps]


class ContenderError(Exception):
    """A contender's process ended before its turn did."""


class Contender:
    """A child process that trains one step whenever it is told to."""

    def __init__(
        self,
        name: str,
        python: Path,
        module: str,
        job: Path,
        environment: Mapping[str, str],
        tree: Path = ROOT,
    ) -> None:
        self.name = name
        self._log = job.with_suffix(".log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", module, str(job)],
                cwd=tree,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def read(self) -> dict[str, Any]:
        """The next report. Raises ContenderError with the end of what the process printed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            tail = "\n".join(self._log.read_text().splitlines()[-12:])
            raise ContenderError(f"{self.name} ended with exit code {code}:\n{tail}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: reading says how
        return self.read()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def measure_cell(args: argparse.Namespace, job: dict[str, Any], cell: Cell, scratch: Path) -> None:
    """All contenders on one set of pairs, in turn, or one after the other where `args.apart` says so."""
    entries = _entries(args, job, cell, scratch)
    groups = [[entry] for entry in entries] if args.apart else [entries]
    for group in groups:
        alive: list[tuple[Contender, dict[str, Any]]] = []
        try:
            for entry in group:
                _start(entry, job, scratch, cell, alive)
            _take_turns(alive, args.seconds, cell)
        finally:
            for contender, _ in alive:
                contender.close()


def _shim(scratch: Path) -> Path:
    """A library that tells Intel's matrix library that the processor is Intel's, made by the C compiler."""
    library = scratch / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=SHIM, text=True, check=True)
    return library


def _entries(
    args: argparse.Namespace, job: dict[str, Any], cell: Cell, scratch: Path
) -> list[dict[str, Any]]:
    """Who takes part: name, interpreter, module, settings of the job, environment."""
    own_environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if job["cpu"]:
        own_environment["JAX_PLATFORMS"] = "cpu"
    own = {"python": Path(sys.executable), "module": "benchmarks.peers.own_dpo", "env": own_environment}
    entries = [{**own, "name": OWN, "settings": {"share_prefixes": True}}]
    if args.before is not None:
        entries.append({**entries[0], "name": BEFORE, "tree": args.before})
    if args.plain:
        entries.append({**own, "name": PLAIN, "settings": {"share_prefixes": False}})
        entries.append({**own, "name": DENSE, "settings": {"share_prefixes": True, "attention": "dense"}})
    if args.trl is not None:
        threads = str(args.threads)
        entries.append(
            {
                "name": "TRL",
                "python": args.trl,
                "module": "benchmarks.peers.trl_dpo",
                "settings": {"microbatch_pairs": min(args.trl_pairs, cell.peer_pairs)},
                "env": {**MALLOC, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
            }
        )
        if args.shim:
            preload = {"LD_PRELOAD": str(_shim(scratch))}
            entries.append({**entries[-1], "name": SHIMMED, "env": {**entries[-1]["env"], **preload}})
    if args.tunix is not None:
        entries.append(
            {
                "name": "Tunix",
                "python": args.tunix,
                "module": "benchmarks.peers.tunix_dpo",
                "settings": {"microbatch_pairs": min(args.tunix_pairs, cell.peer_pairs)},
                "env": own_environment,
            }
        )
    return entries


def _start(
    entry: dict[str, Any],
    job: dict[str, Any],
    scratch: Path,
    cell: Cell,
    alive: list[tuple[Contender, dict[str, Any]]],
) -> None:
    """Start one contender and wait until it is ready; a peer that cannot run is left out, with the reason."""
    name = entry["name"]
    label = f"{cell.pair_steps.name}, {cell.vocab_size:,}, {name}"
    if job["cpu"] and (problem := _too_large(entry, job, cell)):
        cell.skipped.append(f"{label}: not run, {problem}")
        return
    path = scratch / f"{name.replace(' ', '-')}-{cell.vocab_size}-{cell.pair_steps.name}.json"
    steps = cell.steps_of(name)
    # The pairs of the first step come twice: once to warm up.
    path.write_text(json.dumps({**job, **entry["settings"], "steps": [steps[0], *steps]}))
    tree = entry.get("tree", ROOT)
    contender = Contender(name, entry["python"], entry["module"], path, entry["env"], tree)
    try:
        ready = contender.read()
    except ContenderError as error:
        contender.close()
        _leave_out(name, label, error, cell)
        return
    print(f"{label}: ready after {ready['seconds']:.0f} s", file=sys.stderr, flush=True)
    alive.append((contender, ready))


def _take_turns(alive: list[tuple[Contender, dict[str, Any]]], seconds: float, cell: Cell) -> None:
    """One warm-up step of each, then timed steps in turn, until the time is up."""
    taking = list(alive)
    start = time.monotonic()
    for number in range(len(cell.pair_steps.steps) + 1):
        if number == 1:
            start = time.monotonic()
        elif number > LEAST_STEPS and time.monotonic() - start > seconds:
            break
        for contender, ready in list(taking):
            if contender.name == "Tunix" and number > LEAST_STEPS:
                continue  # it is the slowest, and not what the others are compared with
            label = f"{cell.pair_steps.name}, {cell.vocab_size:,}, {contender.name}"
            try:
                report = contender.step()
            except ContenderError as error:
                _leave_out(contender.name, label, error, cell)
                cell.measured.pop(contender.name, None)
                taking.remove((contender, ready))
                continue
            if number == 0:
                cell.measured[contender.name] = Measured(ready=ready, first=report, steps=[])
            else:
                cell.measured[contender.name].steps.append(report)
            print(
                f"{label}: step {number}: {report['seconds']:.2f} s, {report['cpu']:.2f} s of processor, "
                f"loss {report['loss']:.4f}",
                file=sys.stderr,
                flush=True,
            )


def _leave_out(name: str, label: str, error: ContenderError, cell: Cell) -> None:
    if name in OURS and name != DENSE:
        raise SystemExit(str(error))
    print(error, file=sys.stderr, flush=True)
    cell.skipped.append(f"{label}: not measured, {str(error).splitlines()[-1]}")


def _too_large(entry: dict[str, Any], job: dict[str, Any], cell: Cell) -> str | None:
    """Why one would not fit beside the others: Tunix holds logits, dense attention scores, of whole rows."""
    model = job["model"]
    if entry["name"] == "Tunix":
        longest = max(len(one["tokens"]) for one in job["trajectories"])
        logits = 2 * entry["settings"]["microbatch_pairs"] * longest * model["vocab_size"] * 4
        needed = TUNIX_LOGITS * logits
    elif entry["name"] == DENSE:
        longest = max(cell.pair_steps.unique_tokens(step) for step in cell.pair_steps.steps)
        scores = longest**2 * model["num_attention_heads"] * 4 // 2  # up to the diagonal
        needed = DENSE_SCORES * model["num_hidden_layers"] * scores
    else:
        return None
    free = available_memory()
    if needed < free:
        return None
    return f"it needs about {needed / 2**30:.0f} GiB, {free / 2**30:.0f} are free"


def available_memory() -> int:
    """Bytes that processes can still take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
