"""Measure attention over packed rows on the device at hand: kernels, dense products, causal cuDNN.

    python -m benchmarks.attention --json attention.json                  the shapes of Qwen3-0.6B
    python -m benchmarks.attention --lengths 256 --heads 4 2 --width 32   anything smaller, on a CPU too
    python -m benchmarks.attention --lengths 512 --interpreted            the kernels for GPUs, on a CPU

Rows are prefix trees as learning packs them: of one pair each, of eight branches, one trajectory. Of each
contender the forward pass and the backward one, in turn, medians. cuDNN's sees every earlier token and
computes something else: it is the time of a good kernel that knows of no trees. Dense attention keeps its
scores where they fit, and makes them again in its backward pass where rows are longer. Differences are
relative to the largest value of dense attention's, outputs and gradients.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.config.options import MeshConfig, ModelConfig
from coevo_jax.models.attention import MASKED, QUERY_BLOCK, dense_attention
from coevo_jax.models.attention_kinds import PreparedAttention, choose_attention
from coevo_jax.models.flash_attention_gpu import flash_attention_gpu, prepare
from coevo_jax.models.tree_attention import seen_blocks
from coevo_jax.sharding import make_mesh

ROWS = {"trees of one pair": (3 / 8, 2), "trees of eight branches": (1 / 3, 8), "one trajectory": (1.0, 0)}
Attention = Callable[..., jax.Array]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One row of queries, keys and values."""

    length: int
    heads: tuple[int, int]  # of queries, of keys and values
    width: int
    dtype: str


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16_384], help="tokens of a row")
    parser.add_argument("--heads", type=int, nargs=2, default=[16, 8], help="query heads, key/value heads")
    parser.add_argument("--width", type=int, default=128, help="of a head")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--times", type=int, default=10, help="timed calls of each")
    parser.add_argument(
        "--dense-tokens", type=int, default=8192, help="longest rows whose dense scores are kept"
    )
    parser.add_argument(
        "--interpreted", action="store_true", help="the kernels for GPUs, whatever is at hand"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args(argv)


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


def looped_dense(q_BTHh: jax.Array, k_BTKh: jax.Array, v_BTKh: jax.Array, until_BT: jax.Array) -> jax.Array:
    """Dense attention whose scores are made block of queries by block, and again in the backward pass."""
    B, T, H, h = q_BTHh.shape
    K = k_BTKh.shape[2]
    key_T = jnp.arange(T)

    @jax.checkpoint
    def attend(block):
        q_BtKGh, query_t = block
        scores = jnp.einsum(
            "btkgh,bskh->bkgts", q_BtKGh * h**-0.5, k_BTKh, preferred_element_type=jnp.float32
        )
        mask_BtT = (key_T <= query_t[:, None]) & (query_t[:, None] < until_BT[:, None, :])
        weights = jax.nn.softmax(jnp.where(mask_BtT[:, None, None], scores, MASKED), axis=-1)
        return jnp.einsum("bkgts,bskh->btkgh", weights.astype(v_BTKh.dtype), v_BTKh)

    blocks = q_BTHh.reshape(B, T // QUERY_BLOCK, QUERY_BLOCK, K, H // K, h).swapaxes(0, 1)
    out = jax.lax.map(attend, (blocks, key_T.reshape(-1, QUERY_BLOCK)))
    return out.swapaxes(0, 1).reshape(B, T, H, h)


def passes(attention: Attention) -> Attention:
    """Output and gradients under a cotangent, compiled."""

    def both(q, k, v, until, cotangent):
        out, pull = jax.vjp(lambda *qkv: attention(*qkv, until), q, k, v)
        return out, *pull(cotangent)

    return jax.jit(both)


def contenders(shape: Shape, kernels: Attention, dense_tokens: int) -> dict[str, Attention]:
    """What is measured for rows of a shape, compiled at its first call; one for all kinds of rows."""
    found = {"kernels": kernels, "dense": dense_attention if shape.length <= dense_tokens else looped_dense}
    if jax.default_backend() == "gpu":
        found["cuDNN, causal"] = cudnn
    return {name: passes(one) for name, one in found.items()}


def measure(shape: Shape, kind: str, compiled: Mapping[str, Attention], calls: int) -> dict[str, Any]:
    """All contenders on one kind of row."""
    rng, (H, K) = np.random.default_rng(0), shape.heads
    of_queries, of_keys = (1, shape.length, H, shape.width), (1, shape.length, K, shape.width)
    q, k, v, cotangent = (
        jnp.asarray(rng.normal(size=size), shape.dtype) for size in (of_queries, of_keys, of_keys, of_queries)
    )
    until = jnp.asarray(row_of(kind, shape.length))[None]
    arrays, outputs, failed = (q, k, v, until, cotangent), {}, {}
    for name, one in compiled.items():
        try:
            outputs[name] = jax.block_until_ready(one(*arrays))
        except Exception as error:  # such as too little memory: the others are measured nevertheless
            failed[name] = str(error).partition("\n")[0]
    seconds: dict[str, list[float]] = {name: [] for name in outputs}
    for _ in range(calls):
        for name, times in seconds.items():
            started = time.perf_counter()
            jax.block_until_ready(compiled[name](*arrays))
            times.append(time.perf_counter() - started)
    whole = seen_blocks(until, 64)
    # cuDNN's causal attention is that of a row of one trajectory.
    same = [name for name in outputs if name == "kernels" or (name != "dense" and not ROWS[kind][1])]
    return {
        "row": kind,
        "tokens": shape.length,
        "blocks": f"{int(whole.sum())} of {whole.shape[1] * (whole.shape[1] + 1) // 2}",
        "milliseconds": {name: 1e3 * statistics.median(times) for name, times in seconds.items()},
        "differences": {name: apart(outputs[name], outputs["dense"]) for name in same if "dense" in outputs},
        "failed": failed,
    }


def apart(found: Sequence[jax.Array], expected: Sequence[jax.Array]) -> list[float]:
    """The largest difference of outputs and of each gradient, relative to the largest value."""
    pairs = [[x.astype(jnp.float32) for x in both] for both in zip(found, expected, strict=True)]
    return [float(jnp.abs(one - other).max() / jnp.abs(other).max()) for one, other in pairs]


def main() -> None:
    args = parse()
    H, K = args.heads
    model = ModelConfig(num_heads=H, num_kv_heads=K, head_dim=args.width, hidden_size=H * args.width)
    kernels, figures = choose_attention(model, make_mesh(MeshConfig())), []
    if args.interpreted:
        kernels = PreparedAttention(flash_attention_gpu, prepare)
    for length in args.lengths:
        shape = Shape(length=length, heads=(H, K), width=args.width, dtype=args.dtype)
        compiled = contenders(shape, kernels, args.dense_tokens)
        for kind in ROWS:
            figures.append(measure(shape, kind, compiled, args.times))
            print(json.dumps(figures[-1]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"device": jax.devices()[0].device_kind, "rows": figures}, indent=1))


if __name__ == "__main__":
    main()
