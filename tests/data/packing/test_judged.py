"""Steps of a discriminator in microbatches: where a turn ends in a shared tree, and what each side weighs."""

import numpy as np
import pytest

from coevo_jax.config.options import BatchConfig
from coevo_jax.data.packing.judged import pack_judged
from coevo_jax.methods.judging import JudgedStep
from tests.data.packed import PAD, trajectory

# An expert of two turns; an own first turn of two tokens; an own second turn that begins as the expert's.
EXPERT = trajectory([10, 11, 12, 13, 14, 15], "010110", agent="expert")
FIRST = trajectory([10, 21, 22], "011")
SECOND = trajectory([10, 11, 12, 13, 24], "01011", sample=1)
EPISODES = [EXPERT, FIRST, SECOND]
STEPS = [
    JudgedStep(trajectory=1, turn=0, by_expert=False),
    JudgedStep(trajectory=0, turn=0, by_expert=True),
    JudgedStep(trajectory=2, turn=1, by_expert=False),
    JudgedStep(trajectory=0, turn=1, by_expert=True),
]
SHAPE = {"rows": 1, "row_length": 32, "views_per_row": 8}


def packed(episodes=EPISODES, steps=STEPS, **shape):
    return pack_judged(episodes, steps, batch=BatchConfig(**(SHAPE | shape)), pad_id=PAD, seed=0)


def tokens_read(found, step):
    """The path of tokens up to the one whose state is read: those that see it, as the row says."""
    micro, n = found.places[step]
    batch = found.plan.batches[micro]
    row, s = divmod(n, batch.view_weight.shape[1])
    end = int(batch.steps.place[row, np.flatnonzero(batch.view_weight[row, s])[-1]])
    seen = [k for k in range(end + 1) if batch.tokens.visible_until[row, k] > end]
    return batch.tokens.tokens[row, seen].tolist()


@pytest.mark.parametrize("share", [True, False])
def test_a_step_is_read_at_the_end_of_its_turn_behind_all_that_came_before(share):
    found = packed(share_prefixes=share)
    assert tokens_read(found, 0) == [10, 21, 22]
    assert tokens_read(found, 1) == [10, 11]
    assert tokens_read(found, 2) == [10, 11, 12, 13, 24]
    assert tokens_read(found, 3) == [10, 11, 12, 13, 14]
    if share:
        assert found.plan.tokens == (6 + 2 + 1,)


def weights(found):
    """By step: the weight of an expert's and of an own one."""
    arrays = [found.plan.batches[micro].steps for micro, _ in found.places]
    return [
        (float(one.expert[n]), float(one.own[n])) for one, (_, n) in zip(arrays, found.places, strict=True)
    ]


def test_both_sides_weigh_half_of_a_step_whichever_has_more():
    third = trajectory([10, 31], "01", sample=2)
    steps = [*STEPS, JudgedStep(trajectory=3, turn=0, by_expert=False)]
    found = packed([*EPISODES, third], steps)
    own, expert = (0.0, pytest.approx(1 / 6)), (0.25, 0.0)
    assert weights(found) == [own, expert, own, expert, own]
    batch = found.plan.batches[0]
    assert float(batch.steps.expert.sum() + batch.steps.own.sum()) == pytest.approx(1)
    assert float(batch.step_share) == 1


def test_so_many_own_steps_make_a_step_and_experts_ride_along():
    tasks = [f"t{number}" for number in range(5)]
    episodes = [
        one
        for task in tasks
        for one in (
            trajectory([10, 11, 12, 13], "0101", agent="expert", task=task),
            trajectory([10, 21], "01", task=task),
            trajectory([10, 11, 12, 23], "0101", task=task, sample=1),
        )
    ]
    steps = [
        JudgedStep(trajectory=3 * number + which, turn=turn, by_expert=which == 0)
        for number in range(5)
        for which, turn in ((1, 0), (0, 0), (2, 1), (0, 1))
    ]
    found = packed(episodes, steps, step_episodes=4, views_per_row=4)
    counts = []
    for step in found.plan.steps:
        arrays = [found.plan.batches[micro].steps for micro in step]
        counts.append(
            (sum(int((one.own > 0).sum()) for one in arrays), sum(float(one.own.sum()) for one in arrays))
        )
        assert sum(float(one.expert.sum()) for one in arrays) == pytest.approx(0.5)
    assert counts == [(4, pytest.approx(0.5)), (4, pytest.approx(0.5)), (2, pytest.approx(0.5))]
    assert None not in found.places and len(set(found.places)) == len(steps)


def test_a_step_is_left_out_where_its_turn_is_cut_off_or_its_episode_too_long():
    long = trajectory([10, 11, *range(100, 125), 13], "01" + "0" * 25 + "1", sample=3)
    steps = [*STEPS, *(JudgedStep(trajectory=3, turn=turn, by_expert=False) for turn in (0, 1))]
    cut = packed([*EPISODES, long], steps, row_length=16, too_long="cut")
    assert [place is None for place in cut.places] == [False] * 5 + [True]
    assert tokens_read(cut, 4) == [10, 11] and cut.plan.cut == 1
    dropped = packed([*EPISODES, long], steps, row_length=16)
    assert [place is None for place in dropped.places] == [False] * 4 + [True] * 2
    assert len(dropped.plan.too_long) == 1


def test_nothing_to_judge_makes_no_microbatch():
    assert packed([], []).plan.batches == []
    assert np.size(packed([], []).places) == 0
