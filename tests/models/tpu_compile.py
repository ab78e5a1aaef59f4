"""Compile for a TPU on a machine without one, and say what came out, as JSON.

Run by test_flash_attention.py with libtpu on the path: python tpu_compile.py OUT TOPOLOGY DATA FSDP TENSOR
"""

import json
import os
import re
import sys
from pathlib import Path

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}  # read when jax and libtpu are loaded
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from coevo_jax.config.options import BatchConfig, ModelConfig, OptimizerConfig
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import fresh_state, state_shardings
from coevo_jax.learning.train_step import jit_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.flash_attention import flash_attention
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.preflight.arrays import abstract_batch
from coevo_jax.sharding import MESH_AXES

# Qwen3-0.6B
VOCAB = 151_936
MODEL = ModelConfig(
    hidden_size=1024,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=3072,
    dtype="bfloat16",
    remat="full",
)
BATCH = BatchConfig(rows=16, row_length=2048, views_per_row=4, pairs=32)
# rows, tokens, query heads, key/value heads, width, type
KERNELS = (
    (2, 2048, 16, 8, 128, "bfloat16"),
    (2, 1024, 14, 2, 64, "bfloat16"),
    (2, 1000, 4, 4, 32, "float32"),
    (2, 1024, 8, 4, 256, "bfloat16"),
    (1, 1024, 32, 1, 128, "bfloat16"),
    (1, 32_768, 16, 8, 128, "bfloat16"),
)
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def kernel(device, case) -> dict:
    """Forward and backward pass of the attention alone, on one chip."""
    B, T, H, K, h, dtype = case
    everywhere = NamedSharding(Mesh(np.asarray([device]), ("all",)), PartitionSpec())
    shapes = [(B, T, H, h), (B, T, K, h), (B, T, K, h)]
    arrays = [jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere) for shape in shapes]
    visible = jax.ShapeDtypeStruct((B, T), jnp.int32, sharding=everywhere)

    def gradients(q, k, v, visible):
        def total(*qkv):
            return flash_attention(*qkv, visible).astype(jnp.float32).sum()

        return jax.grad(total, argnums=(0, 1, 2))(q, k, v)

    return figures(jax.jit(gradients).lower(*arrays, visible).compile())


def train_step(devices, axes) -> dict:
    """One whole DPO step over all chips."""
    mesh = Mesh(np.asarray(devices).reshape(axes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    model = Transformer(MODEL, VOCAB, choose_attention(MODEL, mesh))
    optimizer = make_optimizer(OptimizerConfig())
    shardings = state_shardings(model, optimizer, mesh)
    programs = jit_step(
        model, optimizer, one_loss(PREFERENCE_LOSSES["sigmoid"], ("expert_over",)), mesh, shardings, {}
    )
    state = jax.eval_shape(lambda: fresh_state(unboxed(model), optimizer))
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    batch = abstract_batch(BATCH, mesh)
    return figures(programs.whole.lower(placed(state, shardings), {}, batch, scalar, scalar).compile())


def unboxed(model):
    import flax.linen as nn

    return nn.unbox(init_params(model, jax.random.key(0)))


def placed(tree, shardings):
    def place(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(place, tree, shardings)


def figures(compiled) -> dict:
    text, memory = compiled.as_text(), compiled.memory_analysis()
    return {
        "kernels": sorted(re.findall(r'custom_call_target="tpu_custom_call".*?op_name="([^"]*)"', text)),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "collectives": collectives(text),
    }


def collectives(text: str) -> list[dict]:
    """Every collective of the program: what it is, its result's shapes, and where in the source it began."""
    kinds = "|".join(COLLECTIVES)
    found = []
    for line in text.splitlines():
        match = re.match(rf"\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({kinds})(?:-start)?\(", line)
        if match:
            origin = re.search(r'op_name="([^"]*)"', line)
            found.append(
                {
                    "kind": match[2],
                    "shapes": re.findall(r"\w+\[[\d,]*\]", match[1]),
                    "origin": origin[1] if origin else "",
                }
            )
    return found


def main(out: str, topology: str, *axes: str) -> None:
    devices = topologies.get_topology_desc(topology, platform="tpu").devices
    cases = KERNELS if topology.startswith("v5e") else KERNELS[:2]  # one chip's compiler tells of odd shapes
    results = {
        "device": devices[0].device_kind,
        "kernels": [kernel(devices[0], case) for case in cases],
        "step": train_step(devices, [int(axis) for axis in axes]),
    }
    Path(out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
