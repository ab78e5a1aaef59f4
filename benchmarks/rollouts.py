"""Measure roll-outs: decoding and multi-turn episodes beside transformers' generate, and real environments.

python -m benchmarks.rollouts --peer /path/to/python/with/transformers/and/torch --write-table
python -m benchmarks.rollouts --envs --write-table            only real environments
python -m benchmarks.rollouts --peer PYTHON --device gpu      the same on a GPU
python -m benchmarks.rollouts --read RAW.json --write-table   tables of a run that was kept with --json

(a) and (b): a Qwen3 with random float32 weights, hidden 256, 4 layers, vocabulary 32,000, the same weights in
every contender; greedy; contenders take turns, each in a process of its own. (c): `rollouts_real`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rollouts_real
from benchmarks.contenders import MALLOC, OWN, Contender
from benchmarks.methods import ROOT, write_table
from benchmarks.peers.own_generate import END, random_model
from benchmarks.rollout_jobs import (
    BATCH,
    DECODE,
    EPISODES,
    MODEL,
    OBSERVATION,
    PROMPT,
    SHARED,
    TURN,
    TURNS,
    VOCAB,
    job,
)
from coevo_jax.machine.chips import CHIPS
from coevo_jax.models.huggingface.save import save_params, scratch_config, write_json
from coevo_jax.report.markdown import table
from coevo_jax.run_folder.environment import cpu

DOCUMENT = ROOT / "docs" / "rollouts.md"
PEER = "transformers generate"
CASES = ("decode", "episodes")
COPY_BYTES = 2**28


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts", description=__doc__)
    parser.add_argument("--peer", type=Path, help="python of an environment with transformers and torch")
    parser.add_argument("--rounds", type=int, default=3, help="timed turns of (a) and of (b) for each")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="(a), (b), or both")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--envs", nargs="*", choices=sorted(rollouts_real.OPTIONS), help="(c): these, or all")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--episodes", type=int, default=48, help="of (c)")
    parser.add_argument("--joining", nargs="+", default=["at_once"], help="of rollout.joining, for (c)")
    parser.add_argument("--processes", action="store_true", help="(c) in processes too")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--json", type=Path, help="where to keep all raw numbers")
    parser.add_argument("--read", type=Path, help="measure nothing: tables of the raw numbers kept there")
    parser.add_argument(
        "--write-table",
        action="store_true",
        help="replace the tables of docs/rollouts.md",
    )
    args = parser.parse_args()
    raw = json.loads(args.read.read_text()) if args.read is not None else measure(args)
    if args.json is not None:
        args.json.write_text(json.dumps(raw, indent=1))
    if "contenders" in raw:
        name = "generation" if raw["device"] == "cpu" else f"generation-{raw['device']}"
        emit(name, generation_table(raw["contenders"], raw["where"]), args.write_table)
    if "environments" in raw:
        text = environment_table(raw["environments"], raw["where"])
        emit("environments", text, args.write_table)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All raw numbers, and where they come from."""
    where = f"{cpu()}, {args.threads} threads" + (f"; {args.note}" if args.note else "")
    raw: dict[str, Any] = {"where": where, "device": args.device}
    if args.peer is not None:
        raw["contenders"] = take_turns(args)
    if args.envs is not None:
        raw["environments"] = [
            row
            for name in args.envs or sorted(rollouts_real.OPTIONS)
            for row in rollouts_real.measure(
                name, args.slots, args.episodes, args.joining, args.processes, args.rounds
            )
        ]
    return raw


def emit(name: str, text: str, write: bool) -> None:
    if write:
        write_table(name, text, DOCUMENT)
    print(text, flush=True)


def take_turns(args: argparse.Namespace) -> dict[str, Any]:
    """(a) and (b) of both contenders: one warm-up of each, then timed turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model")
        work = job(str(folder / "model"), args.device, args.threads, args.cases)
        path = folder / "job.json"
        path.write_text(json.dumps(work))
        own = {"JAX_PLATFORMS": "cpu"} if args.device == "cpu" else {}
        peer = {**MALLOC, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
        contenders = [
            Contender(OWN, Path(sys.executable), "benchmarks.peers.own_generate", path, own),
            Contender(PEER, args.peer, "benchmarks.peers.transformers_generate", path, peer),
        ]
        out: dict[str, Any] = {one.name: {"ready": one.read(), "turns": []} for one in contenders}
        try:
            for turn in range(len(args.cases) * (args.rounds + 1)):
                for one in contenders:
                    report = one.step()
                    print(one.name, report["case"], f"{report['seconds']:.2f} s", file=sys.stderr, flush=True)
                    if turn >= len(args.cases):
                        out[one.name]["turns"].append(report)
        finally:
            for one in contenders:
                one.close()
    out["bandwidth"] = bandwidth(args.threads) if args.device == "cpu" else None
    return out


def save_model(folder: Path) -> None:
    folder.mkdir()
    _, params = random_model()
    save_params(folder, params, MODEL, dtype="float32")
    write_json(
        folder / "config.json",
        scratch_config(MODEL, vocab_size=VOCAB, max_tokens=4096, end_id=END, pad_id=0),
    )


def bandwidth(threads: int) -> float:
    """Bytes a second that the machine reads and writes while copying arrays larger than its caches."""
    arrays = [np.ones(COPY_BYTES // 4, np.float32) for _ in range(threads)]
    targets = [np.empty_like(one) for one in arrays]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(4):
            start = time.perf_counter()
            list(pool.map(np.copyto, targets, arrays))
            best = min(best, time.perf_counter() - start)
    return 2 * COPY_BYTES * threads / best


def bytes_per_step() -> int:
    """Float32 bytes that one decode step must read: all weights once, and the slots' keys and values."""
    c = MODEL
    heads, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    layer = c.hidden_size * (2 * heads + 2 * kv + 3 * c.intermediate_size)
    held = PROMPT + DECODE // 2
    cache = BATCH * held * 2 * kv * c.num_layers
    return 4 * (VOCAB * c.hidden_size + c.num_layers * layer + cache)


def speeds(turns: list[dict[str, Any]], case: str) -> list[float]:
    """Decode tokens a second, or episodes a second, of every timed turn."""
    if case == "decode":
        return [BATCH * DECODE / one["decode_seconds"] for one in turns if one["case"] == case]
    return [one["episodes"] / one["seconds"] for one in turns if one["case"] == case]


def generation_table(raw: dict[str, Any], where: str) -> str:
    rows = [[OWN], [PEER], ["ratio of medians"]]
    header = [""]
    for case, title in zip(CASES, ("(a) decode tokens/s, batch 8", "(b) episodes/s"), strict=True):
        ours, theirs = (speeds(raw[name]["turns"], case) for name in (OWN, PEER))
        if ours:
            header.append(title)
            for row, found in zip(rows, (ours, theirs), strict=False):
                row.append(f"{number(statistics.median(found))} ({number(min(found))}–{number(max(found))})")
            rows[2].append(f"**{statistics.median(ours) / statistics.median(theirs):.1f}**")
    lines = [table(header, rows), ""]
    decoded = speeds(raw[OWN]["turns"], "decode")
    chip = CHIPS.get(raw[OWN]["ready"]["device"])
    rate, source = raw["bandwidth"], "copies, measured after the run"
    if rate is None and chip is not None:
        rate, source = chip.bandwidth, "published"
    if decoded and rate is not None:
        roof = rate / bytes_per_step() * BATCH
        lines += [
            f"Roofline of (a): {bytes_per_step() / 1e6:.0f} MB a step over {rate / 1e9:,.1f} GB/s ({source}) "
            f"are {roof:,.0f} tokens/s; the engine reached {statistics.median(decoded) / roof:.0%} of it. "
            f"Greedy tokens that agree: {agreement(raw):.1%}.",
            "",
        ]
    lines.append(
        f"(b): {EPISODES} episodes of {TURNS} turns, {TURN} tokens written and {OBSERVATION} read in each; "
        f"prompts of {PROMPT} tokens, {SHARED} of them common. Median (least–most). "
        f"{raw[OWN]['ready']['versions']} on {raw[OWN]['ready']['device']}; "
        f"{raw[PEER]['ready']['versions']}; {where}."
    )
    return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def agreement(raw: dict[str, Any]) -> float:
    """Share of the greedy tokens that are the same in both; after a first difference texts part."""
    ours, theirs = (
        next(one["tokens"] for one in raw[name]["turns"] if one["case"] == "decode") for name in (OWN, PEER)
    )
    shorter = min(len(ours[0]), len(theirs[0]))
    return float(np.mean(np.array(ours)[:, :shorter] == np.array(theirs)[:, :shorter]))


def environment_table(rows: list[dict[str, Any]], where: str) -> str:
    zero = {
        (row["env"], row["slots"], row["joining"]): row["episodes_per_second"]
        for row in rows
        if row["how"] == "zero latency"
    }
    cells = [
        [
            row["env"],
            str(row["slots"]),
            row["how"],
            row["joining"],
            f"{row['episodes_per_second']:.1f}",
            f"{row['episodes_per_second'] / zero[row['env'], row['slots'], row['joining']]:.0%}",
            f"{row['occupancy']:.0%}",
            f"{row['busy_share']:.0%}",
            f"{row['env_p50'] * 1e3:.1f} / {row['env_p95'] * 1e3:.1f}",
        ]
        for row in rows
    ]
    header = ["environment", "slots", "runs in", "joining", "episodes/s", "of zero latency", "occupancy"]
    header += ["device busy", "call, ms (median / p95)"]
    return f"{table(header, cells)}\n\nBest of the timed rounds, in turn. {where}."


if __name__ == "__main__":
    main()
