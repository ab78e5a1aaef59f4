"""Which tokens have which weight where the turns of a trajectory are weighed, against arrays by hand."""

import numpy as np
import pytest

from coevo_jax.data.pairing import Extra
from tests.data.packed import HAND, HAND_SHAPE, packed, pair, trajectory


def weights_by_turns(plan):
    """Of every view of a plan of one microbatch: tokens' weights, count, SFT weight; by weights of turns."""
    (batch,) = plan.batches
    rows = batch.view_weight.reshape(-1, batch.view_weight.shape[-1])
    scored = batch.tokens.scored
    return {
        plan.turns[0].get(n): (
            rows[n, : scored[n // batch.view_weight.shape[1]]].tolist(),
            int(batch.token_count[n]),
            float(batch.sft_weight[n]),
        )
        for n, _ in plan.views[0]
    }


# Turns of two, one and three tokens; the agent's are 12 13, 15, and 17 18 19.
THREE_TURNS = trajectory(range(10, 20), "0011010111")


def test_which_tokens_of_an_imitation_have_which_weight():
    extra = {Extra(0, (0.0, 1.0, 0.5)): 0.6, Extra(0): 0.2}
    plan = packed([THREE_TURNS], [], extra=extra, **HAND_SHAPE)
    found = weights_by_turns(plan)
    assert found.keys() == {None, (0.0, 1.0, 0.5)}
    assert found[None] == ([1] * 6, 6, pytest.approx(0.2 / 2 / 6))  # two are learned from alone
    assert found[0.0, 1.0, 0.5] == ([0, 0, 1, 0.5, 0.5, 0.5], 4, pytest.approx(0.6 / 2 / 4))
    summed = packed([THREE_TURNS], [], extra=extra, reduction="sum", **HAND_SHAPE)
    assert weights_by_turns(summed)[0.0, 1.0, 0.5][2] == pytest.approx(0.6 / 2)
    late = packed([THREE_TURNS], [], extra=extra, credit={"turn_discount": 0.5}, **HAND_SHAPE)
    assert weights_by_turns(late)[0.0, 1.0, 0.5][0] == [0, 0, 0.5, 0.5, 0.5, 0.5]


def test_an_imitation_that_is_also_in_a_pair_has_a_view_of_its_own_where_its_turns_are_weighed():
    shape = HAND_SHAPE | {"rows": 2}
    plan = packed(HAND, [pair(0, 1, chosen_from=1)], extra={Extra(0, (0.0, 2.0)): 0.6}, **shape)
    (batch,), n = plan.batches, int(plan.batches[0].chosen[0])
    (other,) = set(np.flatnonzero(batch.sft_weight)) - {n}
    rows = batch.view_weight.reshape(-1, batch.view_weight.shape[-1])
    assert (plan.turns[0][n], plan.turns[0][other]) == ((0.0, 1.0), (0.0, 2.0))
    assert (rows[n].sum(), rows[other].sum()) == (1, 2)
    assert batch.sft_weight[[n, other]].tolist() == pytest.approx([0.5, 0.6])
    alike = packed(HAND, [pair(0, 1, chosen_from=1)], extra={Extra(0, (0.0, 1.0)): 0.6}, **shape)
    assert alike.batches[0].sft_weight.sum() == pytest.approx(0.5 + 0.6)
    assert np.flatnonzero(alike.batches[0].sft_weight).tolist() == [int(alike.batches[0].chosen[0])]


def test_a_cut_takes_the_weights_of_the_turns_it_takes():
    shape = {"rows": 1, "row_length": 16, "views_per_row": 4, "pairs": 4, "too_long": "cut"}
    extra = {Extra(0, (0.5, 1.0, 0.0)): 0.3, Extra(0, (0.5, 1.0, 7.0)): 0.2, Extra(0, (0.0, 0.0, 1.0)): 9.0}
    longer = trajectory(range(10, 28), "00000000" + "0011010111")
    plan = packed([longer], [], extra=extra, **shape)
    assert plan.cut == 1
    # The first two became equal, the third has nothing left and counts no more.
    assert weights_by_turns(plan) == {(0.5, 1.0): ([0.5, 0.5, 1], 3, pytest.approx((0.3 + 0.2) / 3))}
