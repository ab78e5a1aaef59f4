"""Log-probabilities under the mixed logits of two models, and entropies, one chunk of logits at a time.

The logits are those of Weak-Driven Learning (arXiv 2602.08222): z = (1 - mix) z_weak + mix z_strong. The
backward pass is written out as in `head`, so that [B, T, V] never exists for either model.

Legend: B rows, K scored tokens a row, c of them in a chunk, D hidden, V vocabulary; d and v are what one
device holds of D and V.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coevo_jax.batch import Array
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


class Branch(NamedTuple):
    """What one of the two models brings to the mixture."""

    head: jax.Array  # [V, D]
    hidden: jax.Array  # [B, K, D]: hidden states of the tokens' parents


class MixedLogps(NamedTuple):
    """Log-probabilities of the targets in nats, float32 [B, K] each; 0 from scored[b] on."""

    mixed: jax.Array  # under the mixture: it alone has a gradient
    strong: jax.Array
    weak: jax.Array


_SPECS: Any = (HEAD, ROWS)
BRANCH = Branch(*_SPECS)  # how a branch lies on a mesh


def mixed_logps(
    strong: Branch,
    weak: Branch,
    target_BK: Array,
    scored_B: Array,
    *,
    mix: float,
    train_weak: bool = False,
    mesh: Mesh | None = None,
) -> MixedLogps:
    """Float32 log-probability of each target under softmax((1 - mix) z_weak + mix z_strong), and both alone.

    Weak-Driven Learning (arXiv 2602.08222). Products run in the type of the hidden states and add up in
    float32, and so does the mixture.

    Args:
      target_BK: int32 ids.
      scored_B: int32, 0 <= scored <= K.
      mix: the strong model's share of the logits, the paper's lambda.
      train_weak: give the weak branch a gradient, too; without, its part of the backward pass is left out.
      mesh: over whose devices rows and vocabulary are split, as in `head.scored_logps`.
    """
    strong, weak = jax.tree.map(jnp.asarray, (strong, weak))
    ids, scored_B = jnp.asarray(target_BK, jnp.int32), jnp.asarray(scored_B)
    found: Any = _mixed(strong, weak, ids, scored_B, mix, train_weak, mesh)
    return MixedLogps(*found[:3])


def entropies(
    head_VD: jax.Array, hidden_BKD: jax.Array, scored_B: Array, mesh: Mesh | None = None
) -> jax.Array:
    """Entropy of each next-token distribution in nats, without a gradient, [B, K]; 0 from scored[b] on."""

    def local(shards: Shards, head_vd: jax.Array, hidden_BKD: jax.Array, scored_B: jax.Array) -> jax.Array:
        weights_vD = shards.gather_embed(head_vd.astype(hidden_BKD.dtype))

        def score(hidden_BcD: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits_Bcv = chunk_logits(weights_vD, hidden_BcD)
            lse_Bc = jax.nn.logsumexp(logits_Bcv, axis=-1)
            own_Bcv = jnp.exp(logits_Bcv - lse_Bc[..., None])  # of this device's part of the vocabulary
            return lse_Bc, jnp.sum(own_Bcv * (lse_Bc[..., None] - logits_Bcv), axis=-1)

        lse_BK, own_BK = over_chunks(shards, score, scored_B, hidden_BKD)
        whole_BK = join_lse(shards, lse_BK)
        # A part with the share w of the probability and the entropy h adds w * (h - log w).
        share_BK = jnp.exp(lse_BK - whole_BK)
        entropy_BK = shards.sum_over_vocab(share_BK * (own_BK + whole_BK - lse_BK))
        return jnp.where(is_scored(hidden_BKD.shape[1], scored_B), entropy_BK, 0.0)

    head_VD, hidden_BKD = jax.lax.stop_gradient((jnp.asarray(head_VD), jnp.asarray(hidden_BKD)))
    return over_shards(mesh, local, (HEAD, ROWS, ROWS), ROWS)(head_VD, hidden_BKD, jnp.asarray(scored_B))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _mixed(
    strong: Branch,
    weak: Branch,
    target_BK: jax.Array,
    scored_B: jax.Array,
    mix: float,
    train_weak: bool,
    mesh: Mesh | None,
) -> tuple[jax.Array, ...]:
    """Log-probabilities of the mixture and of both alone, and the mixture's normalisers, all [B, K].

    The gradient is that of the first alone.
    """

    def local(shards: Shards, strong: Branch, weak: Branch, target_BK, scored_B) -> tuple[jax.Array, ...]:
        heads = [_gathered(shards, branch) for branch in (strong, weak)]

        def score(strong_BcD, weak_BcD, target_Bc) -> tuple[jax.Array, ...]:
            hidden = strong_BcD, weak_BcD
            logits = [chunk_logits(head, states) for head, states in zip(heads, hidden, strict=True)]
            mixed_Bcv = _mixture(mix, *logits)
            lse = [jax.nn.logsumexp(one, axis=-1) for one in (mixed_Bcv, *logits)]
            return *lse, *(_picked(shards, h, s, target_Bc) for h, s in zip(heads, hidden, strict=True))

        results = over_chunks(shards, score, scored_B, strong.hidden, weak.hidden, target_BK)
        mixed_lse, strong_lse, weak_lse = (join_lse(shards, lse_BK) for lse_BK in results[:3])
        strong_BK, weak_BK = (shards.sum_over_vocab(picked_BK) for picked_BK in results[3:])
        scored = is_scored(target_BK.shape[1], scored_B)
        logps = _mixture(mix, strong_BK, weak_BK) - mixed_lse, strong_BK - strong_lse, weak_BK - weak_lse
        return *(jnp.where(scored, one, 0.0) for one in logps), mixed_lse

    split = over_shards(mesh, local, (BRANCH, BRANCH, ROWS, ROWS), (ROWS,) * 4)
    return split(strong, weak, target_BK, scored_B)


def _mixed_forward(strong, weak, target_BK, scored_B, mix, train_weak, mesh):
    results: Any = _mixed(strong, weak, target_BK, scored_B, mix, train_weak, mesh)
    return results, (strong, weak, target_BK, scored_B, results[3])


def _mixed_backward(mix, train_weak, mesh, kept, cotangents):
    branches = 2 if train_weak else 1
    local = functools.partial(_local_backward, mix=mix, branches=branches)
    split = over_shards(mesh, local, (BRANCH, BRANCH, ROWS, ROWS, ROWS, ROWS), (BRANCH,) * branches)
    grads = split(*kept, cotangents[0])
    return grads[0], grads[1] if train_weak else None, None, None


_mixed.defvjp(_mixed_forward, _mixed_backward)


def _local_backward(
    shards: Shards, strong: Branch, weak: Branch, target_BK, scored_B, lse_BK, g_BK, *, mix, branches
):
    """d logp / d z = onehot(target) - softmax(z), of which either model's logits have their share."""
    B, K = target_BK.shape
    size, chunks = chunk_sizes(shards, B, K, scored_B)
    g_BK = jnp.where(is_scored(K, scored_B), g_BK, 0.0)
    heads = [_gathered(shards, branch) for branch in (strong, weak)]
    hidden = [pad_to_chunks(branch.hidden, size) for branch in (strong, weak)]
    shares = (mix, 1 - mix)[:branches]
    padded_g, padded_lse = pad_to_chunks(g_BK, size), pad_to_chunks(lse_BK, size)

    def pull(i, grads):
        states = [chunk_at(one, i, size) for one in hidden]
        mixed_Bcv = _mixture(mix, *(chunk_logits(h, s) for h, s in zip(heads, states, strict=True)))
        softmax_Bcv = jnp.exp(mixed_Bcv - chunk_at(padded_lse, i, size)[..., None])
        d_mixed_Bcv = -chunk_at(padded_g, i, size)[..., None] * softmax_Bcv
        pulled = []
        for share, head_vD, states_BcD, (d_head_vD, d_hidden_BKD) in zip(
            shares, heads, states, grads, strict=False
        ):
            d_logits_Bcv = (share * d_mixed_Bcv).astype(states_BcD.dtype)
            d_chunk_BcD = jnp.einsum("bcv,vd->bcd", d_logits_Bcv, head_vD, preferred_element_type=jnp.float32)
            d_head_vD += jnp.einsum(
                "bcv,bcd->vd", d_logits_Bcv, states_BcD, preferred_element_type=jnp.float32
            )
            pulled.append((d_head_vD, put_chunk(d_hidden_BKD, d_chunk_BcD, i, size)))
        return pulled

    zeros = [
        (jnp.zeros(head.shape, jnp.float32), jnp.zeros(states.shape, jnp.float32))
        for head, states in zip(heads[:branches], hidden, strict=False)
    ]
    grads = jax.lax.fori_loop(0, chunks, pull, zeros)
    return tuple(
        _with_targets(shards, branch, head, share * g_BK, target_BK, *grad)
        for branch, head, share, grad in zip((strong, weak), heads, shares, grads, strict=False)
    )


def _with_targets(
    shards: Shards, branch: Branch, head_vD, g_BK, target_BK, d_head_vD, d_hidden_BKD
) -> Branch:
    """A branch's gradient with the targets' part, as this device keeps it."""
    rows_BKD, own_BK = target_rows(shards, head_vD, target_BK)
    g_BK1 = jnp.where(own_BK, g_BK, 0.0)[..., None]
    d_hidden_BKD = shards.sum_over_vocab(d_hidden_BKD[:, : target_BK.shape[1]] + g_BK1 * rows_BKD)
    place_BK = shards.place_in_vocab(target_BK, head_vD.shape[0])
    d_head_vD = d_head_vD.at[place_BK].add(g_BK1 * branch.hidden.astype(jnp.float32), mode="drop")
    d_head_vd = shards.scatter_embed(d_head_vD)
    return Branch(head=d_head_vd.astype(branch.head.dtype), hidden=d_hidden_BKD.astype(branch.hidden.dtype))


def _gathered(shards: Shards, branch: Branch) -> jax.Array:
    """A device's part of a head, over the whole width, in the type of the hidden states."""
    return shards.gather_embed(branch.head.astype(branch.hidden.dtype))


def _mixture(mix: float, strong: jax.Array, weak: jax.Array) -> jax.Array:
    return mix * strong + (1 - mix) * weak


def _picked(shards: Shards, head_vD, states_BcD, target_Bc) -> jax.Array:
    """The targets' logits, float32 [B, c]; 0 where another device holds the target's row."""
    rows_BcD, own_Bc = target_rows(shards, head_vD, target_Bc)
    return jnp.where(own_Bc, jnp.sum(states_BcD.astype(jnp.float32) * rows_BcD, axis=-1), 0.0)
