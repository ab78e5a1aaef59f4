import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.config import BatchConfig, KindWeights, PairWeights
from coevo_jax.data.packing import epoch_order, pack, pack_sft, with_reference
from coevo_jax.data.pairing import PairSet
from coevo_jax.trajectory import PAIR_KINDS, Ending, PreferencePair, Trajectory

PAD = 9
WEIGHTS = PairWeights(
    expert_target=KindWeights(dpo=0.5, sft=0.5),
    expert_failure=KindWeights(dpo=0.25, sft=0.125),
    failure_failure=KindWeights(dpo=1.0, sft=0.0),
)


def trajectory(mask, *, task="t", agent="target", sample=0, reward=0.0, first=100):
    """Tokens count up from `first`; `mask` is a string of 0 and 1."""
    mask = np.array([char == "1" for char in mask])
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="",
        turns=(),
        reward=reward,
        ending=Ending.FAILED,
        tokens=np.arange(first, first + len(mask), dtype=np.int32),
        agent_mask=mask,
        logps=np.zeros(len(mask), np.float32),
    )


def pair(chosen, rejected, kind="expert_target", task="t"):
    return PreferencePair(task_id=task, kind=kind, chosen=chosen, rejected=rejected)


def packed(trajectories, links, *, extra=None, reduction="mean", seed=0, **batch):
    return pack(
        PairSet(trajectories=tuple(trajectories), pairs=tuple(links)),
        batch=BatchConfig(**batch),
        pair_weights=WEIGHTS,
        sft_extra=extra or {},
        sft_reduction=reduction,
        pad_id=PAD,
        seed=seed,
    )


HAND = [
    trajectory("0011011", agent="expert", reward=1.0, first=100),
    trajectory("0011", reward=0.5, first=200),
    trajectory("00111001110", agent="failure", reward=0.25, first=300),
]
HAND_PAIRS = [pair(0, 1), pair(0, 2, "expert_failure"), pair(1, 2, "failure_failure")]


def test_a_microbatch_by_hand():
    plan = packed(HAND, HAND_PAIRS, rows=2, row_length=16, segments_per_row=3, pairs=4)
    (batch,) = plan.batches
    tokens = batch.tokens
    assert tokens.tokens.tolist() == [
        [*range(300, 311), *range(200, 204), PAD],
        [*range(100, 107), *[PAD] * 9],
    ]
    assert tokens.segment_ids.tolist() == [[1] * 11 + [2] * 4 + [0], [1] * 7 + [0] * 9]
    assert tokens.positions.tolist() == [[*range(11), *range(4), 0], [*range(7), *[0] * 9]]
    assert tokens.loss_mask.astype(int).tolist() == [
        [0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0, 1, 1, *[0] * 9],
    ]
    assert (tokens.token_weight == 1).all()
    # n = b * 3 + s: the failure is 0, the target 1, the expert 3
    assert plan.locations == (((0, 3),), ((0, 1),), ((0, 0),))
    assert batch.chosen.tolist() == [3, 3, 1, 0]
    assert batch.rejected.tolist() == [1, 0, 0, 0]
    assert batch.kind.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(batch.weight, np.array([0.5, 0.25, 1.0, 0]) / 3, rtol=1e-6)
    # the expert is chosen twice: (0.5 + 0.125) / 3 pairs, over its 4 agent tokens
    np.testing.assert_allclose(batch.sft_weight, [0, 0, 0, 0.625 / 3 / 4, 0, 0], rtol=1e-6)
    assert batch.reward.tolist() == [0.25, 0.5, 0, 1, 0, 0]
    assert batch.token_count.tolist() == [6, 2, 0, 4, 0, 0]
    assert batch.reference_logps.tolist() == [0] * 6
    assert (plan.too_long, plan.dropped_pairs, plan.padding) == ((), 0, 10 / 32)


def test_every_array_has_the_type_of_its_field():
    (batch,) = packed(HAND, HAND_PAIRS, rows=2, row_length=16, segments_per_row=3, pairs=4).batches
    types = {"loss_mask": bool, "token_weight": np.float32, "reference_logps": np.float32}
    types |= dict.fromkeys(("sft_weight", "reward", "weight"), np.float32)
    fields = {**vars(batch.tokens), **vars(batch)}
    del fields["tokens"]
    fields["token_ids"] = batch.tokens.tokens
    assert {name: array.dtype for name, array in fields.items()} == {
        name: np.dtype(types.get(name, np.int32)) for name in fields
    }


def test_the_sum_reduction_does_not_divide_by_the_tokens():
    (batch,) = packed(HAND, HAND_PAIRS, reduction="sum", rows=2, row_length=16, pairs=4).batches
    assert batch.sft_weight.sum() == pytest.approx(0.625 / 3)


def test_extra_sft_beside_pairs_and_alone():
    success = trajectory("00001111", task="u", reward=1.0)
    shape = {"rows": 3, "row_length": 16, "pairs": 4}
    plan = packed([*HAND, success], HAND_PAIRS, extra={3: 0.3, 0: 0.6}, **shape)
    place = [places[0][1] for places in plan.locations]
    weights = plan.batches[0].sft_weight
    assert weights[place[3]] == pytest.approx(0.3 / 3 / 4)
    assert weights[place[0]] == pytest.approx((0.625 + 0.6) / 3 / 4)
    alone = packed([success, HAND[0]], [], extra={0: 0.3, 1: 0.3}, **shape)
    assert alone.batches[0].sft_weight.sum() == pytest.approx(0.3 / 2 / 4 + 0.3 / 2 / 4)
    assert alone.batches[0].weight.sum() == 0


def test_supervised_weights_give_the_token_mean_of_the_step():
    plan = pack_sft(HAND, batch=BatchConfig(rows=2, row_length=16, pairs=4), pad_id=PAD, seed=0)
    (batch,) = plan.batches
    used = batch.token_count > 0
    np.testing.assert_allclose(batch.sft_weight[used], 1 / 12, rtol=1e-6)
    assert (batch.sft_weight[~used] == 0).all()
    assert (batch.sft_weight * batch.token_count).sum() == pytest.approx(1)
    assert batch.weight.tolist() == [0] * 4


def test_too_long_trajectories_and_their_pairs_are_dropped_and_named():
    long = trajectory("0" * 17, agent="failure", sample=3)
    plan = packed([*HAND[:2], long], [pair(0, 1), pair(0, 2)], rows=2, row_length=16, pairs=4)
    assert plan.too_long == ("t (failure, sample 3)",)
    assert plan.dropped_pairs == 1
    assert plan.locations[2] == ()
    np.testing.assert_allclose(plan.batches[0].weight, [0.5, 0, 0, 0])
    assert pack_sft([long], batch=BatchConfig(row_length=16), pad_id=PAD, seed=0).batches == []


def test_a_pair_that_fits_no_microbatch_is_dropped_and_counted():
    plan = packed([HAND[0], HAND[2]], [pair(0, 1)], rows=1, row_length=16)
    assert (plan.batches, plan.dropped_pairs, plan.too_long) == ([], 1, ())


def test_a_task_too_large_for_one_microbatch_is_split_by_pairs():
    failures = [trajectory("0" * 6 + "11", first=200 + 10 * k, sample=k) for k in range(3)]
    expert = trajectory("0" * 6 + "11", agent="expert", first=100)
    pairs = [pair(0, k) for k in (1, 2, 3)]
    plan = packed([expert, *failures], pairs, extra={0: 1.0}, rows=1, row_length=24, pairs=4)
    assert [int((batch.weight > 0).sum()) for batch in plan.batches] == [2, 1] or [
        int((batch.weight > 0).sum()) for batch in plan.batches
    ] == [1, 2]
    assert [len(places) for places in plan.locations] == [2, 1, 1, 1]  # the expert is repeated
    assert plan.dropped_pairs == 0
    sft = sorted(float(batch.sft_weight.sum() * 2) for batch in plan.batches)
    counts = [int((batch.weight > 0).sum()) for batch in plan.batches]
    first = counts[plan.locations[0][0][0]]  # the extra weight counts once, where the expert stands first
    assert sum(sft) == pytest.approx(0.5 + 0.5 + 1.0 / first)


def test_pairs_of_a_microbatch_are_limited():
    plan = packed(HAND, HAND_PAIRS, rows=4, row_length=16, pairs=2)
    assert sorted(int((batch.weight > 0).sum()) for batch in plan.batches) == [1, 2]


def test_reference_logps_are_stored_with_a_microbatch():
    (batch,) = packed(HAND, HAND_PAIRS, rows=2, row_length=16, segments_per_row=3, pairs=4).batches
    stored = with_reference(batch, np.arange(6.0))
    assert stored.reference_logps.tolist() == [0, 1, 2, 3, 4, 5]
    assert stored.reference_logps.dtype == np.float32
    assert batch.reference_logps.tolist() == [0] * 6
    with pytest.raises(ValueError):
        with_reference(batch, np.arange(5.0))


def test_an_epoch_visits_every_microbatch_in_an_order_of_its_own():
    orders = [epoch_order(20, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(20, 0, 1).tolist() == orders[1]


def corpus(rng, tasks, low, high, samples=4):
    """Tasks with an expert and 1 to `samples` failures, every token unique, and pairs of every kind."""
    trajectories, pairs = [], []
    for task in range(tasks):
        start, count = len(trajectories), int(rng.integers(1, samples + 1))
        for k in range(count + 1):
            length = int(rng.integers(low, high + 1))
            mask = "0" + "".join(rng.choice(["0", "1"], length - 1))
            first = 1000 * len(trajectories) + 10
            trajectories.append(trajectory(mask, task=f"t{task:04d}", sample=k, first=first))
        for k in range(1, count + 1):
            pairs.append(pair(start, start + k, PAIR_KINDS[k % 2], f"t{task:04d}"))
        if count > 1:
            pairs.append(pair(start + 1, start + 2, "failure_failure", f"t{task:04d}"))
    return trajectories, pairs


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 8),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_nothing_is_lost_or_torn_apart(seed, tasks, samples, rows, segments, pair_limit):
    rng = np.random.default_rng(seed)
    trajectories, pairs = corpus(rng, tasks, 2, 36, samples)
    extra = {index: 1.0 for index in range(0, len(trajectories), 3)}
    shape = {"rows": rows, "row_length": 32, "segments_per_row": segments, "pairs": pair_limit}
    plan = packed(trajectories, pairs, extra=extra, seed=seed, **shape)
    owner = {(number, n): index for index, places in enumerate(plan.locations) for number, n in places}
    seen = []
    for number, batch in enumerate(plan.batches):
        tokens, real = batch.tokens, batch.weight > 0
        for b in range(rows):
            for s in range(segments):
                inside = tokens.segment_ids[b] == s + 1
                index = owner.get((number, b * segments + s))
                expected = trajectories[index].tokens if index is not None else []
                assert tokens.tokens[b, inside].tolist() == list(expected)
                if index is not None:
                    assert tokens.loss_mask[b, inside].tolist() == trajectories[index].agent_mask.tolist()
                    assert tokens.positions[b, inside].tolist() == list(range(len(expected)))
        padding = tokens.segment_ids == 0
        assert (tokens.tokens[padding] == PAD).all()
        assert not tokens.loss_mask[padding].any()
        for chosen, rejected, kind in zip(
            batch.chosen[real], batch.rejected[real], batch.kind[real], strict=True
        ):
            seen.append((owner[number, int(chosen)], owner[number, int(rejected)], PAIR_KINDS[kind]))
        if real.any():
            dpo = {"expert_target": 0.5, "expert_failure": 0.25, "failure_failure": 1.0}
            mean = np.mean([dpo[PAIR_KINDS[kind]] for kind in batch.kind[real]])
            assert batch.weight.sum() == pytest.approx(mean)
    assert len(seen) == len(set(seen))
    assert set(seen) <= {(one.chosen, one.rejected, one.kind) for one in pairs}
    assert len(seen) + plan.dropped_pairs == len(pairs)
    fitting = [index for index in extra if len(trajectories[index].tokens) <= 32]
    assert all(plan.locations[index] for index in fitting)
    used = sum(int((batch.tokens.segment_ids > 0).sum()) for batch in plan.batches)
    assert plan.padding == pytest.approx(1 - used / (len(plan.batches) * rows * 32) if plan.batches else 0)


def test_a_task_that_fits_stays_in_one_microbatch():
    trajectories, pairs = corpus(np.random.default_rng(0), 40, 100, 250)
    plan = packed(trajectories, pairs)
    assert all(len(places) == 1 for places in plan.locations)
    for one in pairs:
        assert plan.locations[one.chosen][0][0] == plan.locations[one.rejected][0][0]


def test_padding_is_small_on_a_realistic_mix():
    trajectories, pairs = corpus(np.random.default_rng(0), 600, 100, 250)
    plan = packed(trajectories, pairs)
    total = sum(len(one.tokens) for one in trajectories)
    assert plan.padding < 0.05
    assert len(plan.batches) <= 1.06 * math.ceil(total / (8 * 512))


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    trajectories, pairs = corpus(np.random.default_rng(0), 60, 100, 250)
    plans = [packed(trajectories, pairs, seed=seed) for seed in (0, 0, 1)]
    assert plans[0].locations == plans[1].locations != plans[2].locations
    for one, other in zip(plans[0].batches, plans[1].batches, strict=True):
        np.testing.assert_array_equal(one.tokens.tokens, other.tokens.tokens)
        np.testing.assert_array_equal(one.chosen, other.chosen)
