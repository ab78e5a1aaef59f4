"""How costs grow with the work: python -m benchmarks.growth [--parts PART ...] [--write docs/growth.md]

Every part does the same work at several sizes, each in this process and once before it is timed where it
compiles something. Times are CPU seconds of the process, user and system. A part's exponent is the slope of
the logarithm of its seconds over that of its size, by least squares: 1 is in proportion, 2 with the square;
beside it that of its two largest sizes alone, where what every size costs weighs least. Exits with 1 where
either is above 1.1, attention's own excepted.

    tasks      pairing and packing of some 1,700 trajectories, 2 to 17 a task; the size is the number of pairs
    packing    pairing and packing, three trajectories a task
    slots      an episode in every slot of an engine, its answers made up: a prompt, turns, answers
    report     the page of a run with so many trajectories in one phase
    inspect, validate, convert    `launch.data` on so many rows of conversations
    learning   a step on one pair whose row is so long; attention's work grows with the square
"""

import argparse
import contextlib
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Read by jax when it is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn
import jax
import numpy as np

from benchmarks.peers import own_dpo
from benchmarks.soak import soak
from coevo_jax.commands.data import main as data
from coevo_jax.config.options import BatchConfig, MeshConfig, ModelConfig, OptimizerConfig, RolloutConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.data.packing.plan import pack
from coevo_jax.data.pairing import collect_pairs
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.hosts import allocator
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import jit_step, take_step
from coevo_jax.methods.better_over_worse import better_over_worse
from coevo_jax.methods.material import Material
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.report.html import write_report
from coevo_jax.report.markdown import replace_table, require_table, table
from coevo_jax.run_folder.environment import cores, cpu
from coevo_jax.sampling.engine import Engine, Request, Sampling
from coevo_jax.sharding import make_mesh
from coevo_jax.trajectory import Ending, Trajectory

TRAJECTORIES = 1_700
A_TASK = (2, 5, 9, 17)
MANY = (1_000, 10_000, 100_000)
SLOTS = (1, 8, 32, 128)
CONTEXTS = (512, 1_024, 2_048, 4_096, 8_192, 16_384)
LARGEST = 1.1
SQUARED = ("learning",)
TURNS, ANSWER, TURN = 6, 16, 16  # of an episode: its turns, and the tokens of either side's
PROMPT = 96


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A part at one size."""

    part: str
    of: str  # what the size counts
    size: int
    seconds: float  # of the processor
    words: str = ""


def exponent(found: Sequence[Timed]) -> float:
    """The slope of log seconds over log size, by least squares."""
    sizes, seconds = (np.log([getattr(one, name) for one in found]) for name in ("size", "seconds"))
    return float(np.polyfit(sizes, seconds, 1)[0])


def exponents(found: Sequence[Timed]) -> tuple[float, float]:
    """That of all sizes, and of the two largest."""
    return exponent(found), exponent(sorted(found, key=lambda one: one.size)[-2:])


def seconds_of(work: Callable[[], Any]) -> float:
    """CPU seconds of this process while it works."""
    start = time.process_time()
    work()
    return time.process_time() - start


def failures(total: int, a_task: int) -> list[Trajectory]:
    """Trajectories that branch as episodes of one task do: turns from three choices each, answers between."""
    rng = np.random.default_rng(0)
    system = rng.integers(2, 1000, 40)
    found: list[Trajectory] = []
    for task in range(max(total // a_task, 1)):
        prompt = np.concatenate([system, rng.integers(2, 1000, int(rng.integers(20, 60)))])
        choices = [[rng.integers(2, 1000, int(rng.integers(8, 20))) for _ in range(3)] for _ in range(8)]
        for sample in range(a_task):
            parts, own = [prompt], [np.zeros(len(prompt), bool)]
            for turn in choices[: int(rng.integers(2, 8))]:
                answer = rng.integers(2, 1000, int(rng.integers(3, 12)))
                parts += [turn[int(rng.integers(3))], answer]
                own += [np.ones(len(parts[-2]), bool), np.zeros(len(answer), bool)]
            tokens = np.concatenate(parts).astype(np.int32)
            found.append(
                Trajectory(
                    task_id=f"task-{task}",
                    agent="failure",
                    sample=sample,
                    prompt="",
                    turns=(),
                    reward=float(rng.random()) / 2,
                    ending=Ending.FAILED,
                    tokens=tokens,
                    agent_mask=np.concatenate(own),
                    logps=np.zeros(len(tokens), np.float32),
                )
            )
    return found


def pair_and_pack(found: Sequence[Trajectory]) -> int:
    """Pair better over worse and pack it all; the number of pairs."""
    material = Material(played=(found,), experts={})
    pairs = collect_pairs({"kind": better_over_worse(material)}, max_per_kind=1_000)
    pack(
        pairs,
        batch=BatchConfig(rows=1, row_length=768, views_per_row=12, pairs=32),
        kinds={"kind": KindWeights(dpo=1.0, sft=0.0)},
        order=("kind",),
        sft_extra={},
        sft_reduction="mean",
        pad_id=0,
        seed=0,
    )
    return len(pairs.pairs)


def tasks(_: Path) -> Iterator[Timed]:
    for a_task in A_TASK:
        found, pairs = failures(TRAJECTORIES, a_task), []
        seconds = seconds_of(lambda found=found, pairs=pairs: pairs.append(pair_and_pack(found)))
        words = f"{a_task} a task: {seconds / pairs[0] * 1e6:.0f} µs a pair"
        yield Timed(part="tasks", of="pairs", size=pairs[0], seconds=seconds, words=words)


def packing(_: Path) -> Iterator[Timed]:
    for size in MANY:
        found = failures(size, 3)
        seconds = seconds_of(lambda found=found: pair_and_pack(found))
        words = f"{seconds / size * 1e6:.0f} µs a trajectory"
        yield Timed(part="packing", of="trajectories", size=size, seconds=seconds, words=words)


def small_model() -> tuple[ModelConfig, int]:
    """The quickstart's size."""
    shape = {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "num_kv_heads": 4, "head_dim": 32}
    return ModelConfig(**shape, intermediate_size=384), 1024


def slots(_: Path) -> Iterator[Timed]:
    config, vocab = small_model()
    model = Transformer(config, vocab)
    params = nn.unbox(init_params(model, jax.random.key(0)))
    sampling = Sampling(root=jax.random.key(1), temperature=1.0)
    for count in SLOTS:
        rollout = RolloutConfig(slots=count, max_tokens=384, max_turn_tokens=TURN, decode_block=TURN)
        engine = Engine(model, rollout, end_id=vocab)  # which no draw is: every turn is as long
        weights = engine.load(params)

        def episodes(engine: Engine = engine, weights: Any = weights, count: int = count) -> None:
            rng = np.random.default_rng(0)
            engine.begin(weights)
            texts = {slot: rng.integers(2, vocab, PROMPT) for slot in range(count)}
            engine.prefill(weights, texts, frozenset(texts))
            for turn in range(TURNS):
                wanted = {slot: Request(budget=TURN, ids=(0, slot, 0, turn)) for slot in range(count)}
                engine.decode(weights, wanted, sampling, quota=count).fetch()
                engine.prefill(weights, {s: rng.integers(2, vocab, ANSWER) for s in wanted}, frozenset())

        episodes()
        repeats = max(1, 16 // count)
        wall = time.perf_counter()
        seconds = seconds_of(lambda repeats=repeats: [episodes() for _ in range(repeats)]) / repeats
        rate = repeats * count / (time.perf_counter() - wall)
        yield Timed(part="slots", of="slots", size=count, seconds=seconds, words=f"{rate:.1f} episodes/s")


def report(folder: Path) -> Iterator[Timed]:
    soak(1, folder, lambda _: None)
    run = next((folder / "runs").iterdir())
    shard = next((run / "trajectories" / "round-01").glob("target-*.parquet"))
    played = list(read_trajectories([shard]))
    for size in MANY:
        copy = folder / f"run-{size}"
        shutil.copytree(run, copy)
        many = (replace(played[i % len(played)], task_id=f"task-{i}") for i in range(size))
        write_trajectories(copy / shard.relative_to(run), many)
        seconds = seconds_of(lambda copy=copy: write_report(copy))
        words = f"{seconds / size * 1e6:.0f} µs a trajectory"
        yield Timed(part="report", of="trajectories", size=size, seconds=seconds, words=words)


def of_rows(command: str) -> Callable[[Path], Iterator[Timed]]:
    """A part that calls `launch.data COMMAND` on a file of so many rows."""

    def part(folder: Path) -> Iterator[Timed]:
        for size in MANY:
            path = folder / f"{command}-{size}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for row in range(size):
                    said = [{"role": "user", "content": f"Task {row}: say how much {row} and {row} is."}]
                    for turn in range(4):
                        said.append({"role": "assistant", "content": f"Thought: {turn}\nAction: add[{row}]"})
                        said.append({"role": "user", "content": f"Observation {turn}: {row + turn}"})
                    said.append({"role": "assistant", "content": f"Action: finish[{2 * row}]"})
                    file.write(json.dumps({"id": f"task-{row}", "messages": said, "reward": 1.0}) + "\n")
            target = ["--to", "eto-sft", "--out", str(folder / f"{command}-{size}.json")]
            words = [command, str(path), *(target if command == "convert" else [])]
            with contextlib.redirect_stdout(io.StringIO()):
                seconds = seconds_of(lambda words=words: data(words))
            each = f"{seconds / size * 1e6:.0f} µs a row"
            yield Timed(part=command, of="rows", size=size, seconds=seconds, words=each)

    return part


def learning(_: Path) -> Iterator[Timed]:
    config, vocab = small_model()
    mesh, optimizer = make_mesh(MeshConfig()), make_optimizer(OptimizerConfig())
    model = Transformer(config, vocab, choose_attention(config, mesh))
    shardings = state_shardings(model, optimizer, mesh)
    loss = one_loss(PREFERENCE_LOSSES["sigmoid"], (own_dpo.KIND,))
    beta, rate = np.float32(0.1), np.float32(1e-6)
    rng = np.random.default_rng(0)
    for size in CONTEXTS:
        sides = [rng.integers(2, vocab, size // 2).tolist() for _ in range(2)]
        mask = [0] * 16 + [1] * (size // 2 - 16)
        job = {
            "trajectories": [{"task": "task", "tokens": side, "mask": mask} for side in sides],
            "steps": [[(0, 1)]],
            "share_prefixes": True,
        }
        [batch] = own_dpo.batches_of(job)
        programs = jit_step(model, optimizer, loss, mesh, shardings, {})
        state = init_state(model, optimizer, shardings, 0)
        state, _metrics = take_step(programs, state, {}, [batch], beta, rate)
        jax.block_until_ready(state)
        start = time.process_time()
        jax.block_until_ready(take_step(programs, state, {}, [batch], beta, rate))
        seconds = time.process_time() - start
        words = f"{seconds / size * 1e6:.0f} µs a token"
        yield Timed(part="learning", of="tokens of a row", size=size, seconds=seconds, words=words)


PARTS: dict[str, Callable[[Path], Iterator[Timed]]] = {
    "tasks": tasks,
    "packing": packing,
    "slots": slots,
    "report": report,
    "inspect": of_rows("inspect"),
    "validate": of_rows("validate"),
    "convert": of_rows("convert"),
    "learning": learning,
}


def growth_table(found: Sequence[Timed]) -> str:
    """A row for each size, its part's exponents in the first."""
    rows: list[tuple[str, ...]] = []
    told: set[str] = set()
    for one in found:
        own = [other for other in found if other.part == one.part]
        slopes = ("", "") if one.part in told else tuple(f"{slope:.2f}" for slope in exponents(own))
        told.add(one.part)
        rows.append((one.part, f"{one.size:,} {one.of}", f"{one.seconds:.3g}", one.words, *slopes))
    return table(("part", "size", "CPU s", "that is", "exponent", "of the largest two"), rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table into a page, too")
    args = parser.parse_args(argv)
    if args.write:
        require_table("growth", args.write)
    found: list[Timed] = []
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            for one in PARTS[part](Path(folder)):
                print(f"{one.part}: {one.size:,} {one.of}: {one.seconds:.3g} s, {one.words}", file=sys.stderr)
                found.append(one)
    text = (
        f"{growth_table(found)}\n\nMade on {cpu()}, {cores()} cores, by "
        f"`python -m benchmarks.growth {shlex.join(sys.argv[1:] if argv is None else argv)}`."
    )
    print(text)
    if args.write:
        replace_table("growth", text, args.write)
    slopes = {part: max(exponents([one for one in found if one.part == part])) for part in args.parts}
    return 1 if any(slope > LARGEST for part, slope in slopes.items() if part not in SQUARED) else 0


if __name__ == "__main__":
    allocator.begin(os.environ, sys.orig_argv)
    sys.exit(main())
