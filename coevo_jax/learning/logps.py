"""Log-probabilities of trajectories, chunk by chunk: [B, T, V] never exists, forward or backward.

Legend: B rows, T tokens, D hidden, V vocabulary, S segments per row, N = B * S trajectories.
"""

from typing import Any

import jax
import jax.numpy as jnp

from coevo_jax.batch import Array, TokenBatch
from coevo_jax.models.transformer import Params, Transformer, output_logits

HEAD_CHUNK = 128  # tokens per row whose logits exist at one time


def token_logps(params: Params, hidden_BTD: jax.Array, tokens_BT: Array) -> jax.Array:
    """Float32 log-probability of each token given those before it, [B, T-1]: entry t scores tokens[t + 1].

    The shift by one happens here and nowhere else. Each chunk is recomputed in the backward pass.
    """
    B, T, D = hidden_BTD.shape
    chunk = min(HEAD_CHUNK, T)
    pad = -T % chunk
    targets_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1 + pad)))
    hidden_BTD = jnp.pad(hidden_BTD, ((0, 0), (0, pad), (0, 0)))

    @jax.checkpoint
    def score(hidden_BCD: jax.Array, targets_BC: jax.Array) -> jax.Array:
        logits_BCV = output_logits(params, hidden_BCD)
        chosen_BC = jnp.take_along_axis(logits_BCV, targets_BC[..., None], axis=-1)[..., 0]
        return chosen_BC - jax.nn.logsumexp(logits_BCV, axis=-1)

    chunks = (
        hidden_BTD.reshape(B, -1, chunk, D).swapaxes(0, 1),
        targets_BT.reshape(B, -1, chunk).swapaxes(0, 1),
    )
    _, scored_CBc = jax.lax.scan(lambda carry, xs: (carry, score(*xs)), None, chunks)
    return scored_CBc.swapaxes(0, 1).reshape(B, T + pad)[:, : T - 1]


def trajectory_logps(model: Transformer, params: Params, batch: TokenBatch, segments: int) -> jax.Array:
    """Summed log-probability of each trajectory's trained tokens, float32 [N] (nats).

    Per-row sums reshaped to [N], so that a data-sharded mesh later gathers N floats, never activations.
    """
    hidden: Any = model.apply({"params": params}, batch.tokens, batch.positions, batch.segment_ids)
    logps_BT = token_logps(params, hidden, batch.tokens)
    same_BT = batch.segment_ids[:, 1:] == batch.segment_ids[:, :-1]
    trained_BT = batch.loss_mask[:, 1:] & same_BT
    weighted_BT = jnp.where(trained_BT, logps_BT * batch.token_weight[:, 1:], 0.0)
    member_BTS = batch.segment_ids[:, 1:, None] == jnp.arange(1, segments + 1)
    return jnp.einsum("bt,bts->bs", weighted_BT, member_BTS.astype(jnp.float32)).reshape(-1)
