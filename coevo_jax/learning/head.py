"""Log-probabilities of chosen tokens from hidden states, one chunk of logits at a time.

The backward pass is written out, so that [B, T, V] never exists in either direction.

Legend: B rows, K scored tokens a row, c of them in a chunk, D hidden, V vocabulary; d and v are what one
device holds of D and V.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coevo_jax.batch import Array
from coevo_jax.sharding import HEAD, ROWS, Shards, over_shards

CHUNK_TOKENS = 512  # tokens whose logits exist at one time, over all rows of a device
# Each chunk reads the head, and adds to its gradient: where products are fast, that is what a chunk takes.
GPU_CHUNK_TOKENS = 2048


def scored_logps(
    head_VD: jax.Array,
    hidden_BKD: jax.Array,
    target_BK: Array,
    scored_B: Array,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Float32 log-probability of each target under softmax(hidden @ head.T), [B, K]; 0 from scored[b] on.

    Products run in the type of `hidden_BKD` and add up in float32. The work grows with the scored tokens of
    the fullest row, not with K.

    Args:
      hidden_BKD: hidden states of the tokens' parents.
      target_BK: int32 ids.
      scored_B: int32, 0 <= scored <= K.
      mesh: over whose devices rows and vocabulary are split; devices speak before and after the chunks, never
        in between, and no logit leaves its device.
    """
    ids = jnp.asarray(target_BK, jnp.int32)
    arrays = jnp.asarray(head_VD), jnp.asarray(hidden_BKD), ids, jnp.asarray(scored_B)
    scored: Any = _scored(*arrays, mesh)
    return scored[0]


def collisions(
    head_VD: jax.Array, hidden_BKD: jax.Array, scored_B: Array, mesh: Mesh | None = None
) -> jax.Array:
    """log sum_v p_v^2 of each next-token distribution, without a gradient, [B, K]; 0 from scored[b] on.

    What WPO (arXiv 2406.11827, eq. 4) subtracts from a token's log-probability.
    """

    def local(shards: Shards, head_vd: jax.Array, hidden_BKD: jax.Array, scored_B: jax.Array) -> jax.Array:
        weights_vD = shards.gather_embed(head_vd.astype(hidden_BKD.dtype))

        def score(hidden_BcD: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits_Bcv = chunk_logits(weights_vD, hidden_BcD)
            return jax.nn.logsumexp(2 * logits_Bcv, axis=-1), jax.nn.logsumexp(logits_Bcv, axis=-1)

        twice_BK, lse_BK = over_chunks(shards, score, scored_B, hidden_BKD)
        surplus_BK = join_lse(shards, twice_BK) - 2 * join_lse(shards, lse_BK)
        return jnp.where(is_scored(hidden_BKD.shape[1], scored_B), surplus_BK, 0.0)

    head_VD, hidden_BKD = jax.lax.stop_gradient((jnp.asarray(head_VD), jnp.asarray(hidden_BKD)))
    return over_shards(mesh, local, (HEAD, ROWS, ROWS), ROWS)(head_VD, hidden_BKD, jnp.asarray(scored_B))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scored(
    head_VD: jax.Array, hidden_BKD: jax.Array, target_BK: jax.Array, scored_B: jax.Array, mesh: Mesh | None
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities and normalisers, both [B, K]; the gradient is that of the first alone."""

    def local(shards: Shards, head_vd, hidden_BKD, target_BK, scored_B) -> tuple[jax.Array, jax.Array]:
        weights_vD = shards.gather_embed(head_vd.astype(hidden_BKD.dtype))

        def score(hidden_BcD: jax.Array, target_Bc: jax.Array) -> tuple[jax.Array, jax.Array]:
            lse_Bc = jax.nn.logsumexp(chunk_logits(weights_vD, hidden_BcD), axis=-1)
            # A product with the few rows that are targets, not a gather from the logits.
            rows_BcD, own_Bc = target_rows(shards, weights_vD, target_Bc)
            picked_Bc = jnp.sum(hidden_BcD.astype(jnp.float32) * rows_BcD, axis=-1)
            return jnp.where(own_Bc, picked_Bc, 0.0), lse_Bc

        picked_BK, lse_BK = over_chunks(shards, score, scored_B, hidden_BKD, target_BK)
        lse_BK = join_lse(shards, lse_BK)
        logps_BK = shards.sum_over_vocab(picked_BK) - lse_BK
        return jnp.where(is_scored(hidden_BKD.shape[1], scored_B), logps_BK, 0.0), lse_BK

    split = over_shards(mesh, local, (HEAD, ROWS, ROWS, ROWS), (ROWS, ROWS))
    return split(head_VD, hidden_BKD, target_BK, scored_B)


def _scored_forward(head_VD, hidden_BKD, target_BK, scored_B, mesh):
    scored: Any = _scored(head_VD, hidden_BKD, target_BK, scored_B, mesh)
    logps_BK, lse_BK = scored
    return (logps_BK, lse_BK), (head_VD, hidden_BKD, target_BK, scored_B, lse_BK)


def _scored_backward(mesh, kept, cotangents):
    split = over_shards(mesh, _local_backward, (HEAD, ROWS, ROWS, ROWS, ROWS, ROWS), (HEAD, ROWS))
    return *split(*kept, cotangents[0]), None, None


_scored.defvjp(_scored_forward, _scored_backward)


def _local_backward(shards: Shards, head_vd, hidden_BKD, target_BK, scored_B, lse_BK, g_BK):
    """d logp / d logits = onehot(target) - softmax: the softmax chunk by chunk, the one-hot as rows."""
    B, K, _ = hidden_BKD.shape
    weights_vD = shards.gather_embed(head_vd.astype(hidden_BKD.dtype))
    size, chunks = chunk_sizes(shards, B, K, scored_B)
    g_BK = jnp.where(is_scored(K, scored_B), g_BK, 0.0)
    padded_hidden, padded_g, padded_lse = (pad_to_chunks(x, size) for x in (hidden_BKD, g_BK, lse_BK))

    def pull(i, grads):
        d_head_vD, d_hidden_BKD = grads
        hidden_BcD = chunk_at(padded_hidden, i, size)
        softmax_Bcv = jnp.exp(chunk_logits(weights_vD, hidden_BcD) - chunk_at(padded_lse, i, size)[..., None])
        d_logits_Bcv = (-chunk_at(padded_g, i, size)[..., None] * softmax_Bcv).astype(hidden_BcD.dtype)
        d_chunk_BcD = jnp.einsum("bcv,vd->bcd", d_logits_Bcv, weights_vD, preferred_element_type=jnp.float32)
        d_head_vD += jnp.einsum("bcv,bcd->vd", d_logits_Bcv, hidden_BcD, preferred_element_type=jnp.float32)
        return d_head_vD, put_chunk(d_hidden_BKD, d_chunk_BcD, i, size)

    zeros = jnp.zeros(weights_vD.shape, jnp.float32), jnp.zeros(padded_hidden.shape, jnp.float32)
    d_head_vD, d_hidden_BKD = jax.lax.fori_loop(0, chunks, pull, zeros)
    rows_BKD, own_BK = target_rows(shards, weights_vD, target_BK)
    g_BK1 = jnp.where(own_BK, g_BK, 0.0)[..., None]
    d_hidden_BKD = shards.sum_over_vocab(d_hidden_BKD[:, :K] + g_BK1 * rows_BKD)
    place_BK = shards.place_in_vocab(target_BK, weights_vD.shape[0])
    d_head_vD = d_head_vD.at[place_BK].add(g_BK1 * hidden_BKD.astype(jnp.float32), mode="drop")
    d_head_vd = shards.scatter_embed(d_head_vD)
    return d_head_vd.astype(head_vd.dtype), d_hidden_BKD.astype(hidden_BKD.dtype)


def target_rows(shards: Shards, weights_vD: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The head's rows of targets, float32 [..., D], and whether this device holds them at all, [...]."""
    place = shards.place_in_vocab(target, weights_vD.shape[0])
    own = place < weights_vD.shape[0]
    return weights_vD[jnp.where(own, place, 0)].astype(jnp.float32), own


def join_lse(shards: Shards, lse_BK: jax.Array) -> jax.Array:
    """The log-sum-exp over the whole vocabulary from that of each device's part."""
    peak_BK = shards.max_over_vocab(lse_BK)
    return peak_BK + jnp.log(shards.sum_over_vocab(jnp.exp(lse_BK - peak_BK)))


def chunk_logits(weights_VD: jax.Array, hidden_BcD: jax.Array) -> jax.Array:
    """The logits of one chunk, float32 [B, c, V]."""
    return jnp.einsum("bcd,vd->bcv", hidden_BcD, weights_VD, preferred_element_type=jnp.float32)


def over_chunks(shards: Shards, score, scored_B: jax.Array, *arrays_BK: jax.Array):
    """Call `score` on one chunk of the arrays [B, K, ...] after the other; its results, each [B, K]."""
    B, K = arrays_BK[0].shape[:2]
    size, chunks = chunk_sizes(shards, B, K, scored_B)
    padded = [pad_to_chunks(x, size) for x in arrays_BK]

    def step(i, results):
        values = score(*(chunk_at(x, i, size) for x in padded))
        return tuple(put_chunk(result, value, i, size) for result, value in zip(results, values, strict=True))

    shapes = jax.eval_shape(score, *(x[:, :size] for x in padded))
    zeros = tuple(jnp.zeros(padded[0].shape[:2], jnp.float32) for _ in shapes)
    results = jax.lax.fori_loop(0, chunks, step, zeros)
    return tuple(jnp.where(is_scored(K, scored_B), result[:, :K], 0.0) for result in results)


def chunk_sizes(shards: Shards, rows: int, columns: int, scored_B: jax.Array) -> tuple[int, jax.Array]:
    """Tokens of a row in one chunk, and how many chunks hold all that is scored."""
    tokens = GPU_CHUNK_TOKENS if shards.platform == "gpu" else CHUNK_TOKENS
    size = max(1, min(tokens // rows, columns))
    return size, -(-jnp.max(scored_B) // size)


def is_scored(columns: int, scored_B: jax.Array) -> jax.Array:
    """Which of the K columns are scored tokens, bool [B, K]."""
    return jnp.arange(columns) < scored_B[:, None]


def pad_to_chunks(x: jax.Array, size: int) -> jax.Array:
    """Pad the second axis to whole chunks."""
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2))


def chunk_at(x: jax.Array, i: jax.Array, size: int) -> jax.Array:
    """Take chunk i of what is padded to whole chunks."""
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis=1)


def put_chunk(x: jax.Array, value: jax.Array, i: jax.Array, size: int) -> jax.Array:
    """Write chunk i of what is padded to whole chunks."""
    return jax.lax.dynamic_update_slice_in_dim(x, value.astype(x.dtype), i * size, axis=1)
