"""Reinforced trajectories in microbatches: indices of their own, weights and advantages by hand."""

from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.config.options import BatchConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.plan import pack
from coevo_jax.data.pairing import PairSet
from coevo_jax.data.reinforced import Credit, add_reinforced, advantage_counts
from coevo_jax.methods.material import Reinforced
from coevo_jax.trajectory import Branch, Ending
from tests.data.packed import PAD, PAIR_KINDS, WEIGHTS, pair, trajectory

NOTHING = PairSet(trajectories=(), pairs=())
# Two turns of 2 and 1 tokens; one of 1, which shares the prompt and its token; one that equals the first.
ONE = replace(trajectory([10, 11, 12, 13, 14], "01101"), logps=np.array([0, -1, -2, 0, -3], np.float32))
TWO = replace(trajectory([10, 11], "01", sample=1), logps=np.array([0, -4], np.float32))
TWIN = replace(
    trajectory([10, 11, 12, 13, 14], "01101", sample=2), logps=np.array([0, -5, -6, 0, -7], np.float32)
)
SHAPE = {"rows": 1, "row_length": 16, "views_per_row": 4, "pairs": 4}


def packed(trajectories, credits, *, pairs=(), reduction="token", **batch):
    return pack(
        PairSet(trajectories=tuple(trajectories), pairs=tuple(pairs)),
        batch=BatchConfig(**(SHAPE | batch)),
        kinds=WEIGHTS,
        order=PAIR_KINDS,
        sft_extra={},
        sft_reduction="mean",
        pad_id=PAD,
        seed=0,
        reinforced=credits,
        reduction=reduction,
    )


CREDITS = {
    0: Credit(advantages=(0.5, -1.0)),
    1: Credit(advantages=(-0.25,), weight=2.0),
    2: Credit(advantages=(3.0, 4.0)),
}


def by_trajectory(plan):
    """Per trajectory: weights, advantages and old log-probabilities in the order of its tokens."""
    (batch,) = plan.batches
    found = {}
    for n, index in plan.views[0]:
        row, view = divmod(n, batch.view_weight.shape[1])
        places = np.flatnonzero(batch.view_weight[row, view])
        given = batch.reinforcement
        weights = batch.view_weight[row, view, places] * given.weight[n]
        found[index] = (weights, given.advantage[row, view, places], given.old_logps[row, view, places])
    return found


def test_shared_tokens_have_an_advantage_and_an_old_logp_in_each_view():
    plan = packed([ONE, TWO, TWIN], CREDITS)
    assert plan.tokens == (5,)  # what all three wrote stands once
    found = by_trajectory(plan)
    np.testing.assert_array_equal(found[0][1], np.float32([0.5, 0.5, -1.0]))
    np.testing.assert_array_equal(found[1][1], np.float32([-0.25]))
    np.testing.assert_array_equal(found[2][1], np.float32([3, 3, 4]))
    np.testing.assert_array_equal(found[0][2], [-1, -2, -3])
    np.testing.assert_array_equal(found[1][2], [-4])
    np.testing.assert_array_equal(found[2][2], [-5, -6, -7])
    (batch,) = plan.batches
    outside = batch.view_weight == 0
    assert not batch.reinforcement.advantage[outside].any()
    assert not batch.reinforcement.old_logps[outside].any()


@pytest.mark.parametrize(
    "reduction, weights",
    [
        ("token", {0: [1 / 7] * 3, 1: [2 / 7], 2: [1 / 7] * 3}),
        ("turn", {0: [1 / 10, 1 / 10, 1 / 5], 1: [2 / 5], 2: [1 / 10, 1 / 10, 1 / 5]}),
        ("trajectory", {0: [1 / 9] * 3, 1: [2 / 3], 2: [1 / 9] * 3}),
    ],
)
def test_a_step_is_the_mean_over_tokens_turns_or_trajectories(reduction, weights):
    found = by_trajectory(packed([ONE, TWO, TWIN], CREDITS, reduction=reduction))
    for index, wanted in weights.items():
        np.testing.assert_allclose(found[index][0], wanted, rtol=1e-6)


def test_denominators_are_those_of_the_whole_step():
    others = [replace(one, task_id="u") for one in (ONE, TWO)]
    credits = {index: Credit(advantages=(1.0,) * (1 + (index % 2 == 0))) for index in range(4)}
    plan = packed([ONE, TWO, *others], credits, views_per_row=2, step_episodes=4)
    assert plan.steps == ((0, 1),)
    total = sum(float(np.sum(b.view_weight.sum(-1).ravel() * b.reinforcement.weight)) for b in plan.batches)
    assert total == pytest.approx(1.0)
    alone = packed([ONE, TWO, *others], credits, views_per_row=2)
    assert alone.steps == ((0,), (1,))


def test_a_cut_trajectory_keeps_the_advantages_of_the_turns_that_are_left():
    long = trajectory([10, 11, 12, 13, *range(20, 36)], "0110" + "1" * 16)
    plan = packed([long], {0: Credit(advantages=(0.5, 9.0))}, too_long="cut")
    weights, advantages, _ = by_trajectory(plan)[0]
    np.testing.assert_array_equal(advantages, np.float32([0.5, 0.5]))
    np.testing.assert_allclose(weights, [0.5, 0.5])
    assert packed([long], {0: Credit(advantages=(0.5, 9.0))}).batches == []


def test_beside_pairs_it_rides_along_and_neither_changes_the_others_weights():
    better = replace(TWO, reward=1.0, agent="expert", tokens=np.array([10, 30], np.int32))
    pairs = [pair(1, 0)]
    plain = packed([ONE, better], None, pairs=pairs, views_per_row=8)
    both = packed([ONE, better, TWIN], {2: CREDITS[2]}, pairs=pairs, views_per_row=8)
    assert plain.batches[0].reinforcement is None
    (one,), (other,) = plain.batches, both.batches
    np.testing.assert_array_equal(one.weight, other.weight)
    assert one.sft_weight.sum() == other.sft_weight.sum() > 0
    weights, _, _ = by_trajectory(both)[2]
    np.testing.assert_allclose(weights, [1 / 3] * 3, rtol=1e-6)
    assert np.count_nonzero(other.reinforcement.weight) == 1


def test_every_one_has_an_index_of_its_own_and_who_says_nothing_is_left_out():
    base = PairSet(trajectories=(ONE,), pairs=())
    silent = trajectory([10, 11], "00", sample=4)
    broken = replace(TWO, ending=Ending.FAULT)
    found = [
        Reinforced(ONE, (1.0, 2.0)),
        Reinforced(TWIN, (0.0, 0.0)),
        Reinforced(silent, ()),
        Reinforced(broken, (1.0,)),
    ]
    options = {"weight": 0.5, "where": "here"}
    pair_set, credits = add_reinforced(base, found, skip_zero=False, **options)
    assert [one.sample for one in pair_set.trajectories] == [0, 0, 2]
    assert credits == {
        1: Credit(advantages=(1.0, 2.0), weight=0.5),
        2: Credit(advantages=(0.0, 0.0), weight=0.5),
    }
    _, left = add_reinforced(base, found, skip_zero=True, **options)
    assert set(left) == {1}


@pytest.mark.parametrize("advantages", [(1.0,), (1.0, 2.0, 3.0), (1.0, float("nan")), (float("inf"), 0.0)])
def test_what_is_not_one_finite_advantage_a_turn_is_refused_with_the_trajectorys_name(advantages):
    with pytest.raises(ConfigError) as caught:
        add_reinforced(NOTHING, [Reinforced(ONE, advantages)], weight=1, skip_zero=False, where="recipe.x")
    message = str(caught.value)
    assert message.startswith("recipe.x: t (target, sample 0): found the advantages [")
    assert message.endswith("expected a finite number for each of its 2 turns")


def test_counts_tell_anchor_groups_once():
    found = [Reinforced(ONE, (1.0, -1.0), (2, 1)), Reinforced(TWO, (3.0,), (2,))]
    counts = advantage_counts(found)
    assert counts["anchored"] == pytest.approx(0.5)  # a group of two turns, and a turn alone
    assert (counts["count"], counts["tasks"], counts["turns"]) == (2, 1, 3)
    assert counts["advantage_mean"] == pytest.approx(1.0)
    assert counts["advantage_std"] == pytest.approx((8 / 3) ** 0.5)
    assert "anchored" not in advantage_counts([Reinforced(ONE, (1.0, -1.0))])
    assert advantage_counts([])["count"] == 0


@pytest.mark.parametrize(("reduction", "weight"), [("token", 1 / 2), ("turn", 1 / 2), ("trajectory", 1 / 2)])
def test_turns_before_the_first_reinforced_one_have_no_weight_and_count_nowhere(reduction, weight):
    """The last turns of two trajectories alone: one token each, whatever came before."""
    credits = {
        0: Credit(advantages=(9.0, -1.0), first=1),
        1: Credit(advantages=(9.0, 2.0), first=1),
    }
    found = by_trajectory(packed([ONE, TWIN], credits, reduction=reduction))
    for index, advantage, old in ((0, -1.0, -3), (1, 2.0, -7)):
        weights, advantages, logps = found[index]
        np.testing.assert_allclose(weights, [weight])
        assert (advantages.tolist(), logps.tolist()) == ([advantage], [old])


def test_what_is_cut_off_before_its_first_reinforced_turn_is_left_out():
    long = replace(
        trajectory([10, 11, 12, *range(20, 40), 14], "011" + "0" * 20 + "1"),
        logps=np.zeros(24, np.float32),
    )
    plan = packed([long, ONE], {0: Credit(advantages=(0, 1), first=1), 1: CREDITS[0]}, too_long="cut")
    assert plan.locations[0] == () and plan.locations[1]


def test_a_turn_that_was_played_again_is_refused():
    branch = replace(ONE, branch=Branch(collection="expert", sample=0, turns=1, tokens=4))
    (credit,) = add_reinforced(
        NOTHING, [Reinforced(branch, (0.0, 1.0), first=1)], weight=1.0, skip_zero=True, where="w"
    )[1].values()
    assert credit == Credit(advantages=(0.0, 1.0), first=1)
    for first in (0, 2):
        with pytest.raises(ConfigError, match=r"found turn \d as the first .* from 1 to 1"):
            add_reinforced(
                NOTHING, [Reinforced(branch, (0.0, 1.0), first=first)], weight=1.0, skip_zero=False, where="w"
            )


def test_counts_are_of_the_reinforced_turns():
    found = [Reinforced(ONE, (9.0, 1.0), (1, 2), first=1), Reinforced(TWIN, (9.0, 3.0), (1, 2), first=1)]
    counts = advantage_counts(found)
    assert (counts["turns"], counts["advantage_mean"], counts["anchored"]) == (2, 2.0, 1.0)
