"""What cannot be packed: too long, broken, or named by a pair that cannot name it."""

import dataclasses

import numpy as np
import pytest

from coevo_jax.config.options import BatchConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.plan import pack_sft
from tests.data.packed import HAND, HAND_PAIRS, HAND_SHAPE, PAD, packed, pair, trajectory


def test_too_long_trajectories_and_their_pairs_are_dropped_and_named():
    long = trajectory(range(10, 27), "0" * 15 + "11", agent="failure", sample=3)
    plan = packed([*HAND[:2], long], [pair(0, 1), pair(0, 2)], rows=2, row_length=16, pairs=4)
    assert plan.too_long == ("t (failure, sample 3)",)
    assert (plan.dropped_pairs, plan.cut, plan.locations[2]) == (1, 0, ())
    np.testing.assert_allclose(plan.batches[0].weight, [0.5, 0, 0, 0])
    sft = pack_sft([long], batch=BatchConfig(row_length=16), pad_id=PAD, seed=0)
    assert (sft.batches, sft.steps, sft.padding) == ([], (), 0)


def test_too_long_trajectories_are_cut_after_a_whole_turn():
    long = trajectory(range(30, 50), "00110001110000110011", agent="failure")
    assert len(long.tokens) == 20
    plan = packed([HAND[0], long], [pair(0, 1)], rows=2, row_length=16, pairs=4, too_long="cut")
    assert (plan.cut, plan.too_long, plan.dropped_pairs) == (1, (), 0)
    tokens = plan.batches[0].tokens.tokens
    assert sorted(tokens[tokens >= 30].tolist()) == list(range(30, 46))
    assert plan.batches[0].token_count[plan.locations[1][0][1]] == 7
    one_more = trajectory(range(30, 47), "0" * 10 + "11" + "0000" + "1")
    plan = packed([HAND[0], one_more], [pair(0, 1)], rows=2, row_length=16, pairs=4, too_long="cut")
    assert (plan.cut, plan.batches[0].token_count[plan.locations[1][0][1]]) == (1, 2)
    no_turn = trajectory(range(30, 50), "0" * 18 + "11")
    plan = packed([HAND[0], no_turn], [pair(0, 1)], rows=2, row_length=16, pairs=4, too_long="cut")
    assert (plan.cut, plan.too_long, plan.dropped_pairs) == (0, ("t (target, sample 0)",), 1)


def test_a_pair_whose_sides_are_the_same_after_cutting_is_dropped_and_counted():
    sides = [trajectory([*range(10, 26), 30 + k], "0" * 12 + "11001", sample=k) for k in (0, 1)]
    shape = {"rows": 2, "row_length": 16, "pairs": 4, "too_long": "cut"}
    plan = packed(sides, [pair(0, 1)], **shape)
    assert (plan.batches, plan.cut, plan.dropped_pairs) == ([], 2, 1)
    late = packed([sides[0], HAND[0]], [pair(0, 1, chosen_from=1)], **shape)
    assert (late.batches, late.cut, late.dropped_pairs) == ([], 1, 1)  # its only turn that counts is cut off


def test_a_pair_that_fits_no_microbatch_is_dropped_and_counted():
    sides = [trajectory(range(10 * k, 10 * k + 12), "0" * 10 + "11") for k in (1, 3)]
    plan = packed(sides, [pair(0, 1)], rows=1, row_length=16)
    assert (plan.batches, plan.dropped_pairs, plan.too_long) == ([], 1, ())


BROKEN = {
    "tokens, agent_mask, logps": {"agent_mask": np.ones(3, bool)},
    "token 1: found id -4": {"tokens": np.array([10, -4, 12, 13, 14, 15], np.int32)},
    "log-probability of token 2: found nan": {"logps": np.array([0, 0, np.nan, 0, 0, 0], np.float32)},
    "reward: found inf": {"reward": float("inf")},
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_trajectory_is_refused_by_name(problem):
    broken = dataclasses.replace(HAND[0], **BROKEN[problem])
    with pytest.raises(ConfigError, match=rf"t \(expert, sample 0\): {problem}"):
        packed([broken, *HAND[1:]], HAND_PAIRS, **HAND_SHAPE)
    with pytest.raises(ConfigError, match=rf"t \(expert, sample 0\): {problem}"):
        pack_sft([broken], batch=BatchConfig(**HAND_SHAPE), pad_id=PAD, seed=0)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (pair(0, 3), "rejected: found trajectory 3, expected one of 3"),
        (pair(-1, 1), "chosen: found trajectory -1"),
        (
            pair(0, 1, task="u"),
            r"chosen: found t \(expert, sample 0\), expected a trajectory of the pair's task",
        ),
        (pair(0, 1, "failure_failure"), "this kind has no weights, only expert_target has"),
        (pair(0, 1, rejected_from=1), r"rejected_from: found turn 1, .* 1 of t \(target, sample 0\)"),
    ],
)
def test_a_broken_pair_is_refused_by_name(broken, problem):
    weights = {"expert_target": KindWeights()}
    with pytest.raises(ConfigError, match=rf"pair 1 \(.* of task .\): {problem}"):
        packed(HAND, [HAND_PAIRS[0], broken], weights=weights, **HAND_SHAPE)
    with pytest.raises(ConfigError, match="sft_extra: found trajectory 7"):
        packed(HAND, [], extra={7: 1.0}, **HAND_SHAPE)
