"""Device pytrees: what one train step sees. Shared prefixes stand once, pairs are indices into views.

Shapes: B rows, T tokens a row, K scored tokens a row, S views a row, N = B * S views, P pairs.

A row holds packed prefix trees in depth-first order; a plain trajectory is a tree of one node. A *view* is
one trajectory as a pair or the SFT term sees it: a weighted sum of the row's scored tokens.
"""

import jax
import numpy as np
from flax import struct

# The host hands over NumPy's, a compiled step sees and returns JAX's.
Array = jax.Array | np.ndarray
Scalar = jax.Array | np.floating


@struct.dataclass
class TokenBatch:
    """Packed rows. Token q sees token k of its row exactly when k <= q < visible_until[k]."""

    tokens: Array  # int32 [B, T]
    positions: Array  # int32 [B, T], counted along the path from the root of the token's tree
    visible_until: Array  # int32 [B, T]: end of the subtree of the token's node; k + 1 where k is padding
    # Scored token j of a row has the id target[j] and is predicted at source[j], its parent in the tree: the
    # shift by one, and where a branch begins, are data.
    source: Array  # int32 [B, K], place in the row; 0 is padding
    target: Array  # int32 [B, K], token id; 0 is padding
    scored: Array  # int32 [B]: scored tokens of the row, the first ones of the K


@struct.dataclass
class Reinforcement:
    """What the clipped surrogate sees of a microbatch's views, token by token.

    A token that several views share has an advantage and an old log-probability in each of them.
    """

    weight: Array  # float32 [N]: multiplies view_weight, the step's denominators folded in; 0: not reinforced
    advantage: Array  # float32 [B, S, K]: of the turn that the token stands in; 0 outside of the view
    old_logps: Array  # float32 [B, S, K]: under who played it, at temperature 1; 0 outside of the view
    # float32 [B, K]: each scored token's under the reference; None where nothing ties the policy to one.
    reference_logps: Array | None = None


@struct.dataclass
class Steps:
    """What a discriminator sees of a microbatch's views, each of which is a step: one turn of an episode.

    The tokens of the turn are those that `view_weight` is above 0 for. The denominators of the optimizer step
    are folded into the weights, which are 0 for the steps of the other side.
    """

    place: Array  # int32 [B, K], place in the row of each scored token; 0 is padding
    expert: Array  # float32 [N]: weight of an expert's step
    own: Array  # float32 [N]: weight of an agent's own step


@struct.dataclass
class PreferenceBatch:
    """One microbatch. All denominators of its optimizer step are folded into the weights.

    View s of row b is n = b * S + s; its log-probability is sum_j view_weight[b, s, j] * logp(b, j).
    """

    tokens: TokenBatch
    view_weight: Array  # float32 [B, S, K]: loss mask, credit per turn and length desensitising in one
    reference_logps: Array  # float32 [N]: the view's log-probability under the reference
    sft_weight: Array  # float32 [N]: multiplies -logps[n]; 0 where there is no SFT term
    reward: Array  # float32 [N]: the environment's
    token_count: Array  # int32 [N]: scored tokens of the view, 0 for an unused one
    chosen: Array  # int32 [P], index into N
    rejected: Array  # int32 [P]
    weight: Array  # float32 [P]: multiplies the pair's loss; 0 is padding
    kind: Array  # int32 [P], number among the kinds of the agent's loss
    step_share: Array  # float32 []: 1 in an optimizer step's first microbatch, 0 in others: sums are a step's
    reinforcement: Reinforcement | None = None  # None where nothing is: the compiled programs are the same
    steps: Steps | None = None  # None where no discriminator learns
