"""Measure attention over packed rows on the device at hand: kernels, dense products, causal cuDNN.

    python -m benchmarks.attention --json attention.json                  the shapes of Qwen3-0.6B
    python -m benchmarks.attention --lengths 256 --heads 4 2 --width 32   anything smaller, on a CPU too

Rows are prefix trees as learning packs them: of one pair each, of eight branches, one trajectory. Of each
contender the forward pass and the backward one, in turn, medians. cuDNN's sees every earlier token and
computes something else: it is the time of a good kernel that knows of no trees. Differences are relative to
the largest value of dense attention's, outputs and gradients, where its scores fit.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.config.options import MeshConfig, ModelConfig
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.tree_attention import seen_blocks
from coevo_jax.sharding import make_mesh

ROWS = {"trees of one pair": (3 / 8, 2), "trees of eight branches": (1 / 3, 8), "one trajectory": (1.0, 0)}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16_384], help="tokens of a row")
    parser.add_argument("--heads", type=int, nargs=2, default=[16, 8], help="query heads, key/value heads")
    parser.add_argument("--width", type=int, default=128, help="of a head")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--times", type=int, default=10, help="timed calls of each")
    parser.add_argument("--dense-tokens", type=int, default=8192, help="longest rows of dense attention")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def row_of(kind: str, length: int) -> np.ndarray:
    """visible_until of a row: trees of about 512 tokens, or one trajectory."""
    shared, branches = ROWS[kind]
    if not branches:
        return np.full(length, length, np.int32)
    until, tree = np.zeros(length, np.int32), min(512, length)
    prefix = int(tree * shared)
    for start in range(0, length, tree):
        end = min(start + tree, length)
        until[start:end] = end
        edges = np.linspace(start + prefix, end, branches + 1).astype(int)
        for left, right in pairwise(edges):
            until[left:right] = right
    return until


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, _: jax.Array) -> jax.Array:
    """Plain causal attention by cuDNN."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")


def passes(attention: Callable[..., Any]) -> Callable[..., Any]:
    """Output and gradients under a cotangent, compiled."""

    def both(q, k, v, until, cotangent):
        out, pull = jax.vjp(lambda *qkv: attention(*qkv, until), q, k, v)
        return out, *pull(cotangent)

    return jax.jit(both)


def measure(args: argparse.Namespace, kind: str, length: int) -> dict[str, Any]:
    """All contenders on one kind of row."""
    rng, (H, K) = np.random.default_rng(0), args.heads
    shapes = ((1, length, H, args.width), *((1, length, K, args.width),) * 2, (1, length, H, args.width))
    q, k, v, cotangent = (jnp.asarray(rng.normal(size=shape), args.dtype) for shape in shapes)
    until = jnp.asarray(row_of(kind, length))[None]
    model = ModelConfig(num_heads=H, num_kv_heads=K, head_dim=args.width, hidden_size=H * args.width)
    contenders = {"kernels": choose_attention(model, make_mesh(MeshConfig()))}
    if length <= args.dense_tokens:
        contenders["dense"] = dense_attention
    if jax.default_backend() == "gpu":
        contenders["cuDNN, causal"] = cudnn
    compiled = {name: passes(one) for name, one in contenders.items()}
    outputs = {name: jax.block_until_ready(one(q, k, v, until, cotangent)) for name, one in compiled.items()}
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(args.times):
        for name, one in compiled.items():
            started = time.perf_counter()
            jax.block_until_ready(one(q, k, v, until, cotangent))
            seconds[name].append(time.perf_counter() - started)
    whole = seen_blocks(until, 64)
    found: dict[str, Any] = {
        "row": kind,
        "tokens": length,
        "blocks": f"{int(whole.sum())} of {whole.shape[1] * (whole.shape[1] + 1) // 2}",
        "milliseconds": {name: 1e3 * statistics.median(times) for name, times in seconds.items()},
    }
    if "dense" in outputs:
        found["differences"] = [
            float(jnp.abs(one.astype(jnp.float32) - other.astype(jnp.float32)).max() / jnp.abs(other).max())
            for one, other in zip(outputs["kernels"], outputs["dense"], strict=True)
        ]
    return found


def main() -> None:
    args = parse()
    figures = [measure(args, kind, length) for length in args.lengths for kind in ROWS]
    for one in figures:
        print(json.dumps(one))
    if args.json is not None:
        args.json.write_text(json.dumps({"device": jax.devices()[0].device_kind, "rows": figures}, indent=1))


if __name__ == "__main__":
    main()
