"""Measure the DPO step side by side with TRL's and Tunix's, and write the table of docs/results.md.

    python -m benchmarks.learning --trl TRL/bin/python --tunix TUNIX/bin/python --run runs/quickstart \\
        --table learning --json learning.json

The peers live in environments of their own, next to which nothing else needs to be installed:

    python3.11 -m venv TRL && TRL/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu \\
        trl==1.16.0 transformers==5.23.0 torch==2.13.0+cpu
    python3.11 -m venv TUNIX && TUNIX/bin/pip install google-tunix==0.1.7 jax==0.10.2 flax==0.12.8

All contenders of a cell are alive at once, each a process with a model of the same shape and random weights,
and take one optimizer step in turn on the same pairs (--apart: one after the other, for a card that holds one
only). The first step of each is not timed: it compiles. References count as three epochs use them: a third of
what scoring them once took; Tunix's trainer scores them in every step. Peers cost the same for every pair and
train on a part of a step's pairs, or this would take an hour: ratios are of tokens per second.

A cell is SET:VOCABULARY or SET:VOCABULARY:PAIRS, with the pairs of a step that peers train on. Sets:

    co-evolution    a task a step: an expert over four failures of two agents, these over each other; 8 pairs
    single          pairs with nothing in common but their prompt
    run             pairs of a finished run (--run), their lengths and loss masks as they are

TRL runs at its best: references precomputed, no gradient checkpointing, sdpa, the allocator told to keep its
memory, microbatches of --trl-pairs (4; 1 and 2 were slower). It cannot mask what the environment wrote, so
on a run's pairs it also trains on observations; on a CPU it scores every position anyway. On an AMD processor
the library of its matrix products takes slower kernels than the processor has: --shim is a row without that.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import BEFORE, DENSE, EPOCHS, OWN, PLAIN, SHIMMED, Cell, Measured, measure_cell
from benchmarks.methods import write_table
from benchmarks.pair_sets import co_evolution, needed_flops, of_run, single_pairs
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.run_folder.environment import cores, cpu

SETS = {"co-evolution": co_evolution, "single": single_pairs}
CELLS = ("co-evolution:32000", "single:32000", "run:32000", "co-evolution:151936:2")
PEER_PAIRS = 4
SHAPES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
# Hidden, layers, heads, key/value heads, head width, feed-forward. Those with a size are Qwen3's.
PRESETS = {
    "tiny": (64, 2, 4, 2, 16, 128),
    "small": (256, 4, 8, 4, 32, 768),
    "0.6b": (1024, 28, 16, 8, 128, 3072),
    "1.7b": (2048, 28, 16, 8, 128, 6144),
    "4b": (2560, 36, 32, 8, 128, 9728),
}
GIB = 2**30


def model_shape(preset: str, vocab_size: int) -> dict[str, Any]:
    """A model under the names of transformers' Qwen3Config."""
    *sizes, feed_forward = PRESETS[preset]
    return {
        **dict(zip(SHAPES, sizes, strict=True)),
        "intermediate_size": feed_forward,
        "vocab_size": vocab_size,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32_768,
    }


def cell_of(text: str, args: argparse.Namespace) -> Cell | None:
    """A cell by what the command line says; None for a run's pairs where no run is given.

    Raises ConfigError for words that name none.
    """
    name, *numbers = text.split(":")
    if name not in (*SETS, "run") or not 1 <= len(numbers) <= 2 or not all(n.isdigit() for n in numbers):
        raise ConfigError(
            f"cell: found {text!r}, expected SET:VOCABULARY[:PAIRS]; sets: {', '.join(SETS)}, run"
        )
    if name == "run" and args.run is None:
        return None
    vocab_size, peer_pairs = int(numbers[0]), int(numbers[1]) if numbers[1:] else PEER_PAIRS
    steps = of_run(args.run, args.steps) if name == "run" else SETS[name](args.steps, vocab_size)
    model = model_shape(args.preset, vocab_size)
    return Cell(model=model, vocab_size=vocab_size, pair_steps=steps, peer_pairs=peer_pairs)


def costs(measured: Measured) -> np.ndarray:
    """Seconds of every timed step with its share of the references, float64 [steps]."""
    return _with_references(measured, "seconds")


def processor_seconds(measured: Measured) -> np.ndarray:
    """The same on the processor's clock, summed over cores: hardly changed by what else the machine does."""
    return _with_references(measured, "cpu")


def _with_references(measured: Measured, clock: str) -> np.ndarray:
    count = len(measured.steps)
    # Its first references are those of the step that warms up.
    references = np.asarray(measured.ready[f"reference_{clock}"][1 : count + 1] or [0.0])
    return np.asarray([step[clock] for step in measured.steps]) + references / EPOCHS


def sizes(cell: Cell, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, and tokens of these pairs, of every step that a contender took."""
    steps = cell.steps_of(name)[: len(cell.measured[name].steps)]
    return np.asarray([len(step) for step in steps]), np.asarray([cell.pair_steps.tokens(s) for s in steps])


def token_rates(cell: Cell, name: str) -> np.ndarray:
    """Tokens of the pairs per second, prompts once for each side, of every timed step of a contender."""
    return sizes(cell, name)[1] / costs(cell.measured[name])


def peak_memory(measured: Measured) -> float:
    """Peak memory in GiB: the device's where it has its own, else what the process had resident."""
    last = measured.steps[-1]
    return (last["device_peak"] or last["peak_rss"]) / GIB


def span(values: np.ndarray, digits: int) -> str:
    """A median with the least and the largest value."""
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f}–{values.max():.{digits}f})"


def times(rate: np.ndarray, other: np.ndarray) -> str:
    """How many times as fast as another, by steps of one turn."""
    count = min(len(rate), len(other))
    return span(rate[:count] / other[:count], 2)


def rows_of(cell: Cell) -> list[list[str]]:
    """A row of the table for every contender; a ratio is of two steps of one turn."""
    rows = []
    trl_rates = token_rates(cell, "TRL") if "TRL" in cell.measured else None
    for name, measured in cell.measured.items():
        pairs, _ = sizes(cell, name)
        rate, work = token_rates(cell, name), processor_seconds(measured)
        ratio = "–"
        if trl_rates is not None:
            ratio = "1" if name == "TRL" else times(rate, trl_rates)
        rows.append(
            [
                cell.pair_steps.name,
                f"{cell.vocab_size:,}",
                name,
                str(len(rate)),
                span(pairs / costs(measured), 2),
                f"{np.median(rate):,.0f}",
                f"{np.median(work / pairs):.2f}",
                f"{peak_memory(measured):.1f}",
                ratio,
                f"{measured.first['seconds']:.0f}",
            ]
        )
    return rows


HEADER = (
    "pairs",
    "vocabulary",
    "DPO step of",
    "steps",
    "pairs/s (range)",
    "tokens/s",
    "CPU s a pair",
    "peak GiB",
    "times TRL (range)",
    "first step, s",
)


AGAINST = {
    "times dense attention": DENSE,
    "times prefixes not shared": PLAIN,
    "times TRL": "TRL",
    "times TRL, its library told of an Intel CPU": SHIMMED,
    "times Tunix": "Tunix",
}


def sharing(cells: Sequence[Cell]) -> list[str]:
    """A table in the peers' terms: how often pairs repeat a token, and our speed as multiples of others'."""
    against = {words: name for words, name in AGAINST.items() if any(name in cell.measured for cell in cells)}
    header = ("pairs", "vocabulary", "tokens of pairs / unique ones", *against)
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for cell in cells:
        steps = cell.pair_steps.steps
        repeated = np.asarray(
            [cell.pair_steps.tokens(step) / cell.pair_steps.unique_tokens(step) for step in steps]
        )
        own = token_rates(cell, OWN)
        ratios = [
            times(own, token_rates(cell, name)) if name in cell.measured else "–" for name in against.values()
        ]
        row = [cell.pair_steps.name, f"{cell.vocab_size:,}", f"{np.median(repeated):.2f}", *ratios]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def utilisation(cell: Cell, declared: float | None) -> list[str]:
    """How much of the machine's matrix products our step turns into needed ones."""
    lines = []
    for name, measured in cell.measured.items():
        if "matmul_peak" not in measured.ready:
            continue
        needed = np.asarray(
            [needed_flops(cell.model, cell.pair_steps, step) for step in cell.pair_steps.steps]
        )[: len(measured.steps)]
        rate = needed / np.asarray([step["seconds"] for step in measured.steps])
        peaks = [measured.ready["matmul_peak"]]
        peaks += [step["matmul_peak"] for step in measured.steps if "matmul_peak" in step]
        peak = max(peaks)
        text = (
            f"- {cell.pair_steps.name}, {cell.vocab_size:,}, {name}: "
            f"{np.median(needed) / 1e9:,.0f} GFLOP a step, {np.median(rate) / 1e9:,.0f} GFLOP/s, "
            f"{np.median(rate) / peak:.0%} of a matrix product's {peak / 1e9:,.0f} "
            f"(the best of {len(peaks)} turns; the least was {min(peaks) / 1e9:,.0f})"
        )
        if declared is not None:
            text += f"; {np.median(rate) / declared:.1%} of the declared {declared / 1e12:g} TFLOP/s"
        lines.append(f"{text} ({measured.ready['settings']}).")
    return lines


def markdown(cells: Sequence[Cell], command: str, declared: float | None) -> str:
    """The table, what our step makes of the machine, what was left out, and where it was measured."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(row) + " |" for cell in cells for row in rows_of(cell)]
    lines += ["", *sharing(cells), ""]
    for cell in cells:
        lines += utilisation(cell, declared) + beside_before(cell)
    lines += [f"- {message}" for cell in cells for message in cell.skipped]
    losses = {f"{measured.first['loss']:.4f}" for cell in cells for measured in cell.measured.values()}
    versions = dict.fromkeys(
        f"{measured.ready['versions']} ({measured.ready['settings']})"
        if name in ("TRL", SHIMMED, "Tunix")
        else measured.ready["versions"]
        for cell in cells
        for name, measured in cell.measured.items()
    )
    device = cells[0].measured[OWN].ready["device"]
    lines += [
        "",
        f"Loss of the first step, in every cell: {', '.join(sorted(losses))} (ln 2 = 0.6931). "
        f"{'; '.join(versions)}. Measured on {cpu()}, {cores()} cores, {device}, "
        f"Python {platform.python_version()}, with `{command}`.",
    ]
    return "\n".join(lines)


def beside_before(cell: Cell) -> list[str]:
    """How the step compares with that of the other checkout, steps of one turn with each other."""
    if BEFORE not in cell.measured:
        return []
    own, before = cell.measured[OWN], cell.measured[BEFORE]
    count = min(len(own.steps), len(before.steps))
    ratios = {
        "time": costs(before)[:count] / costs(own)[:count],
        "processor": processor_seconds(before)[:count] / processor_seconds(own)[:count],
    }
    words = ", ".join(f"{span(values, 2)} times less {name}" for name, values in ratios.items())
    memory = peak_memory(own) / peak_memory(before)
    where = f"{cell.pair_steps.name}, {cell.vocab_size:,}"
    return [f"- {where}, beside the other checkout: {words}, {memory:.2f} times its memory."]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trl", type=Path, help="interpreter with TRL; left out where none is given")
    parser.add_argument(
        "--shim",
        action="store_true",
        help="also measure TRL with Intel's matrix library told that the processor is Intel's",
    )
    parser.add_argument("--tunix", type=Path, help="interpreter with Tunix; left out where none is given")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, such as a worktree")
    parser.add_argument("--run", type=Path, help="finished run whose pairs and lengths make a third set")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), metavar="CELL", help="what to measure")
    parser.add_argument("--steps", type=int, default=5, help="most timed steps of a cell")
    parser.add_argument(
        "--seconds", type=float, default=60, help="of a cell's timed steps; two are always taken"
    )
    parser.add_argument(
        "--plain",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure ours without sharing prefixes, and with dense attention",
    )
    parser.add_argument("--trl-pairs", type=int, default=4, help="pairs of TRL's microbatch")
    parser.add_argument("--tunix-pairs", type=int, default=2, help="pairs of Tunix's microbatch")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--table", help="name of the table to replace; printed where none is given")
    parser.add_argument("--json", type=Path, help="write all raw times to this file")
    accelerator = parser.add_argument_group("on an accelerator (not run on one so far)")
    accelerator.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    accelerator.add_argument("--preset", choices=tuple(PRESETS), default="small", help="shape of the model")
    accelerator.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    accelerator.add_argument("--remat", default="none", help="our policy of models.remat")
    accelerator.add_argument("--attention", default="auto", help="ours, a name of models.attention_kinds")
    accelerator.add_argument("--trl-checkpointing", action="store_true", help="TRL's gradient checkpointing")
    accelerator.add_argument("--apart", action="store_true", help="one contender after the other")
    accelerator.add_argument("--peak-tflops", type=float, help="the device's declared peak, for utilisation")
    return parser.parse_args()


def job_of(args: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """What every contender of a cell is told."""
    return {
        "model": cell.model,
        "trajectories": cell.pair_steps.trajectories,
        "beta": 0.1,
        "learning_rate": 1e-6,
        "dtype": "bfloat16" if args.bf16 else "float32",
        "remat": args.remat,
        "attention": args.attention,
        "checkpointing": args.trl_checkpointing,
        "cpu": args.device == "cpu",
        "threads": args.threads,
    }


def main() -> None:
    args = parse_arguments()
    try:
        cells = [cell for text in args.cells if (cell := cell_of(text, args)) is not None]
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    with tempfile.TemporaryDirectory() as scratch:
        for cell in cells:
            measure_cell(args, job_of(args, cell), cell, Path(scratch))
            for row in rows_of(cell):
                print(" | ".join(row), file=sys.stderr, flush=True)
    command = shlex.join(["python", "-m", "benchmarks.learning", *sys.argv[1:]])
    declared = None if args.peak_tflops is None else args.peak_tflops * 1e12
    text = markdown(cells, command, declared)
    if args.json:
        records = [cell.as_json() for cell in cells]
        write_whole(args.json, json.dumps({"command": command, "machine": cpu(), "cells": records}, indent=1))
    if args.table:
        write_table(args.table, text)
    print(text)


if __name__ == "__main__":
    main()
