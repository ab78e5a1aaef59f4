"""Log-probabilities of chosen tokens from hidden states: logits exist for one chunk at a time, and the
backward pass is written out, so that [B, T, V] never exists in either direction.

Legend: B rows, K scored tokens a row, c of them in a chunk, D hidden, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp

from coevo_jax.batch import Array

CHUNK_TOKENS = 512  # tokens whose logits exist at one time, over all rows


def scored_logps(head_VD: jax.Array, hidden_BKD: jax.Array, target_BK: Array, scored_B: Array) -> jax.Array:
    """Float32 log-probability of each target under softmax(hidden @ head.T), [B, K]; 0 from scored[b] on.

    Products run in the type of `hidden_BKD` and add up in float32. The work grows with the scored tokens of
    the fullest row, not with K.

    Args:
      hidden_BKD: hidden states of the tokens' parents.
      target_BK: int32 ids.
      scored_B: int32, 0 <= scored <= K.
    """
    return _scored(head_VD, hidden_BKD, jnp.asarray(target_BK), jnp.asarray(scored_B))[0]


def collisions(head_VD: jax.Array, hidden_BKD: jax.Array, scored_B: Array) -> jax.Array:
    """log sum_v p_v^2 of each next-token distribution, without a gradient, [B, K]; 0 from scored[b] on.

    What WPO (arXiv 2406.11827, eq. 4) subtracts from a token's log-probability.
    """
    head_VD, hidden_BKD = jax.lax.stop_gradient((head_VD, hidden_BKD))

    def score(hidden_BcD: jax.Array, _: Any) -> tuple[jax.Array]:
        logits_BcV = _logits(head_VD.astype(hidden_BcD.dtype), hidden_BcD)
        return (jax.nn.logsumexp(2 * logits_BcV, axis=-1) - 2 * jax.nn.logsumexp(logits_BcV, axis=-1),)

    target_BK = jnp.zeros(hidden_BKD.shape[:2], jnp.int32)
    return _over_chunks(score, hidden_BKD, target_BK, jnp.asarray(scored_B))[0]


@jax.custom_vjp
def _scored(
    head_VD: jax.Array, hidden_BKD: jax.Array, target_BK: jax.Array, scored_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities and normalisers, both [B, K]; the gradient is that of the first alone."""
    weights_VD = head_VD.astype(hidden_BKD.dtype)

    def score(hidden_BcD: jax.Array, target_Bc: jax.Array) -> tuple[jax.Array, jax.Array]:
        lse_Bc = jax.nn.logsumexp(_logits(weights_VD, hidden_BcD), axis=-1)
        # A product with the few rows that are targets, not a gather from the logits: cheap also where the
        # vocabulary is split over devices.
        picked_Bc = jnp.sum(
            hidden_BcD.astype(jnp.float32) * weights_VD[target_Bc].astype(jnp.float32), axis=-1
        )
        return picked_Bc - lse_Bc, lse_Bc

    logps_BK, lse_BK = _over_chunks(score, hidden_BKD, target_BK, scored_B)
    return logps_BK, lse_BK


def _scored_forward(head_VD, hidden_BKD, target_BK, scored_B):
    logps_BK, lse_BK = _scored(head_VD, hidden_BKD, target_BK, scored_B)
    return (logps_BK, lse_BK), (head_VD, hidden_BKD, target_BK, scored_B, lse_BK)


def _scored_backward(kept, cotangents):
    """d logp / d logits = onehot(target) - softmax: the softmax chunk by chunk, the one-hot as rows."""
    head_VD, hidden_BKD, target_BK, scored_B, lse_BK = kept
    B, K, _ = hidden_BKD.shape
    weights_VD = head_VD.astype(hidden_BKD.dtype)
    size, chunks = _chunks(B, K, scored_B)
    g_BK = jnp.where(_real(K, scored_B), cotangents[0], 0.0)
    padded_hidden, padded_g, padded_lse = (_pad(x, size) for x in (hidden_BKD, g_BK, lse_BK))

    def pull(i, grads):
        d_head_VD, d_hidden_BKD = grads
        hidden_BcD = _slice(padded_hidden, i, size)
        softmax_BcV = jnp.exp(_logits(weights_VD, hidden_BcD) - _slice(padded_lse, i, size)[..., None])
        d_logits_BcV = (-_slice(padded_g, i, size)[..., None] * softmax_BcV).astype(hidden_BcD.dtype)
        d_chunk_BcD = jnp.einsum("bcv,vd->bcd", d_logits_BcV, weights_VD, preferred_element_type=jnp.float32)
        d_head_VD += jnp.einsum("bcv,bcd->vd", d_logits_BcV, hidden_BcD, preferred_element_type=jnp.float32)
        return d_head_VD, _put(d_hidden_BKD, d_chunk_BcD, i, size)

    zeros = jnp.zeros(head_VD.shape, jnp.float32), jnp.zeros(padded_hidden.shape, jnp.float32)
    d_head_VD, d_hidden_BKD = jax.lax.fori_loop(0, chunks, pull, zeros)
    g_BK1 = g_BK[..., None]
    d_hidden_BKD = d_hidden_BKD[:, :K] + g_BK1 * weights_VD[target_BK].astype(jnp.float32)
    d_head_VD = d_head_VD.at[target_BK].add(g_BK1 * hidden_BKD.astype(jnp.float32))
    return d_head_VD.astype(head_VD.dtype), d_hidden_BKD.astype(hidden_BKD.dtype), None, None


_scored.defvjp(_scored_forward, _scored_backward)


def _logits(weights_VD: jax.Array, hidden_BcD: jax.Array) -> jax.Array:
    return jnp.einsum("bcd,vd->bcv", hidden_BcD, weights_VD, preferred_element_type=jnp.float32)


def _over_chunks(score, hidden_BKD: jax.Array, target_BK: jax.Array, scored_B: jax.Array):
    """Call `score` on one chunk of hidden states and targets after the other; its results, each [B, K]."""
    B, K, _ = hidden_BKD.shape
    size, chunks = _chunks(B, K, scored_B)
    hidden_BKD, target_BK = _pad(hidden_BKD, size), _pad(target_BK, size)

    def step(i, results):
        values = score(_slice(hidden_BKD, i, size), _slice(target_BK, i, size))
        return tuple(_put(result, value, i, size) for result, value in zip(results, values, strict=True))

    shapes = jax.eval_shape(score, hidden_BKD[:, :size], target_BK[:, :size])
    zeros = tuple(jnp.zeros(target_BK.shape, jnp.float32) for _ in shapes)
    results = jax.lax.fori_loop(0, chunks, step, zeros)
    return tuple(jnp.where(_real(K, scored_B), result[:, :K], 0.0) for result in results)


def _chunks(rows: int, columns: int, scored_B: jax.Array) -> tuple[int, jax.Array]:
    """Tokens of a row in one chunk, and how many chunks hold all that is scored."""
    size = max(1, min(CHUNK_TOKENS // rows, columns))
    return size, -(-jnp.max(scored_B) // size)


def _real(columns: int, scored_B: jax.Array) -> jax.Array:
    return jnp.arange(columns) < scored_B[:, None]


def _pad(x: jax.Array, size: int) -> jax.Array:
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2))


def _slice(x: jax.Array, i: jax.Array, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis=1)


def _put(x: jax.Array, value: jax.Array, i: jax.Array, size: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, value.astype(x.dtype), i * size, axis=1)
