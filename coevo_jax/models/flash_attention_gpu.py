"""Attention along the paths of packed prefix trees, as Pallas kernels for NVIDIA GPUs (arXiv 2307.08691).

A program of the grid has one block of queries of one head (backward, too, one block of keys of one key/value
head) and a list of the blocks that it shares something with. It runs over this list and over nothing else:
the siblings of a tree, other trees of a row and, where layers slide, what lies behind the window are neither
read nor computed. Blocks that are seen whole come first, without a mask. No sum is shared by two programs, so
there are no atomics, and equal inputs give equal bits.

On the CPU the kernels are interpreted: right, and slow.

Legend: B rows, T tokens, H query heads, K key/value heads, G = H/K, h width, n blocks a row, t tokens a
block.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from coevo_jax.models.attention import Window
from coevo_jax.models.remat import ATTENDED
from coevo_jax.models.tree_attention import seen_blocks

NARROWEST, WIDEST = 16, 256  # heads: a product's columns; a block's sums have to stay in registers
LOG2_E = math.log2(math.e)  # powers of two are what the chip computes
MASKED = -1e30


class Lists(NamedTuple):
    """For every block of one kind, the blocks of the other kind that it shares something with."""

    blocks_Bnn: jax.Array  # int32: those seen whole, those seen in part, then the others
    counts_Bn2: jax.Array  # int32: how many there are of the first and of the second


class Places(NamedTuple):
    """Where the tokens of rows stand; without windows, `positions_BT` and `window_1` are None."""

    until_BT: jax.Array
    positions_BT: jax.Array | None
    window_1: jax.Array | None


class Prepared(NamedTuple):
    """What all layers of a pass share: where tokens stand, and which blocks share something."""

    places: Places
    by_query: Lists
    by_key: Lists


def flash_attention_gpu(
    q_BTHh: jax.Array,
    k_BTKh: jax.Array,
    v_BTKh: jax.Array,
    visible_until_BT: jax.Array | Prepared,
    window: Window | None = None,
) -> jax.Array:
    """Softmax attention in which q sees k when k <= q < visible_until[k]; scores are float32.

    Every token sees itself (visible_until[k] > k).

    Args:
      visible_until_BT: int32, or what `prepare` made of it, with the same window.
      window: narrows that to the last tokens of each query's path.

    Returns [B, T, H, h].
    """
    T, h = q_BTHh.shape[1], q_BTHh.shape[3]
    prepared: Any = visible_until_BT
    if not isinstance(prepared, Prepared):
        prepared = prepare(prepared, h, q_BTHh.dtype, window)
    width, pad = padded_width(h), prepared.places.until_BT.shape[1] - T
    q, k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, width - h))) for x in (q_BTHh, k_BTKh, v_BTKh))
    out: Any = _attend(q, k, v, prepared, h**-0.5)
    return out[:, :T, :, :h]


def prepare(
    visible_until_BT: jax.Array, head_width: int, dtype: Any, window: Window | None = None
) -> Prepared:
    """Rows in whole blocks, where padding sees itself alone, and the blocks that share something."""
    B, T = visible_until_BT.shape
    t = block_length(padded_width(head_width), dtype)
    pad = -T % t
    alone_BT = jnp.broadcast_to(jnp.arange(T, T + pad, dtype=jnp.int32) + 1, (B, pad))
    places = Places(jnp.concatenate([visible_until_BT.astype(jnp.int32), alone_BT], axis=1), None, None)
    if window is not None:
        positions_BT = jnp.pad(window.positions_BT.astype(jnp.int32), ((0, 0), (0, pad)))
        places = Places(places.until_BT, positions_BT, jnp.asarray(window.size, jnp.int32).reshape(1))
    return Prepared(places, *block_lists(places, t))


def padded_width(head_width: int) -> int:
    """The columns of a head in a kernel, whose arrays have powers of two."""
    return max(NARROWEST, 2 ** math.ceil(math.log2(head_width)))


def block_length(width: int, dtype: Any) -> int:
    """Tokens of a block: its sums have to stay in registers."""
    return 64 if _is_narrow(width, dtype) else 32


def _is_narrow(width: int, dtype: Any) -> bool:
    return width * jnp.dtype(dtype).itemsize <= 256


def block_lists(places: Places, block: int) -> tuple[Lists, Lists]:
    """For each block of queries its blocks of keys, and for each block of keys its blocks of queries."""
    seen_Bnn, whole_Bnn = seen_and_whole(places, block)

    def listed(seen: jax.Array, whole: jax.Array) -> Lists:
        kinds = jnp.where(whole, 0, jnp.where(seen, 1, 2))
        order = jnp.argsort(kinds, axis=-1, stable=True).astype(jnp.int32)
        return Lists(order, jnp.stack([(kinds == kind).sum(-1, dtype=jnp.int32) for kind in (0, 1)], -1))

    return listed(seen_Bnn, whole_Bnn), listed(seen_Bnn.swapaxes(1, 2), whole_Bnn.swapaxes(1, 2))


def seen_and_whole(places: Places, block: int) -> tuple[jax.Array, jax.Array]:
    """Whether query block i may see something of key block j, and whether it sees all; bool [B, n, n]."""
    window = None
    if places.positions_BT is not None and places.window_1 is not None:
        window = Window(places.positions_BT, places.window_1[0])
    seen_Bnn = seen_blocks(places.until_BT, block, window)
    B, n, _ = seen_Bnn.shape
    earliest_Bn = places.until_BT.reshape(B, n, block).min(axis=-1)
    behind_n = (jnp.arange(n) + 1) * block
    before_nn = jnp.arange(n) < jnp.arange(n)[:, None]
    whole_Bnn = before_nn & (earliest_Bn[:, None, :] >= behind_n[:, None])
    if window is not None:
        positions_Bnt = window.positions_BT.reshape(B, n, block)
        farthest_Bnn = positions_Bnt.max(axis=-1)[:, :, None] - positions_Bnt.min(axis=-1)[:, None, :]
        whole_Bnn &= farthest_Bnn < window.size
    return seen_Bnn, seen_Bnn & whole_Bnn


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, prepared, scale):
    return _attend_forward(q, k, v, prepared, scale)[0]


def _attend_forward(q, k, v, prepared, scale):
    B, T, H, h = q.shape
    t = block_length(h, q.dtype)
    at = _specs(q, k, t)
    places, by_query, _ = prepared
    out, normaliser_BHT = _pallas(
        functools.partial(_forward_kernel, t=t, scale=scale),
        name="tree_attention_forward",
        grid=(B * H, T // t),
        in_specs=[at.lists, at.places(places), at.own_queries, at.keys, at.keys],
        out_specs=[at.own_queries, at.own_stats],
        out_shape=[_like(q), jax.ShapeDtypeStruct((B, H, T), jnp.float32)],
        operands=(by_query, places, q, k, v),
    )
    out = checkpoint_name(out, ATTENDED)
    normaliser_BHT = checkpoint_name(normaliser_BHT, ATTENDED)
    return out, (q, k, v, prepared, out, normaliser_BHT)


def _attend_backward(scale, kept, d_out):
    q, k, v, (places, by_query, by_key), out, normaliser_BHT = kept
    B, T, H, h = q.shape
    K, t = k.shape[2], block_length(h, q.dtype)
    at = _specs(q, k, t)
    own, every = (at.own_queries, at.own_stats, at.own_stats), (at.queries, at.stats, at.stats)
    inner_BHT = jnp.einsum("bthd,bthd->bht", d_out, out, preferred_element_type=jnp.float32)
    (dq,) = _pallas(
        functools.partial(_queries_kernel, t=t, scale=scale),
        name="tree_attention_d_queries",
        grid=(B * H, T // t),
        in_specs=[at.lists, at.places(places), at.own_queries, at.keys, at.keys, *own],
        out_specs=[at.own_queries],
        out_shape=[_like(q)],
        operands=(by_query, places, q, k, v, d_out, normaliser_BHT, inner_BHT),
    )
    dk, dv = _pallas(
        functools.partial(_keys_kernel, t=t, scale=scale, group=H // K),
        name="tree_attention_d_keys",
        grid=(B * K, T // t),
        in_specs=[at.lists_of_keys, at.places(places, K), at.queries, at.own_keys, at.own_keys, *every],
        out_specs=[at.own_keys, at.own_keys],
        out_shape=[_like(k), _like(v)],
        operands=(by_key, places, q, k, v, d_out, normaliser_BHT, inner_BHT),
        warps=4 if h * q.dtype.itemsize <= 128 else 8,  # it has two sums
    )
    return dq, dk, dv, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward_kernel(lists, places, q, k, v, out, normaliser, *, t, scale):
    """One block of queries: its sums, and the base-2 logarithm of the softmax's divisor."""
    own, queries = _reversed(), q[...]

    def visit(block, sums, masked):
        total, peak, divisor = sums
        at = _tokens(block, t)
        scores = _dot(queries, k[at, :], (1, 1)) * (scale * LOG2_E)
        if masked:
            scores = jnp.where(_mask(places, own, block, t, queries_axis=0), scores, MASKED)
        new_peak = jnp.maximum(peak, scores.max(axis=1))
        # A query that has seen nothing yet adds 2^0; its first visible key, at the latest itself, turns that
        # into 0.
        weights = jnp.exp2(scores - new_peak[:, None])
        decay = jnp.exp2(peak - new_peak)
        total = total * decay[:, None] + _dot(weights.astype(v.dtype), v[at, :], (1, 0))
        return total, new_peak, divisor * decay + weights.sum(axis=1)

    nothing = jnp.zeros(queries.shape, jnp.float32), jnp.full((t,), MASKED), jnp.zeros((t,), jnp.float32)
    total, peak, divisor = _visit_all(lists, visit, nothing)
    out[...] = (total / divisor[:, None]).astype(out.dtype)
    normaliser[...] = peak + jnp.log2(divisor)


def _queries_kernel(lists, places, q, k, v, d_out, normaliser, inner, dq, *, t, scale):
    """Gradient of one block of queries."""
    own, queries, above, lse, dots = _reversed(), q[...], d_out[...], normaliser[...], inner[...]

    def visit(block, total, masked):
        at = _tokens(block, t)
        keys = k[at, :]
        weights = jnp.exp2(_dot(queries, keys, (1, 1)) * (scale * LOG2_E) - lse[:, None])
        if masked:
            weights = jnp.where(_mask(places, own, block, t, queries_axis=0), weights, 0.0)
        d_scores = weights * (_dot(above, v[at, :], (1, 1)) - dots[:, None])
        return total + _dot(d_scores.astype(keys.dtype), keys, (1, 0))

    total = _visit_all(lists, visit, jnp.zeros(queries.shape, jnp.float32))
    dq[...] = (total * scale).astype(dq.dtype)


def _keys_kernel(lists, places, q, k, v, d_out, normaliser, inner, dk, dv, *, t, scale, group):
    """Gradients of one block of keys and values: scores lie transposed, keys down and queries across."""
    own, keys, values = pl.program_id(1), k[...], v[...]

    def visit(block, totals, masked, g):
        total_dk, total_dv = totals
        at = _tokens(block, t)
        queries, above = q[at, g, :], d_out[at, g, :]
        weights = jnp.exp2(_dot(keys, queries, (1, 1)) * (scale * LOG2_E) - normaliser[g, at][None, :])
        if masked:
            weights = jnp.where(_mask(places, block, own, t, queries_axis=1), weights, 0.0)
        total_dv += _dot(weights.astype(above.dtype), above, (1, 0))
        d_scores = weights * (_dot(values, above, (1, 1)) - inner[g, at][None, :])
        return total_dk + _dot(d_scores.astype(queries.dtype), queries, (1, 0)), total_dv

    nothing = jnp.zeros(keys.shape, jnp.float32), jnp.zeros(values.shape, jnp.float32)
    total_dk, total_dv = _visit_all(lists, visit, nothing, group)
    dk[...] = (total_dk * scale).astype(dk.dtype)
    dv[...] = total_dv.astype(dv.dtype)


def _visit_all(lists, visit: Callable[..., Any], start: Any, group: int | None = None) -> Any:
    """Fold over the blocks of a list, those seen whole before those seen in part; over heads, if grouped."""
    blocks, counts = lists
    heads = jnp.int32(group or 1)

    def step(masked: bool, p: jax.Array, sums: Any) -> Any:
        if group is None:
            return visit(blocks[p], sums, masked)
        return visit(blocks[jax.lax.div(p, heads)], sums, masked, jax.lax.rem(p, heads))

    whole = counts[0] * heads
    sums = jax.lax.fori_loop(jnp.int32(0), whole, functools.partial(step, False), start)
    return jax.lax.fori_loop(whole, whole + counts[1] * heads, functools.partial(step, True), sums)


def _reversed():
    """The block of queries of a program: those with the longest lists begin."""
    return pl.num_programs(1) - 1 - pl.program_id(1)


def _tokens(block, t):
    return pl.ds(pl.multiple_of(block * t, t), t)


def _mask(places, query_block, key_block, t, queries_axis):
    """Which of a block's queries see which of a block's keys, [t, t]."""
    until, positions, window = places
    key = key_block * t + jnp.arange(t)
    query = query_block * t + jnp.arange(t)

    def across(queries, keys):
        return (queries[:, None], keys[None, :]) if queries_axis == 0 else (queries[None, :], keys[:, None])

    queries, keys = across(query, key)
    ends = across(query, until[_tokens(key_block, t)])[1]
    mask = (keys <= queries) & (queries < ends)
    if positions is None:
        return mask
    later, earlier = across(positions[_tokens(query_block, t)], positions[_tokens(key_block, t)])
    return mask & (later - earlier < window[0])


def _dot(left, right, axes):
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(left, right, numbers, preferred_element_type=jnp.float32)


class _Specs(NamedTuple):
    """Where a program (row and head, block) finds its part of each array."""

    own_queries: pl.BlockSpec  # of [B, T, H, h]: a block of one head
    queries: pl.BlockSpec  # all tokens of a group's heads
    own_keys: pl.BlockSpec  # of [B, T, K, h]
    keys: pl.BlockSpec  # all tokens of the head that a query head shares
    own_stats: pl.BlockSpec  # of [B, H, T]
    stats: pl.BlockSpec
    lists: Lists  # of a block of queries
    lists_of_keys: Lists
    heads: int

    def places(self, places: Places, heads: int | None = None) -> Places:
        """All tokens of a program's row, and the window."""
        T, count = places.until_BT.shape[1], heads or self.heads
        row = pl.BlockSpec((None, T), lambda x, i: (x // count, 0))
        if places.positions_BT is None:
            return Places(row, None, None)  # pyright: ignore[reportArgumentType]
        return Places(row, row, pl.BlockSpec((1,), lambda x, i: (0,)))  # pyright: ignore[reportArgumentType]


def _specs(q, k, t) -> _Specs:
    _, T, H, h = q.shape
    K = k.shape[2]
    G, n = H // K, T // t
    last = n - 1

    def lists(heads: int, block: Callable[[Any], Any]) -> Lists:
        blocks = pl.BlockSpec((None, None, n), lambda x, i: (x // heads, block(i), 0))
        counts = pl.BlockSpec((None, None, 2), lambda x, i: (x // heads, block(i), 0))
        return Lists(blocks, counts)  # pyright: ignore[reportArgumentType]

    return _Specs(
        own_queries=pl.BlockSpec((None, t, None, h), lambda x, i: (x // H, last - i, x % H, 0)),
        queries=pl.BlockSpec((None, T, G, h), lambda x, i: (x // K, 0, x % K, 0)),
        own_keys=pl.BlockSpec((None, t, None, h), lambda x, i: (x // K, i, x % K, 0)),
        keys=pl.BlockSpec((None, T, None, h), lambda x, i: (x // H, 0, (x % H) // G, 0)),
        own_stats=pl.BlockSpec((None, None, t), lambda x, i: (x // H, x % H, last - i)),
        stats=pl.BlockSpec((None, G, T), lambda x, i: (x // K, x % K, 0)),
        lists=lists(H, lambda i: last - i),
        lists_of_keys=lists(K, lambda i: i),
        heads=H,
    )


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _pallas(kernel, *, name, grid, in_specs, out_specs, out_shape, operands, warps=None):
    """Call a kernel: compiled for an NVIDIA GPU, interpreted on a CPU."""
    warps = warps or (4 if _is_narrow(out_shape[0].shape[-1], out_shape[0].dtype) else 8)

    def call(interpret: bool, *operands):
        return pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            out_shape=out_shape,
            compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2),
            name=name,
            interpret=interpret,
        )(*operands)

    interpreted, compiled = (functools.partial(call, interpret) for interpret in (True, False))
    return jax.lax.platform_dependent(*operands, cpu=interpreted, cuda=compiled)
