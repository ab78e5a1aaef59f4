"""Attention along the paths of packed prefix trees, as Pallas kernels for TPUs (arXiv 2307.08691).

The grid runs over the pairs of a query block and a key block in which some query sees some key, and over
nothing else: their lists are prefetched scalars and their number is the grid's (dynamic) bound, so that the
siblings of a tree, other trees of a row and other rows are neither fetched nor computed. A key/value block is
fetched once for all G query heads that share it.

On the CPU the kernels are interpreted: right, and slow.

Legend: B rows, T tokens, H query heads, K key/value heads, G = H/K, h width, n blocks a row, t tokens a
block, N = B * T tokens of all rows, laid one after the other, P pairs of blocks.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from coevo_jax.models.remat import ATTENDED
from coevo_jax.models.tree_attention import seen_blocks

LANES = 128  # of a vector register: the width that blocks of memory are cut to
WIDE = 1024  # G * h; wider blocks of queries are shorter, for all blocks of a step must fit into 16 MiB
MASKED = -1e30


def flash_attention(
    q_BTHh: jax.Array, k_BTKh: jax.Array, v_BTKh: jax.Array, visible_until_BT: jax.Array
) -> jax.Array:
    """Softmax attention in which q sees k when k <= q < visible_until[k]; scores are float32.

    Every token sees itself (visible_until[k] > k). Returns [B, T, H, h].
    """
    B, T, H, h = q_BTHh.shape
    K = k_BTKh.shape[2]
    width = h + -h % LANES
    t = _block_length(T, H // K * width)
    pad = -T % t
    rows = T + pad
    scaled = q_BTHh * jnp.asarray(h**-0.5, q_BTHh.dtype)
    q, k, v = (_flat(x, pad, width) for x in (scaled, k_BTKh, v_BTKh))
    alone = jnp.broadcast_to(jnp.arange(T, rows, dtype=jnp.int32) + 1, (B, pad))
    until_BT = jnp.concatenate([visible_until_BT.astype(jnp.int32), alone], axis=1)
    by_query, by_key, count = block_pairs(until_BT, t)
    until_1N = (until_BT + rows * jnp.arange(B, dtype=jnp.int32)[:, None]).reshape(1, -1)
    out: Any = _attend(q, k, v, until_1N, (by_query, by_key, count), (K, t, width))
    return out.reshape(B, rows, H, width)[:, :T, :, :h]


def _block_length(length: int, group_width: int) -> int:
    """Tokens of a block: few beside a row and its trees, yet enough that a row of blocks is a short list."""
    if length < 4 * LANES or group_width > 2 * WIDE:
        return LANES
    return 4 * LANES if length >= 128 * LANES and group_width <= WIDE else 2 * LANES


def _flat(x_BTHh: jax.Array, pad: int, width: int) -> jax.Array:
    """Heads padded to whole lanes, side by side: [N, H * width]."""
    padded = jnp.pad(x_BTHh, ((0, 0), (0, pad), (0, 0), (0, width - x_BTHh.shape[-1])))
    return padded.reshape(padded.shape[0] * padded.shape[1], -1)


def block_pairs(visible_until_BT: jax.Array, block: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Visible pairs (query block, key block), numbered through all rows, and their number.

    The pairs are int32 [2, P + 1], sorted by query and by key. What stands behind them are pairs of block 0
    with itself.

    The keys of a query block end with the block itself, the queries of a key block begin with it.
    """
    seen_Bnn = seen_blocks(visible_until_BT, block)
    B, n, _ = seen_Bnn.shape
    most = B * n * (n + 1) // 2  # half of 1 MiB of scalar memory holds 65,536 of them

    def listed(seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        row, major, minor = jnp.nonzero(seen, size=most + 1, fill_value=0)
        return (row * n + major).astype(jnp.int32), (row * n + minor).astype(jnp.int32)

    by_query, by_key = listed(seen_Bnn), listed(seen_Bnn.swapaxes(1, 2))[::-1]
    return jnp.stack(by_query), jnp.stack(by_key), seen_Bnn.sum(dtype=jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q, k, v, until_1N, pairs, sizes):
    return _attend_forward(q, k, v, until_1N, pairs, sizes)[0]


def _attend_forward(q, k, v, until_1N, pairs, sizes):
    K, t, width = sizes
    group, at = q.shape[1] // k.shape[1], _blocks(q, k, sizes)
    out, normaliser_KGN = _pallas(
        functools.partial(_forward_kernel, width=width),
        name="tree_attention_forward",
        grid=(K, pairs[2]),
        in_specs=[at.until, at.queries, at.keys, at.keys],
        out_specs=[at.queries, at.stats],
        out_shape=[_like(q), jax.ShapeDtypeStruct((K, group, q.shape[0]), jnp.float32)],
        scratch=[_sums(t, group * width), _sums(t, LANES), _sums(t, LANES)],
        operands=(pairs[0], until_1N, q, k, v),
    )
    out = checkpoint_name(out, ATTENDED)
    normaliser_KGN = checkpoint_name(normaliser_KGN, ATTENDED)
    return out, (q, k, v, until_1N, pairs, out, normaliser_KGN)


def _attend_backward(sizes, kept, d_out):
    q, k, v, until_1N, pairs, out, normaliser_KGN = kept
    K, t, width = sizes
    N, group, at = q.shape[0], q.shape[1] // k.shape[1], _blocks(q, k, sizes)
    products = d_out.astype(jnp.float32) * out.astype(jnp.float32)
    inner_KGN = products.reshape(N, K, group, width).sum(axis=-1).transpose(1, 2, 0)
    operands = (until_1N, q, k, v, d_out, normaliser_KGN, inner_KGN)
    in_specs = [at.until, at.queries, at.keys, at.keys, at.queries, at.stats, at.stats]
    (dq,) = _pallas(
        functools.partial(_queries_kernel, width=width),
        name="tree_attention_d_queries",
        grid=(K, pairs[2]),
        in_specs=in_specs,
        out_specs=[at.queries],
        out_shape=[_like(q)],
        scratch=[_sums(t, group * width), _sums(t, LANES), _sums(t, LANES)],
        operands=(pairs[0], *operands),
    )
    dk, dv = _pallas(
        functools.partial(_keys_kernel, width=width),
        name="tree_attention_d_keys",
        grid=(K, pairs[2]),
        in_specs=in_specs,
        out_specs=[at.keys, at.keys],
        out_shape=[_like(k), _like(v)],
        scratch=[_sums(t, width), _sums(t, width), pltpu.VMEM((t, LANES), jnp.int32)],
        operands=(pairs[1], *operands),
    )
    return dq, dk, dv, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward_kernel(pairs, until, q, k, v, out, normaliser, total_out, peak, total, *, width):
    """One pair of blocks: a query block's keys follow one another, its sums live in scratch memory.

    Column g of `peak` and `total` belongs to head g of the group.
    """
    p = pl.program_id(1)

    @pl.when(_is_diagonal(pairs, jnp.maximum(p - 1, 0)))  # the keys of the block before ended there
    def _():
        total_out[...] = jnp.zeros_like(total_out)
        peak[...] = jnp.full_like(peak, MASKED)
        total[...] = jnp.zeros_like(total)

    mask_tt = _mask(pairs, p, until[...], queries_axis=0)
    for g, own in _heads(q, width):
        scores = jnp.where(mask_tt, _dot(q[:, own], k[...], (1, 1)), MASKED)
        old_peak = peak[:, g : g + 1]
        new_peak = jnp.maximum(old_peak, scores.max(axis=1, keepdims=True))
        # A query that has seen nothing yet adds exp(0); its first visible key, at the latest itself, turns
        # that into 0.
        weights = jnp.exp(scores - new_peak)
        decay = jnp.exp(old_peak - new_peak)
        peak[:, g : g + 1] = new_peak
        total[:, g : g + 1] = decay * total[:, g : g + 1] + weights.sum(axis=1, keepdims=True)
        total_out[:, own] = decay * total_out[:, own] + _dot(weights.astype(v.dtype), v[...], (1, 0))

    @pl.when(_is_diagonal(pairs, p))
    def _():
        for g, own in _heads(q, width):
            out[:, own] = (total_out[:, own] / total[:, g : g + 1]).astype(out.dtype)
        normaliser[...] = (peak[...] + jnp.log(total[...])).T[: normaliser.shape[0]]


def _queries_kernel(pairs, until, q, k, v, d_out, normaliser, inner, dq, total_dq, lse, dots, *, width):
    """Gradient of the queries, block by block as in the forward pass."""
    p = pl.program_id(1)

    @pl.when(_is_diagonal(pairs, jnp.maximum(p - 1, 0)))
    def _():
        total_dq[...] = jnp.zeros_like(total_dq)
        lse[...], dots[...] = _columns(normaliser[...]), _columns(inner[...])

    mask_tt = _mask(pairs, p, until[...], queries_axis=0)
    for g, own in _heads(q, width):
        scores = jnp.where(mask_tt, _dot(q[:, own], k[...], (1, 1)), MASKED)
        weights = jnp.exp(scores - lse[:, g : g + 1])
        d_scores = weights * (_dot(d_out[:, own], v[...], (1, 1)) - dots[:, g : g + 1])
        total_dq[:, own] += _dot(d_scores.astype(k.dtype), k[...], (1, 0))

    @pl.when(_is_diagonal(pairs, p))
    def _():
        dq[...] = total_dq[...].astype(dq.dtype)


def _keys_kernel(pairs, until, q, k, v, d_out, normaliser, inner, dk, dv, total_dk, total_dv, ends, *, width):
    """Gradients of keys and values: scores lie transposed, keys down and queries across."""
    p = pl.program_id(1)

    @pl.when(_is_diagonal(pairs, p))  # the queries of a key block begin there
    def _():
        total_dk[...] = jnp.zeros_like(total_dk)
        total_dv[...] = jnp.zeros_like(total_dv)
        ends[...] = _columns(until[...])

    mask_tt = _mask(pairs, p, ends[:, :1], queries_axis=1)
    for g, own in _heads(q, width):
        scores = jnp.where(mask_tt, _dot(k[...], q[:, own], (1, 1)), MASKED)
        weights = jnp.exp(scores - normaliser[g : g + 1])
        d_scores = weights * (_dot(v[...], d_out[:, own], (1, 1)) - inner[g : g + 1])
        total_dv[...] += _dot(weights.astype(q.dtype), d_out[:, own], (1, 0))
        total_dk[...] += _dot(d_scores.astype(q.dtype), q[:, own], (1, 0))

    @pl.when(_is_diagonal(pairs, p + 1))
    def _():
        dk[...] = total_dk[...].astype(dk.dtype)
        dv[...] = total_dv[...].astype(dv.dtype)


def _is_diagonal(pairs, p):
    return pairs[0, p] == pairs[1, p]


def _mask(pairs, p, until, queries_axis):
    """Which of the block's queries see which of its keys, [t, t]; `until` [1, t] or, keys down, [t, 1]."""
    t = max(until.shape)
    query = pairs[0, p] * t + jax.lax.broadcasted_iota(jnp.int32, (t, t), queries_axis)
    key = pairs[1, p] * t + jax.lax.broadcasted_iota(jnp.int32, (t, t), 1 - queries_axis)
    return (key <= query) & (query < until)


def _heads(q, width):
    """Number and columns of each query head in a block."""
    return [(g, slice(g * width, (g + 1) * width)) for g in range(q.shape[1] // width)]


def _columns(rows):
    """A few rows [g, t] as the first columns of [t, LANES]."""
    filler = jnp.zeros((LANES - rows.shape[0], rows.shape[1]), rows.dtype)
    return jnp.concatenate([rows, filler], axis=0).T


def _dot(left, right, axes):
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(left, right, numbers, preferred_element_type=jnp.float32)


class _Blocks(NamedTuple):
    """Where a grid step (key/value head, pair) finds its block of each array."""

    queries: pl.BlockSpec  # of [N, H * width]: the heads of one group
    keys: pl.BlockSpec  # of [N, K * width]
    stats: pl.BlockSpec  # of [K, G, N]
    until: pl.BlockSpec  # of [1, N]


def _blocks(q, k, sizes) -> _Blocks:
    _, t, width = sizes
    group = q.shape[1] // k.shape[1]
    return _Blocks(
        queries=pl.BlockSpec((t, group * width), lambda head, p, pairs: (pairs[0, p], head)),
        keys=pl.BlockSpec((t, width), lambda head, p, pairs: (pairs[1, p], head)),
        stats=pl.BlockSpec((None, group, t), lambda head, p, pairs: (head, 0, pairs[0, p])),
        until=pl.BlockSpec((1, t), lambda head, p, pairs: (0, pairs[1, p])),
    )


def _sums(*shape):
    return pltpu.VMEM(shape, jnp.float32)


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _pallas(kernel, *, name, grid, in_specs, out_specs, out_shape, scratch, operands):
    """Call a kernel whose first operand is the list of pairs: compiled for a TPU, interpreted on a CPU."""

    def call(interpret: bool, *operands):
        return pl.pallas_call(
            kernel,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=grid,
                in_specs=in_specs,
                out_specs=out_specs,
                scratch_shapes=scratch,
            ),
            out_shape=out_shape,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            name=name,
            interpret=interpret,
        )(*operands)

    interpreted, compiled = (functools.partial(call, interpret) for interpret in (True, False))
    return jax.lax.platform_dependent(*operands, cpu=interpreted, tpu=compiled)
