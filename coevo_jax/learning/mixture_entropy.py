"""Entropies that can be learned, one chunk of logits at a time: of a policy, and of it mixed with its choice.

ATENA (arXiv 2506.06630, mixture entropy optimization) mixes the policy with a pseudo-expert, which takes what
the policy took for certain: q = lambda onehot(a) + (1 - lambda) p. With p_a the probability of a,

    H(q) = -(lambda + (1 - lambda) p_a) log(lambda + (1 - lambda) p_a)
           + (1 - lambda) (H(p) + p_a log p_a - (1 - p_a) log(1 - lambda))

so that log p_a and H(p) are all that is needed of the logits. The backward pass is written out as in `head`:
[B, T, V] never exists.

Legend: B rows, K scored tokens a row, c of them in a chunk, D hidden, V vocabulary; d and v are what one
device holds of D and V.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coevo_jax.batch import Array, Scalar
from coevo_jax.learning.head import (
    chunk_at,
    chunk_logits,
    chunk_sizes,
    is_scored,
    join_lse,
    over_chunks,
    pad_to_chunks,
    put_chunk,
    target_rows,
)
from coevo_jax.sharding import HEAD, ROWS, Shards, over_shards


class Choices(NamedTuple):
    """What a policy says of the choices of its tokens, in nats, float32 [B, K] each; 0 from scored[b] on."""

    logps: jax.Array  # of the tokens that were taken
    entropies: jax.Array  # of the distributions that they were taken from


def choices(
    head_VD: jax.Array,
    hidden_BKD: jax.Array,
    target_BK: Array,
    scored_B: Array,
    mesh: Mesh | None = None,
) -> Choices:
    """Log-probability of each target under softmax(hidden @ head.T), and that distribution's entropy.

    Both have a gradient. Arguments are those of `head.scored_logps`, and so are the types.
    """
    ids = jnp.asarray(target_BK, jnp.int32)
    arrays = jnp.asarray(head_VD), jnp.asarray(hidden_BKD), ids, jnp.asarray(scored_B)
    found: Any = _choices(*arrays, mesh)
    return Choices(*found[:2])


def mixture_entropy(choices: Choices, mixing: Scalar | float) -> jax.Array:
    """Entropy of mixing * onehot(target) + (1 - mixing) * p, float32 [B, K]: the formula above.

    Args:
      mixing: the paper's lambda, from 0, which gives the entropy of p, to below 1.
    """
    rest = 1.0 - mixing
    taken = jnp.exp(choices.logps)
    share = mixing + rest * taken  # of what was taken; above 0, for a token was drawn or is likeliest
    others = choices.entropies + taken * choices.logps + jnp.expm1(choices.logps) * jnp.log(rest)
    return rest * others - share * jnp.log(share)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _choices(
    head_VD: jax.Array, hidden_BKD: jax.Array, target_BK: jax.Array, scored_B: jax.Array, mesh: Mesh | None
) -> tuple[jax.Array, ...]:
    """Log-probabilities, entropies and normalisers, all [B, K]; the last have no gradient."""

    def local(shards: Shards, head_vd, hidden_BKD, target_BK, scored_B) -> tuple[jax.Array, ...]:
        weights_vD = shards.gather_embed(head_vd.astype(hidden_BKD.dtype))

        def score(hidden_BcD: jax.Array, target_Bc: jax.Array) -> tuple[jax.Array, ...]:
            logits_Bcv = chunk_logits(weights_vD, hidden_BcD)
            lse_Bc = jax.nn.logsumexp(logits_Bcv, axis=-1)
            below_Bcv = lse_Bc[..., None] - logits_Bcv  # -log p within this device's part of the vocabulary
            rows_BcD, own_Bc = target_rows(shards, weights_vD, target_Bc)
            picked_Bc = jnp.sum(hidden_BcD.astype(jnp.float32) * rows_BcD, axis=-1)
            part_Bc = jnp.sum(jnp.exp(-below_Bcv) * below_Bcv, axis=-1)
            return jnp.where(own_Bc, picked_Bc, 0.0), lse_Bc, part_Bc

        picked_BK, lse_BK, part_BK = over_chunks(shards, score, scored_B, hidden_BKD, target_BK)
        whole_BK = join_lse(shards, lse_BK)
        # A part with the share w of the probability and the entropy h adds w * (h - log w).
        share_BK = jnp.exp(lse_BK - whole_BK)
        entropy_BK = shards.sum_over_vocab(share_BK * (part_BK + whole_BK - lse_BK))
        found = shards.sum_over_vocab(picked_BK) - whole_BK, entropy_BK
        scored = is_scored(hidden_BKD.shape[1], scored_B)
        return *(jnp.where(scored, one, 0.0) for one in found), whole_BK

    split = over_shards(mesh, local, (HEAD, ROWS, ROWS, ROWS), (ROWS,) * 3)
    return split(head_VD, hidden_BKD, target_BK, scored_B)


def _choices_forward(head_VD, hidden_BKD, target_BK, scored_B, mesh):
    found: Any = _choices(head_VD, hidden_BKD, target_BK, scored_B, mesh)
    return found, (head_VD, hidden_BKD, target_BK, scored_B, *found[1:])


def _choices_backward(mesh, kept, cotangents):
    split = over_shards(mesh, _local_backward, (HEAD, *(ROWS,) * 7), (HEAD, ROWS))
    return *split(*kept, *cotangents[:2]), None, None


_choices.defvjp(_choices_forward, _choices_backward)


def _local_backward(
    shards: Shards, head_vd, hidden_BKD, target_BK, scored_B, entropy_BK, lse_BK, g_logp_BK, g_entropy_BK
):
    """d log p_a / d z = onehot(a) - p, and d H / d z = -p (log p + H)."""
    B, K, _ = hidden_BKD.shape
    weights_vD = shards.gather_embed(head_vd.astype(hidden_BKD.dtype))
    size, chunks = chunk_sizes(shards, B, K, scored_B)
    scored = is_scored(K, scored_B)
    g_logp_BK, g_entropy_BK = (jnp.where(scored, g, 0.0) for g in (g_logp_BK, g_entropy_BK))
    padded_hidden = pad_to_chunks(hidden_BKD, size)
    padded = [pad_to_chunks(x, size) for x in (g_logp_BK, g_entropy_BK, lse_BK, entropy_BK)]

    def pull(i, grads):
        d_head_vD, d_hidden_BKD = grads
        hidden_BcD = chunk_at(padded_hidden, i, size)
        g_logp, g_entropy, lse, entropy = (chunk_at(x, i, size)[..., None] for x in padded)
        logps_Bcv = chunk_logits(weights_vD, hidden_BcD) - lse
        d_logits_Bcv = -jnp.exp(logps_Bcv) * (g_logp + g_entropy * (logps_Bcv + entropy))
        d_logits_Bcv = d_logits_Bcv.astype(hidden_BcD.dtype)
        d_chunk_BcD = jnp.einsum("bcv,vd->bcd", d_logits_Bcv, weights_vD, preferred_element_type=jnp.float32)
        d_head_vD += jnp.einsum("bcv,bcd->vd", d_logits_Bcv, hidden_BcD, preferred_element_type=jnp.float32)
        return d_head_vD, put_chunk(d_hidden_BKD, d_chunk_BcD, i, size)

    zeros = jnp.zeros(weights_vD.shape, jnp.float32), jnp.zeros(padded_hidden.shape, jnp.float32)
    d_head_vD, d_hidden_BKD = jax.lax.fori_loop(0, chunks, pull, zeros)
    rows_BKD, own_BK = target_rows(shards, weights_vD, target_BK)
    g_BK1 = jnp.where(own_BK, g_logp_BK, 0.0)[..., None]
    d_hidden_BKD = shards.sum_over_vocab(d_hidden_BKD[:, :K] + g_BK1 * rows_BKD)
    place_BK = shards.place_in_vocab(target_BK, weights_vD.shape[0])
    d_head_vD = d_head_vD.at[place_BK].add(g_BK1 * hidden_BKD.astype(jnp.float32), mode="drop")
    d_head_vd = shards.scatter_embed(d_head_vD)
    return d_head_vd.astype(head_vd.dtype), d_hidden_BKD.astype(hidden_BKD.dtype)
