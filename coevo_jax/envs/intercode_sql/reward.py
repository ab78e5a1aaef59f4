"""InterCode's SQL reward: overlap of the rows of two results, scaled by the agreement of their order."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

TAU_BLOCK = 256


def intercode_reward(answer: Sequence[tuple] | None, gold: Sequence[tuple]) -> float:
    """Reward in [0, 1] of the rows `answer` against the rows `gold`; None (an error, or no query) earns 0.

    Source: InterCode (arXiv 2306.14898), its SQL environment. Multiset intersection over union of the rows
    as text; where rows are shared, times Kendall's tau between the list of shared rows in the answer's order
    and the same list in gold's order, rounded to 2 digits. A tau that is not defined (fewer than two
    different rows) is left out, and so is the rounding. Negative rewards become 0.
    """
    if answer is None:
        return 0.0
    answer_rows, gold_rows = [str(row) for row in answer], [str(row) for row in gold]
    answer_count, gold_count = Counter(answer_rows), Counter(gold_rows)
    union = (answer_count | gold_count).total()
    if union == 0:
        return 1.0
    shared = answer_count & gold_count
    reward = shared.total() / union
    if shared:
        tau = kendall_tau(_in_order(answer_rows, shared), _in_order(gold_rows, shared))
        if tau is not None:
            reward = round(tau * reward, 2)
    return min(max(reward, 0.0), 1.0)


def kendall_tau(x: Sequence[str], y: Sequence[str]) -> float | None:
    """Kendall's tau-b (Kendall 1945) between paired texts by alphabet; None where not defined."""
    ranks_x, ranks_y = (np.unique(np.asarray(v), return_inverse=True)[1].ravel() for v in (x, y))
    agreement, untied_x, untied_y = 0, 0, 0
    for start in range(0, len(ranks_x), TAU_BLOCK):  # all pairs, in blocks that fit into memory
        block = slice(start, start + TAU_BLOCK)
        sign_x = np.sign(ranks_x[block, None] - ranks_x[None, :])
        sign_y = np.sign(ranks_y[block, None] - ranks_y[None, :])
        agreement += int(np.sum(sign_x * sign_y))
        untied_x += np.count_nonzero(sign_x)
        untied_y += np.count_nonzero(sign_y)
    if not untied_x or not untied_y:
        return None
    return float(agreement / np.sqrt(float(untied_x) * float(untied_y)))


def _in_order(rows: list[str], shared: Counter[str]) -> list[str]:
    """The first `shared[row]` occurrences of every shared row, in the order of `rows`."""
    left, kept = Counter(shared), []
    for row in rows:
        if left[row] > 0:
            left[row] -= 1
            kept.append(row)
    return kept
