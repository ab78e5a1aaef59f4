"""Device pytrees: what one train step sees. Trajectories stand once, pairs are indices into them.

Shapes: B rows, T tokens a row, N = B * segments per row trajectories, P pairs.
"""

import jax
from flax import struct


@struct.dataclass
class TokenBatch:
    """Packed rows of tokens. `segment_ids` 0 is padding; segment s (1-based) of row b is n = b*S + s-1."""

    tokens: jax.Array  # int32 [B, T]
    segment_ids: jax.Array  # int32 [B, T]
    positions: jax.Array  # int32 [B, T], restarting at 0 in every segment
    loss_mask: jax.Array  # bool [B, T]: token t is trained on (the shift by one happens in learning.logps)
    token_weight: jax.Array  # float32 [B, T]: turn-level credit, 1 by default


@struct.dataclass
class PreferenceBatch:
    """A `TokenBatch` with pairs by reference. All denominators of a step are folded into the weights."""

    tokens: TokenBatch
    reference_logps: jax.Array  # float32 [N]: summed agent-token log-probabilities under the reference
    sft_weight: jax.Array  # float32 [N]: multiplies -logps[n]; 0 where there is no SFT term
    reward: jax.Array  # float32 [N]
    token_count: jax.Array  # int32 [N]: trained tokens of the trajectory, 0 for an unused slot
    chosen: jax.Array  # int32 [P], index into N
    rejected: jax.Array  # int32 [P]
    weight: jax.Array  # float32 [P]: multiplies the pair's loss; 0 is padding
    kind: jax.Array  # int32 [P], index into trajectory.PAIR_KINDS
