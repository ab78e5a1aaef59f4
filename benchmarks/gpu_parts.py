"""The parts of `benchmarks.gpu`, each run by a process of its own: python -m benchmarks.gpu_parts PART ...

A part writes each of its figures as soon as it is there, as a line of JSON, and begins nothing that cannot
end in its time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from benchmarks import attention
from benchmarks.backbone import VOCAB, peak_memory
from benchmarks.learning import GIB, model_shape
from benchmarks.peers.own_dpo import KIND, PLAIN_DPO, model_config, pair_sets
from benchmarks.peers.own_generate import END, IdChat, Listed, stop_after
from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.options import BatchConfig, MeshConfig, ModelConfig, OptimizerConfig, RolloutConfig
from coevo_jax.data.packing.plan import pack
from coevo_jax.envs.pool import EnvPool
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import jit_step, take_step
from coevo_jax.machine.chips import CHIPS
from coevo_jax.machine.costs import rows_flops
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.attention_kinds import PreparedAttention
from coevo_jax.models.flash_attention_gpu import flash_attention_gpu, prepare
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.models.tree_attention import seen_blocks
from coevo_jax.rollout import play
from coevo_jax.sampling.engine import Engine, Request, Sampling
from coevo_jax.sharding import make_mesh

ATTENTIONS = {"flash": PreparedAttention(flash_attention_gpu, prepare), "dense": dense_attention}
BLOCK = 64  # tokens: what is visible is counted in blocks of so many queries and keys
SHARED = 3 / 8  # of a tree's tokens, by all of its branches
# Trees of a row, branches of a tree, and its pairs, by branch
TREES = {
    "many pairs": (8, 2, ((0, 1),)),
    "co-evolution": (4, 5, (*((0, n) for n in range(1, 5)), (1, 3), (1, 4), (2, 3), (2, 4))),
    "one long pair": (1, 2, ((0, 1),)),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is; `tiny` proves the code on a CPU."""

    lengths: tuple[int, ...] = (4096, 16_384)  # of attention's rows
    dense_tokens: int = 8192  # longest rows whose scores are all kept
    heads: tuple[int, int] = (16, 8)
    width: int = 128
    dtype: str = "bfloat16"
    times: int = 10
    presets: dict[str, str] = field(default_factory=lambda: {"0.6b": "0.6b", "1.7b": "1.7b"})
    vocab_size: int = VOCAB
    rows: int = 8  # of a learning step
    row_length: int = 4096
    steps: int = 4
    slots: tuple[int, ...] = (64, 256)
    prompt: int = 768
    decoded: int = 256
    turn: int = 32


TINY = Sizes(
    lengths=(128, 256),
    dense_tokens=128,
    heads=(2, 1),
    width=16,
    dtype="float32",
    times=1,
    presets={"0.6b": "tiny", "1.7b": "tiny"},
    vocab_size=32_000,
    rows=1,
    row_length=256,
    steps=1,
    slots=(2, 4),
    prompt=96,
    decoded=64,
    turn=8,
)
Write = Callable[..., None]


@dataclass(frozen=True)
class Clock:
    """The seconds that a part has."""

    ends: float

    def has(self, seconds: float) -> bool:
        return time.monotonic() + seconds < self.ends


def machine(sizes: Sizes, write: Write, clock: Clock) -> None:
    """What there is to measure."""
    device = jax.devices()[0]
    capability = str(getattr(device, "compute_capability", ""))
    chip = CHIPS.get(device.device_kind)
    write(
        device=device.device_kind,
        platform=device.platform,
        capability=capability,
        devices=len(jax.devices()),
        jax=jax.__version__,
        declared_tflops=None if chip is None else chip.flops / 1e12,
        memory_gib=((device.memory_stats() or {}).get("bytes_limit", 0)) / GIB,
    )


def attend(sizes: Sizes, write: Write, clock: Clock) -> None:
    """The kernels beside dense products and a causal cuDNN call: milliseconds, and how far values differ."""
    for length in sizes.lengths:
        shape = attention.Shape(length=length, heads=sizes.heads, width=sizes.width, dtype=sizes.dtype)
        compiled = attention.contenders(shape, ATTENTIONS["flash"], sizes.dense_tokens)
        for kind in attention.ROWS:
            write(**attention.measure(shape, kind, compiled, sizes.times))


def step_of(preset: str, name: str) -> Callable[[Sizes, Write, Clock], None]:
    """DPO steps of a model with one kind of attention, over rows of several kinds."""

    def measure(sizes: Sizes, write: Write, clock: Clock) -> None:
        shape = model_shape(sizes.presets[preset], sizes.vocab_size)
        job = {"model": shape, "dtype": sizes.dtype, "attention": "auto", "remat": "full"}
        config, mesh = model_config(job), make_mesh(MeshConfig())
        model = Transformer(config, sizes.vocab_size, ATTENTIONS[name])
        optimizer = make_optimizer(OptimizerConfig())
        shardings = state_shardings(model, optimizer, mesh)
        state = init_state(model, optimizer, shardings, 0)
        loss = one_loss(PREFERENCE_LOSSES["sigmoid"], (KIND,))
        programs = jit_step(model, optimizer, loss, mesh, shardings, {})
        beta, rate, longest = np.float32(0.1), np.float32(1e-6), 0.0
        for kind in TREES:
            if longest and not clock.has((sizes.steps + 1) * longest):
                write(row=kind, ended="not begun: its time was over")
                continue
            batch, padding = batch_of(kind, sizes)
            seconds = []
            for _ in range(sizes.steps + 1):  # the first one compiles
                started = time.perf_counter()
                state, metrics = take_step(programs, state, {}, [batch], beta, rate)
                jax.block_until_ready(state)
                seconds.append(time.perf_counter() - started)
                if len(seconds) == 1:
                    first = {key: float(metrics[key][0] / metrics[key][1]) for key in ("loss", "grad_norm")}
            longest = max(longest, *seconds[1:])
            write(
                row=kind,
                first_step=seconds[0],
                padding=padding,
                **first,
                **rates(config, sizes, batch, seconds[1:]),
            )

    return measure


def batch_of(kind: str, sizes: Sizes) -> tuple[PreferenceBatch, float]:
    """A microbatch whose rows are full of trees of one kind, and its share of padding."""
    count, branches, pairs = TREES[kind]
    rng, tree = np.random.default_rng(0), sizes.row_length // count
    shared = int(tree * SHARED)
    own = (tree - shared) // branches
    trajectories, chosen = [], []
    for number in range(count * sizes.rows):
        prompt, first = rng.integers(2, sizes.vocab_size, shared).tolist(), len(trajectories)
        trajectories += [
            {
                "task": f"task-{number}",
                "tokens": prompt + rng.integers(2, sizes.vocab_size, own).tolist(),
                "mask": [0] * shared + [1] * own,
            }
            for _ in range(branches)
        ]
        chosen += [(first + one, first + other) for one, other in pairs]
    (pair_set,) = pair_sets({"trajectories": trajectories, "steps": [chosen]})
    most = max(count * branches for count, branches, _ in TREES.values())
    pairs_of_a_row = max(count * len(pairs) for count, _, pairs in TREES.values())
    shape = BatchConfig(
        rows=sizes.rows, row_length=sizes.row_length, views_per_row=most, pairs=sizes.rows * pairs_of_a_row
    )
    plan = pack(
        pair_set,
        batch=shape,
        kinds={KIND: PLAIN_DPO},
        order=(KIND,),
        sft_extra={},
        sft_reduction="mean",
        pad_id=0,
        seed=0,
    )
    (batch,) = plan.batches
    return batch, plan.padding


def rates(config: ModelConfig, sizes: Sizes, batch: PreferenceBatch, seconds: list[float]) -> dict[str, Any]:
    """Tokens a second, and operations a second of those that the rows' visible blocks need."""
    until = np.asarray(batch.tokens.visible_until)
    visible = int(seen_blocks(jax.numpy.asarray(until), BLOCK).sum()) * BLOCK**2
    scored = int(np.count_nonzero(np.asarray(batch.view_weight).any(axis=1)))
    tokens = int(np.count_nonzero(np.asarray(batch.tokens.tokens)))  # padding is 0, and no token is
    flops = rows_flops(
        config,
        sizes.vocab_size,
        tokens=tokens,
        scored=scored,
        seen=config.num_layers * visible,
        trained="all",
    )
    chip, took = CHIPS.get(jax.devices()[0].device_kind), statistics.median(seconds)
    peak, owner = peak_memory()
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / took,
        "tflops": flops / took / 1e12,
        "utilisation": None if chip is None else flops / took / chip.flops,
        "peak_gib": peak / GIB,
        "peak_of": owner,
    }


def rollouts(sizes: Sizes, write: Write, clock: Clock) -> None:
    """Tokens a second of decoding alone, and of episodes of several turns with their prompts."""
    shape = model_shape(sizes.presets["0.6b"], sizes.vocab_size)
    config = model_config({"model": shape, "dtype": sizes.dtype, "attention": "auto", "remat": "none"})
    model = Transformer(config, sizes.vocab_size)
    params = jax.jit(lambda: nn.unbox(init_params(model, jax.random.key(0))))()
    began = time.monotonic()
    for slots in sizes.slots:
        if slots != sizes.slots[0] and not clock.has(time.monotonic() - began):
            write(slots=slots, ended="not begun: its time was over")
            continue
        limits = RolloutConfig(
            slots=slots,
            max_tokens=sizes.prompt + sizes.decoded,
            max_turn_tokens=sizes.turn,
            decode_block=sizes.turn,
        )
        engine = Engine(model, limits, end_id=END, stop=stop_after(sizes.turn))
        weights = engine.load(params)
        write(slots=slots, what="decoding alone", **decoding(engine, weights, sizes))
        write(slots=slots, what="episodes", **episodes(engine, params, sizes))
        del engine, weights


def decoding(engine: Engine, weights: Any, sizes: Sizes) -> dict[str, Any]:
    """Tokens a second of slots that all write, turn by turn; the first pass compiles."""
    rng, sampling = np.random.default_rng(0), Sampling(root=jax.random.key(0), temperature=1.0)
    passes = []
    for _ in range(2):
        engine.reset()
        prompts = {s: rng.integers(5, END, sizes.prompt).astype(np.int32) for s in range(engine.slots)}
        started = time.perf_counter()
        jax.block_until_ready(engine.prefill(weights, prompts, frozenset(prompts)))
        filling, writing, written = time.perf_counter() - started, 0.0, 0
        for turn in range(sizes.decoded // (sizes.turn + 1)):
            requests = {slot: Request(budget=sizes.turn, ids=(0, slot, 0, turn)) for slot in prompts}
            started = time.perf_counter()
            found = engine.decode(weights, requests, sampling, quota=engine.slots).fetch()
            writing += time.perf_counter() - started
            written += sum(len(one.tokens) for one in found.values())
            # A token of an observation begins another turn.
            observed = {slot: np.full(1, END, np.int32) for slot in prompts}
            jax.block_until_ready(engine.prefill(weights, observed, frozenset()))
        passes.append((filling, writing, written))
    filling, writing, written = passes[-1]
    chip = CHIPS.get(jax.devices()[0].device_kind)
    model, steps = engine.model.config, written / engine.slots
    cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim * (sizes.prompt + sizes.decoded)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(weights.params))
    held += engine.slots * cache * np.dtype(jax.numpy.dtype(model.dtype)).itemsize
    return {
        "tokens": written,
        "tokens_per_second": written / writing,
        "prefilled_per_second": engine.slots * sizes.prompt / filling,
        "compiling_pass": sum(passes[0][:2]),
        # Of the rate of memory that weights and slots, read once a token, would need.
        "bandwidth_share": None if chip is None else held * steps / writing / chip.bandwidth,
    }


def episodes(engine: Engine, params: Any, sizes: Sizes) -> dict[str, Any]:
    """Tokens a second of twice as many episodes as slots, each of four turns and as many observations."""
    rng, turns = np.random.default_rng(1), 4
    observation = (sizes.decoded - turns * sizes.turn) // turns
    shared = rng.integers(5, END, sizes.prompt // 2).tolist()

    def ids(count: int) -> list[int]:
        return rng.integers(5, END, count).tolist()

    listed = [
        {"prompt": shared + ids(sizes.prompt - len(shared)), "observations": [ids(observation)] * turns}
        for _ in range(2 * engine.slots)
    ]
    tasks = Listed(listed).tasks("train")
    seconds, stats = [], None
    with EnvPool(lambda: Listed(listed), workers=2, step_timeout=60) as pool:
        for _ in range(2):  # the first pass compiles
            started = time.perf_counter()
            _, stats = play(
                engine,
                params,
                pool,
                IdChat(),  # pyright: ignore[reportArgumentType]
                tasks,
                agent="target",
                samples=1,
                temperature=1.0,
                seed=0,
                phase=0,
            )
            seconds.append(time.perf_counter() - started)
    return {
        "tokens": stats.agent_tokens,
        "tokens_per_second": stats.agent_tokens / seconds[-1],
        "episodes": stats.episodes,
        "compiling_pass": seconds[0],
    }


PARTS: dict[str, Callable[[Sizes, Write, Clock], None]] = {
    "machine": machine,
    "attention": attend,
    **{f"step {size} {name}": step_of(size, name) for name in ATTENTIONS for size in ("0.6b", "1.7b")},
    "roll-outs": rollouts,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_parts", description=__doc__)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--seconds", type=float, required=True, help="that the part has")
    parser.add_argument("--figures", type=Path, required=True, help="file that gets a line for each figure")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    args = parser.parse_args()

    def write(**figure: Any) -> None:
        line = json.dumps({"part": args.part, **figure})
        print(line, flush=True)
        with args.figures.open("a") as file:
            file.write(f"{line}\n")

    clock = Clock(time.monotonic() + args.seconds)
    PARTS[args.part](TINY if args.tiny else Sizes(), write, clock)


if __name__ == "__main__":
    main()
