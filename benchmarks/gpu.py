"""Measure a machine with an NVIDIA GPU within eight minutes. Not run on a GPU yet.

    python -m benchmarks.gpu --out measured            on jax 0.10.2 to 0.12 with a GPU
    python -m benchmarks.gpu --out proof --tiny        every part on a CPU, in sizes that say nothing

Attention's kernels beside dense products and a causal cuDNN call; DPO steps of Qwen3's 0.6 B and 1.7 B with
the kernels and with dense attention; roll-outs with 64 and 256 slots; numeric tests of the default suite on
the device; a short quickstart. Nothing is installed or downloaded. Each part is a process of its own with its
share of the time that is left; what a part needs and does not find ends it alone. Every figure is a line of
OUT/figures.jsonl as soon as it is there, and OUT/figures.md has the tables of all of them.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_tables import FIGURES, TABLES, read_figures, write_tables

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 480
GRACE = 5.0  # seconds between asking a part to end and ending it
LEAST = 3.0  # seconds that a part is begun for
TICK = 2.0  # seconds between two looks at what a part has written
# Files of the default suite that hold numbers against each other and need one device.
TESTS = (
    "models/test_flash_attention_gpu.py",
    "models/test_transformer.py",
    "sampling/test_decode.py",
    "learning/test_losses.py",
    "learning/test_head.py",
    "learning/test_optimizer.py",
)
SHORT = (
    "rounds=1",
    "warm_start.tasks=0:200",
    "warm_start.epochs=4",
    'explore.tasks=["600:680"]',
    "explore.block_tasks=80",
    "evaluate.tasks=0:50",
)
SHORTEST = (
    *("rounds=1", "warm_start.tasks=0:12", "warm_start.epochs=1", 'explore.tasks=["600:604"]'),
    *("explore.block_tasks=4", "evaluate.tasks=0:4", "tokenizer.vocab_size=512", "model.num_layers=1"),
    *("rollout.slots=4", "rollout.max_turn_tokens=8"),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process with its share of the time."""

    name: str
    share: float
    command: tuple[str, ...] = ()  # where it is not one of `benchmarks.gpu_parts`


def parts(out: Path, tiny: bool) -> list[Part]:
    """All parts, those that matter most first."""
    python = sys.executable
    files = [f"tests/{name}" for name in (TESTS[:1] if tiny else TESTS)]
    some = ("-k", "lists_name or wide_heads" if tiny else "not split_vocabulary")  # which takes four devices
    tests = (python, "-m", "pytest", "-vv", "-W", "default", "-p", "no:cacheprovider", "-m", "not slow")
    run = (
        python,
        "-m",
        "launch.train",
        "configs/quickstart.yaml",
        "name=quickstart",
        f"runs_dir={out / 'runs'}",
    )
    return [
        Part(name="machine", share=20),
        Part(name="attention", share=90),
        Part(name="step 0.6b flash", share=60),
        Part(name="step 1.7b flash", share=60),
        Part(name="step 0.6b dense", share=70),
        Part(name="roll-outs", share=80),
        Part(name="step 1.7b dense", share=60),
        Part(name="tests", share=40, command=(*tests, *files, *some)),
        Part(name="quickstart", share=60, command=(*run, *(SHORTEST if tiny else SHORT))),
    ]


NAMES = [one.name for one in parts(Path(), tiny=False)]


def environment(part: Part, out: Path, tiny: bool) -> dict[str, str]:
    """What a part's process finds set: what the launchers set, and where compiled programs stay."""
    told = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", "JAX_COMPILATION_CACHE_DIR": str(out / "jax")}
    told |= {"COEVO_CACHE": str(out / "cache"), "PYTHONPATH": str(ROOT)}
    if part.name == "tests":
        # Equal to the last digits of float32, which tensor cores round away unless they are told not to.
        told |= {"COEVO_TEST_PLATFORMS": "cpu" if tiny else "cuda,cpu"}
        told |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    return told | os.environ | ({"JAX_PLATFORMS": "cpu"} if tiny else {})


def play(part: Part, seconds: float, out: Path, tiny: bool) -> dict[str, Any]:
    """Run a part for so long at most; how it ended. What it says goes to OUT/PART.log."""
    log = out / f"{part.name}.log"
    own = (sys.executable, "-m", "benchmarks.gpu_parts", part.name, "--seconds", f"{seconds:.0f}")
    own += ("--figures", str(out / FIGURES), *(("--tiny",) if tiny else ()))
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            part.command or own,
            cwd=ROOT,
            env=environment(part, out, tiny),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = wait(process, began + seconds, out)
        finally:  # also where this process is told to end
            end(process)
    took = time.monotonic() - began
    words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if code is None:
        ended = f"cut off after {took:.0f} s"
    else:
        ended = "" if code == 0 else f"exit code {code}: {words[-1] if words else 'no word'}"
    return {"part": part.name, "took": took, "ended": ended}


def wait(process: subprocess.Popen[bytes], ends: float, out: Path) -> int | None:
    """The exit code of a part, None where its time is over; tables are written anew meanwhile."""
    while time.monotonic() < ends:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(TICK, max(ends - time.monotonic(), 0.0)))
        write_tables(out)
    return None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part and all that it has started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return


def read_tests(out: Path) -> dict[str, Any]:
    """How many tests passed, and which did not, in what pytest has said so far."""
    said = (out / "tests.log").read_text(errors="replace")
    found = re.findall(r"^(tests/\S+?)(?: <- \S+)? (PASSED|FAILED|ERROR|SKIPPED)", said, re.M)
    not_passed = [name for name, how in found if how in ("FAILED", "ERROR")]
    return {"passed": sum(how == "PASSED" for _, how in found), "not_passed": not_passed}


def read_quickstart(out: Path) -> dict[str, Any]:
    """The phases that a run has committed so far, with what they took, and its last evaluation."""
    manifest = out / "runs" / "quickstart" / "manifest.json"
    if not manifest.is_file():
        return {"phases": {}}
    done = json.loads(manifest.read_text())["done"]
    found: dict[str, Any] = {"phases": {one["name"]: one["seconds"] for one in done}}
    rewards = [one["records"]["summary"]["mean_reward"] for one in done if "/evaluate_" in one["name"]]
    return found | ({"mean_reward": rewards[-1]} if rewards else {})


READERS = {"tests": read_tests, "quickstart": read_quickstart}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for all figures, new or empty")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that it may take altogether (480)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help=f"only these of: {', '.join(NAMES)}")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    args = parser.parse_args(argv)
    for name in args.parts or ():
        if name not in NAMES:
            parser.error(f"--parts: found {name!r}, expected of {', '.join(map(repr, NAMES))}")
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"--out {args.out}: found files, expected a new or empty folder")
    return args


def main() -> int:
    """Run the parts one after the other; exit code 0 where each ended by itself and well."""
    args = parse()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = [one for one in parts(out, args.tiny) if one.name in (args.parts or NAMES)]
    ends, whole = time.monotonic() + args.seconds, True
    for number, part in enumerate(chosen):
        left = ends - time.monotonic()
        seconds = left * part.share / sum(one.share for one in chosen[number:])
        result = {"part": part.name, "took": 0.0, "ended": "not begun: its time was over"}
        if seconds > LEAST:
            result = play(part, seconds, out, args.tiny)
            result |= READERS[part.name](out) if part.name in READERS else {}
        whole = whole and not result["ended"]
        with (out / FIGURES).open("a") as file:
            file.write(f"{json.dumps(result)}\n")
        write_tables(out)
        print(f"{part.name}: {result['took']:.0f} s {result['ended']}", flush=True)
        if part.name == "machine" and not args.tiny and not has_gpu(out):
            print("error: JAX finds no GPU here; --tiny runs every part on a CPU", file=sys.stderr)
            return 2
    print((out / TABLES).read_text())
    return 0 if whole else 1


def has_gpu(out: Path) -> bool:
    """Whether the first part has found one."""
    return any(one.get("platform") in ("gpu", "cuda") for one in read_figures(out))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
