"""Log-probabilities of views: weighted sums over the scored tokens of packed prefix trees.

Legend: B rows, T tokens a row, K scored tokens a row, S views a row, N = B * S views, D hidden.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch, TokenBatch
from coevo_jax.learning.head import collisions, scored_logps
from coevo_jax.models.lora import model_variables
from coevo_jax.models.transformer import Params, Transformer, output_head


class Scores(NamedTuple):
    """What a policy says of a batch, float32, in nats."""

    tokens: jax.Array  # [B, K]: of every scored token; 0 where there is none
    views: jax.Array  # [N]
    confidence: jax.Array | None  # [N], see `view_logps`


def view_logps(
    model: Transformer,
    params: Params,
    frozen: Params,
    batch: PreferenceBatch,
    *,
    mesh: Mesh | None = None,
    confidence: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Log-probability of every view, float32 [N] (nats), and how confidently the policy would write it.

    Per-row sums reshaped to [N], so that a data-sharded mesh later gathers N floats, never activations.

    Args:
      frozen: what adapters adapt; empty where `params` are all parameters.
      mesh: where rows and vocabulary are split over devices.
      confidence: also return the mean over a view's tokens that weigh something of log p - log sum_v p_v^2,
        without a gradient (WPO, arXiv 2406.11827, eq. 4); None otherwise.
    """
    scores = score(model, params, frozen, batch, mesh=mesh, confidence=confidence)
    return scores.views, scores.confidence


def score(
    model: Transformer,
    params: Params,
    frozen: Params,
    batch: PreferenceBatch,
    *,
    mesh: Mesh | None = None,
    confidence: bool = False,
) -> Scores:
    """The log-probabilities of every scored token and of every view, as `view_logps` has them."""
    tokens = batch.tokens
    head_VD, parents_BKD = parent_states(model, params, frozen, tokens)
    logps_BK = scored_logps(head_VD, parents_BKD, tokens.target, tokens.scored, mesh)
    logps_N = jnp.einsum("bk,bsk->bs", logps_BK, batch.view_weight).reshape(-1)
    if not confidence:
        return Scores(tokens=logps_BK, views=logps_N, confidence=None)
    surplus_BK = jax.lax.stop_gradient(logps_BK) - collisions(head_VD, parents_BKD, tokens.scored, mesh)
    seen_BSK = (jnp.asarray(batch.view_weight) > 0).astype(jnp.float32)
    total_N = jnp.einsum("bk,bsk->bs", surplus_BK, seen_BSK).reshape(-1)
    count_N = jnp.sum(seen_BSK, axis=-1).reshape(-1)
    return Scores(tokens=logps_BK, views=logps_N, confidence=total_N / jnp.maximum(count_N, 1))


def parent_states(
    model: Transformer, params: Params, frozen: Params, tokens: TokenBatch
) -> tuple[jax.Array, jax.Array]:
    """The output head [V, D], and the hidden states of the scored tokens' parents [B, K, D]."""
    variables = model_variables(params, frozen)
    hidden: Any = model.apply(variables, tokens.tokens, tokens.positions, tokens.visible_until)
    parents_BKD = jnp.take_along_axis(hidden, jnp.asarray(tokens.source)[..., None], axis=1)
    return output_head(variables["params"]), parents_BKD
