"""Length desensitisation (LD-DPO): less weight for the tokens by which one side of a pair is longer."""

import numpy as np


def length_desensitised_weights(token_count_own: int, token_count_other: int, ld_alpha: float) -> np.ndarray:
    """The weights of one side's trained tokens in its log-probability, float32 [token_count_own].

    LD-DPO, Liu et al., arXiv 2409.06411, section 3: the first min(own, other) trained tokens count 1, the
    rest of the longer side `ld_alpha`. The weights depend on the pair, not on the trajectory alone; policy
    and reference take the same ones. A loss that divides by token counts still divides by all (as TRL).

    Raises:
      ValueError: a negative count, or `ld_alpha` outside [0, 1] (1 changes nothing, 0 drops the rest).
    """
    if token_count_own < 0 or token_count_other < 0:
        raise ValueError(
            f"token counts: found {token_count_own} and {token_count_other}, expected none below 0"
        )
    if not 0.0 <= ld_alpha <= 1.0:
        raise ValueError(f"ld_alpha: found {ld_alpha}, expected 0 to 1")
    weights = np.full(token_count_own, ld_alpha, np.float32)
    weights[:token_count_other] = 1.0
    return weights
