import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo_jax.config.options import BatchConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.plan import epoch_order, pack_sft, with_reference
from tests.data.packed import (
    DPO,
    HAND,
    HAND_PAIRS,
    HAND_SHAPE,
    PAD,
    PAIR_KINDS,
    SFT,
    corpus,
    packed,
    pair,
    seen_from,
    trajectory,
)


def test_a_shared_prefix_by_hand():
    (batch,) = packed(HAND, HAND_PAIRS, **HAND_SHAPE).batches
    tokens = batch.tokens
    assert tokens.tokens.tolist() == [[10, 11, 12, 13, 14, 15, 20, 21, 30, 31, *[PAD] * 6]]
    assert tokens.positions.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4, 2, 3, *[0] * 6]]
    assert tokens.visible_until.tolist() == [[10, 10, 8, 6, 6, 6, 8, 8, 10, 10, *range(11, 17)]]
    assert tokens.scored.tolist() == [6]
    assert tokens.source.tolist() == [[1, 2, 4, 2, 1, 8, *[0] * 10]]
    assert tokens.target.tolist() == [[12, 13, 15, 20, 30, 31, *[0] * 10]]
    assert batch.view_weight.tolist() == [
        [
            [1, 1, 1, *[0] * 13],
            [1, 0, 0, 1, *[0] * 12],
            [0, 0, 0, 0, 1, 1, *[0] * 10],
            [0] * 16,
        ]
    ]


def test_the_pairs_and_weights_of_a_microbatch_by_hand():
    plan = packed(HAND, HAND_PAIRS, **HAND_SHAPE)
    (batch,) = plan.batches
    assert (plan.steps, plan.locations) == (((0,),), (((0, 0),), ((0, 1),), ((0, 2),)))
    assert batch.chosen.tolist() == [0, 0, 1, 0]
    assert batch.rejected.tolist() == [1, 2, 2, 0]
    assert batch.kind.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(batch.weight, np.array([0.5, 0.25, 1.0, 0]) / 3, rtol=1e-6)
    # the expert is chosen twice: (0.5 + 0.125) / 3 pairs, over its 3 agent tokens
    np.testing.assert_allclose(batch.sft_weight, [0.625 / 3 / 3, 0, 0, 0], rtol=1e-6)
    assert batch.reward.tolist() == [1, 0.5, 0.25, 0]
    assert batch.token_count.tolist() == [3, 2, 2, 0]
    assert batch.step_share == 1
    assert (plan.padding, plan.shared) == (pytest.approx(6 / 16), pytest.approx(5 / 15))
    assert (plan.cut, plan.dropped_pairs, plan.too_long) == (0, 0, ())


def test_without_sharing_every_trajectory_is_its_own_tree():
    plan = packed(HAND, HAND_PAIRS, share_prefixes=False, **HAND_SHAPE)
    tokens = plan.batches[0].tokens
    assert tokens.tokens[0].tolist() == [10, 11, 12, 13, 14, 15, 10, 11, 12, 20, 21, 10, 11, 30, 31, PAD]
    assert tokens.visible_until[0].tolist() == [*[6] * 6, *[11] * 5, *[15] * 4, 16]
    assert tokens.source[0, :7].tolist() == [1, 2, 4, 7, 8, 12, 13]
    assert plan.shared == 0


def test_one_trajectory_with_one_agent_token_after_the_first():
    (batch,) = pack_sft(
        [trajectory([10, 11], "11")], batch=BatchConfig(rows=1, row_length=16), pad_id=PAD, seed=0
    ).batches
    assert batch.tokens.target[0, :2].tolist() == [11, 0]  # nothing predicts the first token
    assert batch.token_count.sum() == batch.tokens.scored.sum() == 1


def test_array_types():
    (batch,) = packed(HAND, HAND_PAIRS, **HAND_SHAPE).batches
    fields = {**vars(batch), **vars(batch.tokens), "token_ids": batch.tokens.tokens}
    del fields["tokens"]
    assert fields.pop("reinforcement") is None and fields.pop("steps") is None
    floats = {"view_weight", "reference_logps", "sft_weight", "reward", "weight", "step_share"}
    assert {name: array.dtype for name, array in fields.items()} == {
        name: np.dtype(np.float32 if name in floats else np.int32) for name in fields
    }


def view_of(plan, side, index):
    """Weights of the tokens that count in one side of a pair, in the order of the row."""
    (batch,) = plan.batches
    n = int(getattr(batch, side)[index])
    weights = batch.view_weight.reshape(-1, batch.view_weight.shape[-1])[n]
    assert batch.token_count[n] == (weights > 0).sum()
    return weights[weights > 0].tolist()


def test_credit_per_turn_and_length_desensitising():
    plan = packed(HAND, HAND_PAIRS[:1], credit={"ld_alpha": 0.25, "turn_discount": 0.5}, **HAND_SHAPE)
    assert view_of(plan, "chosen", 0) == [
        0.5,
        0.5,
        0.25,
    ]  # two turns; the third token is beyond the other side
    assert view_of(plan, "rejected", 0) == [1, 1]
    (batch,) = plan.batches
    (plain,) = np.flatnonzero(batch.sft_weight)  # the SFT term never desensitises
    assert batch.view_weight[0, plain, :3].tolist() == [0.5, 0.5, 1]
    assert plain == plan.locations[0][0][1] != batch.chosen[0]
    assert batch.sft_weight[plain] == pytest.approx(0.5 / 3)


def test_a_pair_may_count_from_a_later_turn_on():
    late = pair(0, 1, chosen_from=1)
    plan = packed(HAND, [late], credit={"ld_alpha": 0.5}, **HAND_SHAPE)
    assert view_of(plan, "chosen", 0) == [1]
    assert view_of(plan, "rejected", 0) == [1, 0.5]
    # What is imitated is what is preferred: the SFT term has the chosen side's view, its one token.
    assert sorted(plan.batches[0].token_count.tolist()) == [0, 0, 1, 2]
    (batch,), n = plan.batches, int(plan.batches[0].chosen[0])
    assert np.flatnonzero(batch.sft_weight).tolist() == [n]
    assert batch.sft_weight[n] == pytest.approx(0.5 / 1)
    assert plan.turns == ({n: (0.0, 1.0)},)


def test_equal_views_stand_once():
    plan = packed(HAND, [*HAND_PAIRS, pair(0, 1, chosen_from=1)], **HAND_SHAPE)
    assert sorted(plan.batches[0].token_count.tolist()) == [1, 2, 2, 3]


def test_the_sum_reduction_does_not_divide_by_the_tokens():
    (batch,) = packed(HAND, HAND_PAIRS, reduction="sum", **HAND_SHAPE).batches
    assert batch.sft_weight.sum() == pytest.approx(0.625 / 3)


def test_extra_sft_beside_pairs_and_alone():
    success = trajectory([50, 51, 52, 53], "0011", task="u", reward=1.0)
    shape = HAND_SHAPE | {"rows": 2}
    plan = packed([*HAND, success], HAND_PAIRS, extra={3: 0.3, 0: 0.6}, **shape)
    place = [places[0][1] for places in plan.locations]
    weights = plan.batches[0].sft_weight
    assert weights[place[3]] == pytest.approx(0.3 / 2 / 2)  # a mean over the two that are learned alone
    assert weights[place[0]] == pytest.approx((0.625 / 3 + 0.6 / 2) / 3)
    alone = packed([success, HAND[0]], [], extra={0: 0.3, 1: 0.3}, **shape)
    assert alone.batches[0].sft_weight.sum() == pytest.approx(0.3 / 2 / 2 + 0.3 / 2 / 3)
    assert alone.batches[0].weight.sum() == 0


def test_supervised_weights_give_the_token_mean_of_the_step():
    plan = pack_sft(HAND, batch=BatchConfig(**HAND_SHAPE), pad_id=PAD, seed=0)
    (batch,) = plan.batches
    used = batch.token_count > 0
    np.testing.assert_allclose(batch.sft_weight[used], 1 / 7, rtol=1e-6)
    assert (batch.sft_weight[~used] == 0).all()
    assert batch.weight.tolist() == [0] * 4


def test_a_tree_longer_than_a_row_takes_two_rows_of_the_microbatch():
    expert = trajectory([10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 40, 41, 42, 43], "00" + "1" * 12)
    branches = [
        trajectory(
            [*expert.tokens[:8], *range(20 + 10 * k, 26 + 10 * k)], expert.agent_mask.astype(str), sample=k
        )
        for k in (1, 2)
    ]
    branches = [dataclasses.replace(one, agent_mask=expert.agent_mask) for one in branches]
    shape = {"rows": 2, "row_length": 20, "views_per_row": 2, "pairs": 4}
    plan = packed([expert, *branches], [pair(0, 1), pair(0, 2)], **shape)
    (batch,) = plan.batches
    assert batch.tokens.tokens[:, :8].tolist() == [list(range(10, 18))] * 2
    assert sorted((batch.tokens.tokens != PAD).sum(axis=1).tolist()) == [14, 20]
    assert plan.dropped_pairs == 0
    wide = packed([expert, *branches], [pair(0, 1), pair(0, 2)], **shape | {"row_length": 32})
    rows = sorted((wide.batches[0].token_count > 0).reshape(2, 2).sum(axis=1).tolist())
    assert rows == [1, 2]  # two views a row


def test_a_system_prompt_stands_once_in_a_row():
    tasks = [
        trajectory([10, 11, 12, 30 + k, 31, 32], "000011", task=f"t{k}", agent="expert") for k in range(3)
    ]
    plan = pack_sft(tasks, batch=BatchConfig(rows=1, row_length=16), pad_id=PAD, seed=0)
    assert sorted(plan.batches[0].tokens.tokens[0, 3:12].tolist()) == [30, 31, 31, 31, 31, 32, 32, 32, 32]
    assert plan.padding == pytest.approx(4 / 16)
    assert plan.batches[0].tokens.visible_until[0, :4].tolist() == [12, 12, 12, 6]


def test_no_pairs_give_no_steps():
    plan = packed([], [], rows=1, row_length=16)
    assert (plan.batches, plan.steps, plan.padding, plan.shared, plan.dropped_pairs) == ([], (), 0, 0, 0)


def test_a_task_too_large_for_one_microbatch_is_split_by_pairs():
    failures = [trajectory(range(20 * k, 20 * k + 8), "0" * 6 + "11", sample=k) for k in (2, 3, 4)]
    expert = trajectory(range(10, 18), "0" * 6 + "11", agent="expert")
    pairs = [pair(0, k) for k in (1, 2, 3)]
    plan = packed([expert, *failures], pairs, extra={0: 1.0}, rows=1, row_length=24, pairs=4)
    counts = [int((batch.weight > 0).sum()) for batch in plan.batches]
    assert sorted(counts) == [1, 2]
    assert [len(places) for places in plan.locations] == [2, 1, 1, 1]  # the expert is repeated
    assert plan.dropped_pairs == 0
    # A step's weights of the expert's two tokens: 0.5 as its pairs' mean, and 1 in the step it counts in.
    totals = sorted(float(batch.sft_weight.sum()) * 2 for batch in plan.batches)
    assert totals == pytest.approx([0.5, 1.5])


def test_pairs_of_a_microbatch_are_limited():
    plan = packed(HAND, HAND_PAIRS, **HAND_SHAPE | {"pairs": 2, "rows": 4})
    assert sorted(int((batch.weight > 0).sum()) for batch in plan.batches) == [1, 2]


def test_a_small_last_step_imitates_no_more_than_the_others():
    """33 pairs and 40 successes, 32 pairs a step: the summed SFT weight was 1.1 and 20.5."""
    trajectories, pairs = corpus(np.random.default_rng(1), 33, 1, prompt=(8, 12), turn=(3, 6))
    successes = [
        trajectory(range(10, 20), "0" * 5 + "1" * 5, task=f"u{k:02d}", reward=1.0) for k in range(40)
    ]
    extra = {len(trajectories) + k: 1.0 for k in range(40)}
    shape = {"rows": 4, "row_length": 64, "pairs": 16, "step_pairs": 32}
    plan = packed([*trajectories, *successes], pairs, extra=extra, reduction="sum", **shape)
    assert [sum((plan.batches[i].weight > 0).sum() for i in step) for step in plan.steps] == [32, 1]
    assert {one.kind for one in pairs} == {"expert_failure"}
    sums = [sum(plan.batches[i].sft_weight.sum() for i in step) for step in plan.steps]
    assert sums == pytest.approx([SFT["expert_failure"] + 1.0] * 2)


def test_a_weight_of_zero_is_no_missing_token():
    """LD-DPO's alpha 0 leaves the longer side's surplus out of the sum, not out of the length."""
    plan = packed(HAND, HAND_PAIRS[:1], credit={"ld_alpha": 0.0}, **HAND_SHAPE)
    (batch,) = plan.batches
    n = int(batch.chosen[0])
    weights = batch.view_weight.reshape(-1, batch.view_weight.shape[-1])[n]
    assert (weights > 0).sum() == 2
    assert batch.token_count[n] == 3


def test_steps_of_an_exact_number_of_pairs():
    trajectories, pairs = corpus(np.random.default_rng(0), 30, 3, prompt=(10, 30), turn=(4, 12))
    extra = dict.fromkeys(range(0, len(trajectories), 5), 1.0)
    # and eleven trajectories of tasks without a pair
    lonely = [trajectory(range(10, 30), "0" * 15 + "1" * 5, task=f"u{k:02d}") for k in range(11)]
    extra |= {len(trajectories) + k: 1.0 for k in range(11)}
    shape = {"rows": 2, "row_length": 128, "pairs": 16, "step_pairs": 12}
    plan = packed([*trajectories, *lonely], pairs, extra=extra, reduction="sum", **shape)
    assert [number for step in plan.steps for number in step] == list(range(len(plan.batches)))
    counts = [sum(int((plan.batches[i].weight > 0).sum()) for i in step) for step in plan.steps]
    assert counts[:-1] == [12] * (len(counts) - 1)
    assert sum(counts) == len(pairs)
    assert max(len(step) for step in plan.steps) > 1
    for step in plan.steps:
        own = [plan.batches[i] for i in step]
        kinds = np.concatenate([batch.kind[batch.weight > 0] for batch in own])
        expected = np.mean([DPO[PAIR_KINDS[kind]] for kind in kinds])
        assert sum(batch.weight.sum() for batch in own) == pytest.approx(expected)
        assert [float(batch.step_share) for batch in own] == [1.0, *[0.0] * (len(own) - 1)]
        imitated = np.mean([SFT[PAIR_KINDS[kind]] for kind in kinds])
        # Both terms are means over what they are made of: one ratio in every step, the last one's too.
        total = sum(float(batch.sft_weight.sum(dtype=np.float64)) for batch in own)
        assert total - imitated == pytest.approx(1.0, rel=1e-5)
    steps_of_lonely = [
        next(i for i, step in enumerate(plan.steps) if places[0][0] in step)
        for places in plan.locations[len(trajectories) :]
    ]
    spread = np.bincount(steps_of_lonely, minlength=len(plan.steps))
    assert spread.max() - spread.min() <= 1


def test_steps_of_an_exact_number_of_demonstrations():
    trajectories, _ = corpus(np.random.default_rng(0), 20, 1, prompt=(10, 30), turn=(4, 12))
    batch = BatchConfig(rows=1, row_length=128, step_demonstrations=7)
    plan = pack_sft(trajectories, batch=batch, pad_id=PAD, seed=0)
    counts = [sum(int((plan.batches[i].token_count > 0).sum()) for i in step) for step in plan.steps]
    assert counts == [7] * (len(trajectories) // 7) + [len(trajectories) % 7] * (len(trajectories) % 7 > 0)
    for step in plan.steps:
        own = [plan.batches[i] for i in step]
        assert sum(float((one.sft_weight * one.token_count).sum()) for one in own) == pytest.approx(1)
        assert len({float(one.sft_weight.max()) for one in own}) == 1


def test_reference_logps_are_stored_with_a_microbatch():
    (batch,) = packed(HAND, HAND_PAIRS, **HAND_SHAPE).batches
    stored = with_reference(batch, np.arange(4.0))
    assert stored.reference_logps.tolist() == [0, 1, 2, 3]
    assert stored.reference_logps.dtype == np.float32
    assert batch.reference_logps.tolist() == [0] * 4
    with pytest.raises(ConfigError, match=r"found shape \(3,\), expected \(4,\)"):
        with_reference(batch, np.arange(3.0))
    with pytest.raises(ConfigError, match="view 2 of row 0"):
        with_reference(batch, np.array([0, 0, np.nan, 0]))


def test_an_epoch_visits_every_step_in_an_order_of_its_own():
    orders = [epoch_order(20, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(20, 0, 1).tolist() == orders[1]


def check_views(plan, trajectories, count=lambda one: int(one.agent_mask[1:].sum())):
    """Every scored token of every view sees its trajectory's own tokens before it, and nothing else."""
    for index, places in enumerate(plan.locations):
        own = trajectories[index]
        for number, n in places:
            tokens, (row, s) = (
                plan.batches[number].tokens,
                divmod(n, plan.batches[number].view_weight.shape[1]),
            )
            entries = np.flatnonzero(plan.batches[number].view_weight[row, s])
            assert len(entries) == count(own) == plan.batches[number].token_count[n]
            assert (entries < tokens.scored[row]).all()
            for j, place in zip(entries, np.flatnonzero(own.agent_mask[1:]) + 1, strict=True):
                path = seen_from(tokens, row, int(tokens.source[row, j]))
                assert tokens.tokens[row, path].tolist() == own.tokens[:place].tolist()
                assert tokens.positions[row, path].tolist() == list(range(place))
                assert tokens.target[row, j] == own.tokens[place]


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
)
def test_nothing_is_lost_or_torn_apart(seed, tasks, samples, rows, views, pair_limit, share, step_pairs):
    rng = np.random.default_rng(seed)
    trajectories, pairs = corpus(rng, tasks, samples, prompt=(1, 6), turn=(1, 6), system=2, max_turns=5)
    extra = dict.fromkeys(range(0, len(trajectories), 3), 1.0)
    shape = {"rows": rows, "row_length": 28, "views_per_row": views, "pairs": pair_limit}
    plan = packed(
        trajectories, pairs, extra=extra, seed=seed, share_prefixes=share, step_pairs=step_pairs, **shape
    )
    check_views(plan, trajectories)
    seen = []
    for batch in plan.batches:
        real = batch.weight > 0
        sides = [[told_by(batch, int(n)) for n in side[real]] for side in (batch.chosen, batch.rejected)]
        seen += list(zip(*sides, batch.kind[real].tolist(), strict=True))
        padding = batch.tokens.tokens == PAD
        assert (batch.tokens.visible_until[padding] == np.nonzero(padding)[1] + 1).all()
        assert (batch.tokens.scored <= (~padding).sum(axis=1)).all()
    fits = [len(one.tokens) <= 28 for one in trajectories]
    assert sorted(plan.too_long) == sorted(
        f"{one.task_id} ({one.agent}, sample {one.sample})"
        for one, fit in zip(trajectories, fits, strict=True)
        if not fit
    )
    assert len(seen) == len(pairs) - plan.dropped_pairs
    known = [
        (said(trajectories[p.chosen]), said(trajectories[p.rejected]), PAIR_KINDS.index(p.kind))
        for p in pairs
    ]
    assert not Counter(seen) - Counter(known)
    assert all(plan.locations[index] for index in extra if fits[index])
    used = sum(int((batch.tokens.tokens != PAD).sum()) for batch in plan.batches)
    places = sum(batch.tokens.tokens.size for batch in plan.batches)
    assert plan.padding == pytest.approx(1 - used / places if places else 0)


def said(one):
    """A trajectory's tokens up to the agent's last one."""
    return tuple(one.tokens[: np.flatnonzero(one.agent_mask)[-1] + 1].tolist())


def told_by(batch, n):
    """The same from a view."""
    row, s = divmod(n, batch.view_weight.shape[1])
    j = np.flatnonzero(batch.view_weight[row, s])[-1]
    path = seen_from(batch.tokens, row, int(batch.tokens.source[row, j]))
    return (*batch.tokens.tokens[row, path].tolist(), int(batch.tokens.target[row, j]))


def test_a_task_that_fits_stays_in_one_microbatch():
    trajectories, pairs = corpus(np.random.default_rng(0), 20, 4, prompt=(20, 80), turn=(10, 30))
    plan = packed(trajectories, pairs)
    assert all(len(places) == 1 for places in plan.locations)
    for one in pairs:
        assert plan.locations[one.chosen][0][0] == plan.locations[one.rejected][0][0]


def test_padding_is_small_on_a_realistic_mix():
    rng = np.random.default_rng(0)
    trajectories, pairs = corpus(rng, 120, 3, prompt=(20, 50), turn=(6, 20), system=13)
    shape = {"rows": 2, "row_length": 512, "views_per_row": 16, "pairs": 32}
    plan = packed(trajectories, pairs, **shape)
    assert plan.padding < 0.05
    assert plan.shared > 0.3
    plain = packed(trajectories, pairs, share_prefixes=False, **shape)
    assert len(plan.batches) < 0.8 * len(plain.batches)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    trajectories, pairs = corpus(np.random.default_rng(0), 30, 3, prompt=(20, 80), turn=(10, 30))
    extra = dict.fromkeys(range(0, len(trajectories), 3), 1.0)
    reordered = dict(reversed(extra.items()))
    plans = [
        packed(trajectories, pairs, extra=own, seed=seed, rows=2, step_pairs=steps)
        for steps in (None, 10)
        for own, seed in ((extra, 0), (reordered, 0), (extra, 1))
    ]
    for first, again, other in (plans[:3], plans[3:]):
        assert first.locations == again.locations != other.locations
        assert first.steps == again.steps
        for one, two in zip(first.batches, again.batches, strict=True):
            np.testing.assert_array_equal(one.tokens.tokens, two.tokens.tokens)
            np.testing.assert_array_equal(one.view_weight, two.view_weight)
            np.testing.assert_array_equal(one.sft_weight, two.sft_weight)


def test_a_task_that_must_be_split_encodes_little_again():
    # Eight failures of either agent, all 64 pairs among them, 20 tokens each; a row holds eight.
    rng = np.random.default_rng(0)
    trajectories = [trajectory(rng.integers(10, 999, 20), "0" * 5 + "1" * 15, sample=n) for n in range(16)]
    pairs = [pair(i, j, "failure_failure") for i in range(8) for j in range(8, 16)]
    plan = packed(trajectories, pairs, rows=1, row_length=160, views_per_row=8, pairs=32)
    assert sorted(number for own in plan.pairs for number in own) == list(range(64))
    # Four and four cover 16 pairs: four rows at best. Pair after pair, in their order, takes ten.
    assert len(plan.batches) == 4
    assert sum(plan.tokens) == 4 * 160


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(2, 9))
def test_a_split_task_keeps_every_pair_that_a_microbatch_holds_once(seed, rows, samples):
    trajectories, pairs = corpus(
        np.random.default_rng(seed), 2, samples, prompt=(3, 9), turn=(2, 6), system=2
    )
    shape = {"rows": rows, "row_length": 60, "views_per_row": 4, "pairs": 5}
    plan = packed(trajectories, pairs, **shape)
    learned = [number for own in plan.pairs for number in own]
    assert len(learned) == len(set(learned))
    for number, one in enumerate(pairs):
        alone = packed(trajectories, [one], **shape)
        assert (number in learned) == (alone.dropped_pairs == 0)
