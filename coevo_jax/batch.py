"""Device pytrees: what one train step sees. Trajectories stand once, pairs are indices into them.

Shapes: B rows, T tokens a row, N = B * segments per row trajectories, P pairs.
"""

import jax
import numpy as np
from flax import struct

# The host hands over NumPy's, a compiled step sees and returns JAX's.
Array = jax.Array | np.ndarray
Scalar = jax.Array | np.floating


@struct.dataclass
class TokenBatch:
    """Packed rows of tokens. `segment_ids` 0 is padding; segment s (1-based) of row b is n = b*S + s-1."""

    tokens: Array  # int32 [B, T]
    segment_ids: Array  # int32 [B, T]
    positions: Array  # int32 [B, T], restarting at 0 in every segment
    loss_mask: Array  # bool [B, T]: token t is trained on (the shift by one happens in learning.logps)
    token_weight: Array  # float32 [B, T]: turn-level credit, 1 by default


@struct.dataclass
class PreferenceBatch:
    """A `TokenBatch` with pairs by reference. All denominators of a step are folded into the weights."""

    tokens: TokenBatch
    reference_logps: Array  # float32 [N]: summed agent-token log-probabilities under the reference
    sft_weight: Array  # float32 [N]: multiplies -logps[n]; 0 where there is no SFT term
    reward: Array  # float32 [N]
    token_count: Array  # int32 [N]: trained tokens of the trajectory, 0 for an unused slot
    chosen: Array  # int32 [P], index into N
    rejected: Array  # int32 [P]
    weight: Array  # float32 [P]: multiplies the pair's loss; 0 is padding
    kind: Array  # int32 [P], index into trajectory.PAIR_KINDS
