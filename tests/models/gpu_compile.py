"""Compile for GPUs on a machine without one, and say what came out, as JSON.

Run by test_gpu_compiler.py with the compiler on the path: python gpu_compile.py OUT CARD WHAT [...]
"""

import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # read when jax is loaded
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from coevo_jax.config.reading import load_config
from coevo_jax.machine.chips import find_machine
from coevo_jax.machine.costs import whole_weights
from coevo_jax.models.attention import Window
from coevo_jax.models.flash_attention_gpu import flash_attention_gpu
from coevo_jax.preflight.arrays import bytes_per_device
from coevo_jax.preflight.collectives import collectives
from coevo_jax.preflight.compiled import COPY, SLOTS
from coevo_jax.preflight.fits import prepare_compiler
from coevo_jax.preflight.moved import movements
from coevo_jax.preflight.plan import Plan, plan_programs

# rows, tokens, query heads, key/value heads, width, type, whether layers slide
KERNELS = (
    (1, 4096, 16, 8, 128, "bfloat16", False),
    (2, 3000, 14, 2, 64, "bfloat16", True),
    (1, 1024, 3, 1, 128, "float32", False),
    (1, 1024, 8, 4, 256, "bfloat16", True),
)
LARGEST = 12  # kinds of instructions that are named
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "paper" / "qwen3-0.6b-intercode-sql.yaml"


def kernels(card: str) -> list[str]:
    """Forward and backward pass of the attention alone; the compiler writes them where XLA_FLAGS says."""
    place = SingleDeviceSharding(find_machine(f"{card}:1").devices[0])
    made = []
    for B, T, H, K, h, dtype, slides in KERNELS:

        def array(*shape: int, dtype: Any = dtype) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

        def total(q, k, v, visible, positions, size, slides=slides):
            window = (Window(positions, size),) if slides else ()
            return flash_attention_gpu(q, k, v, visible, *window).astype(jnp.float32).sum()

        rows, one = array(B, T, dtype=jnp.int32), array(dtype=jnp.int32)
        arrays = array(B, T, H, h), array(B, T, K, h), array(B, T, K, h)
        compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*arrays, rows, rows, one).compile()
        text = compiled.as_text() or ""
        made.append(" ".join(sorted(set(re.findall(r"tree_attention_\w+(?=/pallas_call)", text)))))
    return made


def program(machine: str, name: str, *overrides: str) -> tuple[Plan, Any]:
    """The plan of a run and one of its programs, compiled."""
    prepare_compiler(thorough=True)
    plan = plan_programs(load_config(CONFIG, list(overrides)), find_machine(machine))
    programs = [program for phase in plan.phases for program in phase.programs]
    return plan, next(one for one in programs if one.name == name).lower().compile()


def step(card: str) -> dict[str, Any]:
    """What a microbatch of Qwen3-0.6B is made of."""
    _, compiled = program(f"{card}:1", "DPO microbatch")
    text = compiled.as_text() or ""
    launches = [
        sum(" fusion(" in line for line in body)
        for body in _bodies(text)
        if any("xla.gpu.triton" in line and "tree_attention" in line for line in body)
    ]
    return {
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "fusions_of_layers": launches,
        "products": sorted(set(_products(text))),
    }


def fsdp(card: str) -> dict[str, float]:
    """Bytes that a GPU of eight sends, in those of its weights but its own."""
    split = ("mesh.fsdp=8", "batch.rows=8", "model.num_layers=4")
    plan, compiled = program(f"{card}:8", "DPO microbatch", *split)
    others = whole_weights(plan.config.model, plan.vocab_size) * 7 / 8
    return {one.kind: one.wire_bytes / others for one in collectives(compiled.as_text() or "", 8)}


def decode(card: str, tokens: str) -> dict[str, Any]:
    """What a token of each of 64 slots of so many tokens reads and writes, beside weights and caches once."""
    shape = (
        "rollout.slots=64",
        f"rollout.max_tokens={tokens}",
        f"rollout.max_turn_tokens={int(tokens) // 2}",
    )
    plan, compiled = program(f"{card}:1", "decode", *shape)
    found = movements(compiled.as_text() or "")
    held = next(phase.resident for phase in plan.phases if SLOTS in phase.resident)
    once = bytes_per_device(held[COPY]) + bytes_per_device(held[SLOTS].cache)
    by_place: dict[str, float] = defaultdict(float)
    for one in found.each:
        by_place[f"{one.opcode} {one.shape.partition('{')[0]} {one.origin}"] += one.bytes / once
    return {
        "bytes": found.of_a_pass,
        "weights_and_cache": once,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "largest": dict(sorted(by_place.items(), key=lambda one: -one[1])[:LARGEST]),
    }


def _bodies(text: str) -> list[list[str]]:
    """The lines of each computation."""
    bodies: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.endswith("{") and " = " not in line.split("{")[0]:
            bodies.append([])
        bodies[-1].append(line)
    return bodies


def _products(text: str) -> list[str]:
    """The operands' types of every matrix product."""
    named = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\w+)\[", re.MULTILINE)
    types = dict(named.findall(text))
    operands = re.findall(r" dot\(([^)]*)\)", text)
    return [" ".join(types.get(name, "?") for name in re.findall(r"%([\w.\-]+)", one)) for one in operands]


def main(out: str, card: str, what: str, *arguments: str) -> None:
    result = {"kernels": kernels, "step": step, "fsdp": fsdp, "decode": decode}[what](card, *arguments)
    Path(out).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
