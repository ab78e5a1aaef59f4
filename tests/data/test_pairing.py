import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.pairing import (
    KEPT,
    Extra,
    Keep,
    PairSet,
    add_imitations,
    add_trajectories,
    collect_pairs,
    draw,
    keep_pairs,
)
from coevo_jax.methods.better_over_worse import better_over_worse
from coevo_jax.methods.expert_over import expert_over
from coevo_jax.methods.material import Imitation, Material, Preference, by_task, cut_turns
from coevo_jax.trajectory import Ending, Trajectory, Turn

TURN = Turn(response="r", action="a", observation="o")
LARGEST = Keep()
KINDS = ("expert_target", "expert_failure", "failure_failure")


def round_pairs(
    experts,
    target,
    failure,
    *,
    kinds=KINDS,
    max_per_kind,
    max_extra_turns=None,
    cross_agent_only=False,
    keep=LARGEST,
):
    """What the target agent of co-evolution learns from, by the builders of the recipe."""
    ours, theirs, both = (
        Material(played=played, experts={one.task_id: one for one in experts})
        for played in ((list(target),), (list(failure),), (list(target), list(failure)))
    )
    found = {
        "expert_target": expert_over(ours, max_extra_turns=max_extra_turns),
        "expert_failure": expert_over(theirs, max_extra_turns=max_extra_turns),
        "failure_failure": better_over_worse(both, across=cross_agent_only, max_extra_turns=max_extra_turns),
    }
    return collect_pairs({kind: found[kind] for kind in kinds}, max_per_kind=max_per_kind, keep=keep)


def failure_pairs(target, failure, *, cross_agent_only, max_per_kind, keep=LARGEST):
    """What the failure agent learns from: no expert is at hand."""
    limits = {"max_per_kind": max_per_kind, "cross_agent_only": cross_agent_only, "keep": keep}
    return round_pairs([], target, failure, kinds=("failure_failure",), **limits)


def trajectory(agent, sample, reward, *, task="t", turns=1, ids=None, ending=None):
    """Two prompt tokens, then per turn two agent tokens, with one observation token between turns."""
    mask = [False, False, *([True, True, False] * turns)][:-1]
    # distinct for every (agent, sample), unless `ids` says otherwise
    first = {"expert": 1000, "target": 2000, "failure": 3000}[agent] + 50 * sample if ids is None else ids
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="p",
        turns=(TURN,) * turns,
        reward=reward,
        ending=ending or (Ending.SOLVED if reward >= 1 else Ending.FAILED),
        tokens=np.arange(first, first + len(mask), dtype=np.int32),
        agent_mask=np.array(mask),
        logps=np.where(mask, -1.0, 0.0).astype(np.float32),
    )


def names(pair_set):
    """Pairs as readable tuples: (kind, chosen, rejected)."""

    def name(index):
        one = pair_set.trajectories[index]
        return f"{one.agent[0]}{one.sample}"

    return [(pair.kind, name(pair.chosen), name(pair.rejected)) for pair in pair_set.pairs]


EXPERT = trajectory("expert", 0, 1.0)


def test_the_three_kinds_of_the_target_agent():
    target = [trajectory("target", 0, 0.5), trajectory("target", 1, 1.0)]
    failure = [trajectory("failure", 0, 0.2), trajectory("failure", 1, 0.8)]
    pairs = round_pairs([EXPERT], target, failure, max_per_kind=9)
    assert names(pairs) == [
        ("expert_target", "e0", "t0"),
        ("expert_failure", "e0", "f0"),
        ("expert_failure", "e0", "f1"),
        ("failure_failure", "f1", "f0"),
        ("failure_failure", "t0", "f0"),
        ("failure_failure", "f1", "t0"),
    ]
    assert len(pairs.trajectories) == 4  # the success is in no pair


def test_only_the_kinds_asked_for():
    target, failure = [trajectory("target", 0, 0.5)], [trajectory("failure", 0, 0.2)]
    pairs = round_pairs([EXPERT], target, failure, kinds=("expert_target",), max_per_kind=9)
    assert names(pairs) == [("expert_target", "e0", "t0")]
    assert len(pairs.trajectories) == 2


def test_the_agent_that_beats_the_expert_is_chosen_and_a_tie_is_dropped():
    expert = trajectory("expert", 0, 0.5)
    target = [trajectory("target", k, reward) for k, reward in enumerate([0.7, 1.0, 0.5, 0.1])]
    pairs = round_pairs([expert], target, [], kinds=("expert_target",), max_per_kind=9)
    assert names(pairs) == [
        ("expert_target", "t1", "e0"),
        ("expert_target", "e0", "t3"),
        ("expert_target", "t0", "e0"),
    ]


def test_a_fault_is_in_no_pair():
    fault = trajectory("target", 0, 0.0, ending=Ending.FAULT)
    failure = [trajectory("failure", 0, 0.3)]
    assert names(round_pairs([EXPERT], [fault], failure, max_per_kind=9)) == [("expert_failure", "e0", "f0")]
    assert failure_pairs([fault], failure, cross_agent_only=False, max_per_kind=9).pairs == ()


@pytest.mark.parametrize("prompt", [0, 2])
def test_an_episode_without_an_agent_token_is_neither_paired_nor_imitated(prompt):
    def silent(one):
        """The same episode as if the agent had written nothing."""
        cut = {name: getattr(one, name)[:prompt] for name in ("tokens", "agent_mask", "logps")}
        return replace(one, turns=(), ending=Ending.TOKEN_LIMIT, **cut)

    quiet = silent(trajectory("target", 0, 0.0))
    failure = [trajectory("failure", 0, 0.3)]
    assert names(round_pairs([EXPERT], [quiet], failure, max_per_kind=9)) == [("expert_failure", "e0", "f0")]
    assert names(round_pairs([silent(EXPERT)], [], failure, max_per_kind=9)) == []
    assert names(failure_pairs([quiet], failure, cross_agent_only=True, max_per_kind=9)) == []
    paired = round_pairs([EXPERT], [], failure, max_per_kind=9)
    assert add_trajectories(paired, [quiet]) == (paired, [])


def test_the_failure_agent_sees_no_expert_and_no_success():
    ours = [trajectory("target", 0, 1.0), trajectory("target", 1, 0.4), trajectory("expert", 0, 0.9)]
    theirs = [trajectory("failure", 0, 1.0), trajectory("failure", 1, 0.1)]
    pairs = failure_pairs(ours, theirs, cross_agent_only=False, max_per_kind=9)
    assert names(pairs) == [("failure_failure", "t1", "f1")]


@pytest.mark.parametrize("cross", [True, False])
def test_cross_agent_only_leaves_out_pairs_within_an_agent(cross):
    ours = [trajectory("target", 0, 0.6), trajectory("target", 1, 0.1)]
    theirs = [trajectory("failure", 0, 0.3)]
    within = [] if cross else [("failure_failure", "t0", "t1")]
    across = [("failure_failure", "t0", "f0"), ("failure_failure", "f0", "t1")]
    assert names(failure_pairs(ours, theirs, cross_agent_only=cross, max_per_kind=9)) == within + across
    pairs = round_pairs([], ours, theirs, max_per_kind=9, cross_agent_only=cross)
    assert names(pairs) == within + across


def test_largest_gap_first_ties_by_sample_and_at_most_so_many_a_task():
    target = [trajectory("target", k, reward) for k, reward in enumerate([0.5, 0.0, 0.5, 0.0])]
    other = [trajectory("target", 0, 0.9, task="u")]
    experts = [EXPERT, trajectory("expert", 0, 1.0, task="u")]
    pairs = round_pairs(experts, [*other, *reversed(target)], [], kinds=("expert_target",), max_per_kind=3)
    assert names(pairs) == [("expert_target", "e0", name) for name in ("t1", "t3", "t0", "t0")]
    assert [pair.task_id for pair in pairs.pairs] == ["t", "t", "t", "u"]


def test_the_smallest_gaps_are_kept_where_that_is_asked_for():
    target = [trajectory("target", k, reward) for k, reward in enumerate([0.5, 0.0, 0.9, 0.5])]
    kinds, keep = ("expert_target",), Keep(by="smallest_gap")
    pairs = round_pairs([EXPERT], target, [], kinds=kinds, max_per_kind=3, keep=keep)
    assert names(pairs) == [("expert_target", "e0", name) for name in ("t2", "t0", "t3")]
    ours, theirs = [trajectory("target", 0, 0.5)], [trajectory("failure", k, k / 10) for k in range(5)]
    pairs = failure_pairs(ours, theirs, cross_agent_only=True, max_per_kind=2, keep=keep)
    assert names(pairs) == [("failure_failure", "t0", "f4"), ("failure_failure", "t0", "f3")]


def test_what_is_drawn_is_the_order_of_the_pairs_digests():
    target = [trajectory("target", k, reward) for k, reward in enumerate([0.5, 0.0, 0.9, 0.5, 0.2])]

    def drawn(seed, count):
        keep = Keep(by="drawn", seed=seed)
        kinds = ("expert_target",)
        return names(round_pairs([EXPERT], target, [], kinds=kinds, max_per_kind=count, keep=keep))

    for seed in range(4):
        digests = {
            f"t{k}": hashlib.sha256(f"{seed}/expert_target/t/expert-0/target-{k}".encode()).hexdigest()
            for k in range(5)
        }
        expected = sorted(digests, key=digests.__getitem__)
        assert drawn(seed, 5) == [("expert_target", "e0", name) for name in expected]
        assert drawn(seed, 2) == drawn(seed, 5)[:2]
    assert len({tuple(drawn(seed, 2)) for seed in range(9)}) > 1


def of_tasks(counts):
    """Pairs of several tasks, so many of each, with growing gaps within a task."""
    experts = [trajectory("expert", 0, 1.0, task=task) for task in counts]
    target = [
        trajectory("target", k, 0.9 - k / 10 - int(task[1:]) / 100, task=task)
        for task, count in counts.items()
        for k in range(count)
    ]
    return round_pairs(experts, target, [], kinds=("expert_target",), max_per_kind=9)


def kept_of(pair_set, count, **options):
    kept = keep_pairs(pair_set, count, Keep(**options), range(len(pair_set.pairs)))
    return [(p.task_id, kept.trajectories[p.rejected].sample) for p in kept.pairs]


def test_a_surplus_of_pairs_is_dropped_evenly_over_the_tasks():
    pairs = of_tasks({"t0": 4, "t1": 1, "t2": 2})
    assert kept_of(pairs, 3) == [("t0", 3), ("t1", 0), ("t2", 1)]
    assert kept_of(pairs, 5) == [("t0", 3), ("t0", 2), ("t1", 0), ("t2", 1), ("t2", 0)]
    assert kept_of(pairs, 4) == [("t0", 3), ("t0", 2), ("t1", 0), ("t2", 1)]  # t0's second gap is the larger
    assert kept_of(pairs, 4, by="smallest_gap") == [("t0", 1), ("t0", 0), ("t1", 0), ("t2", 0)]
    assert kept_of(pairs, 6) == [("t0", 3), ("t0", 2), ("t0", 1), ("t1", 0), ("t2", 1), ("t2", 0)]


def test_only_pairs_that_can_be_learned_from_are_kept():
    pairs = of_tasks({"t0": 2, "t1": 2})
    kept = keep_pairs(pairs, 2, Keep(), [1, 2, 3])
    assert [pair.task_id for pair in kept.pairs] == ["t0", "t1"]
    assert {index for pair in kept.pairs for index in (pair.chosen, pair.rejected)} == set(range(4))
    assert len(keep_pairs(pairs, 9, Keep(), [0, 3]).pairs) == 2


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 12), st.sampled_from(sorted(KEPT)))
def test_no_task_keeps_two_pairs_more_than_one_that_lost_some(counts, count, by):
    pairs = of_tasks({f"t{number}": size for number, size in enumerate(counts)})
    found = kept_of(pairs, count, by=by, seed=3)
    assert len(found) == min(count, len(pairs.pairs)) == len(set(found))
    left = [sum(task == f"t{number}" for task, _ in found) for number in range(len(counts))]
    lost = [kept for kept, size in zip(left, counts, strict=True) if kept < size]
    assert not lost or max(left) <= min(lost) + 1
    assert kept_of(pairs, len(pairs.pairs), by=by) == [
        (p.task_id, pairs.trajectories[p.rejected].sample) for p in pairs.pairs
    ]


def test_a_second_agent_that_learns_from_experts_has_the_targets_pairs_of_its_own_failures():
    target = [trajectory("target", 0, 0.5), trajectory("target", 1, 1.0)]
    failure = [trajectory("failure", 0, 0.2, turns=3), trajectory("failure", 1, 1.0)]
    second = round_pairs(
        [EXPERT], target, failure, kinds=("expert_failure",), max_per_kind=9, max_extra_turns=1
    )
    assert names(second) == [("expert_failure", "e0", "f0")]
    assert [len(one.turns) for one in second.trajectories] == [1, 2]
    both = round_pairs([EXPERT], target, failure, kinds=("expert_target", "failure_failure"), max_per_kind=9)
    assert names(both) == [("expert_target", "e0", "t0"), ("failure_failure", "t0", "f0")]


def test_the_same_tokens_count_once_within_and_across_agents():
    target = [trajectory("target", 0, 0.5, ids=7), trajectory("target", 1, 0.5, ids=7)]
    failure = [trajectory("failure", 0, 0.5, ids=7), trajectory("failure", 1, 0.2)]
    pairs = round_pairs([EXPERT], target, failure, max_per_kind=9)
    assert names(pairs) == [
        ("expert_target", "e0", "t0"),
        ("expert_failure", "e0", "f1"),
        ("failure_failure", "t0", "f1"),
    ]
    assert len(pairs.trajectories) == 3


def test_rejected_trajectories_are_cut_and_equal_after_the_cut_count_once():
    long = trajectory("target", 0, 0.2, turns=6, ids=100)
    longer = trajectory("target", 1, 0.2, turns=8, ids=100)
    pairs = round_pairs([EXPERT], [long, longer], [], max_per_kind=9, max_extra_turns=2)
    assert names(pairs) == [("expert_target", "e0", "t0")]
    rejected = pairs.trajectories[pairs.pairs[0].rejected]
    assert len(rejected.turns) == 3
    assert rejected.agent_mask.tolist() == [False, False, *[True, True, False] * 2, True, True]
    whole = round_pairs([EXPERT], [long, longer], [], max_per_kind=9, max_extra_turns=None)
    assert [len(one.turns) for one in whole.trajectories] == [1, 6, 8]


def test_a_chosen_failure_is_not_cut_and_a_task_without_expert_is_not_cut():
    better = trajectory("target", 0, 0.5, turns=4)
    worse = trajectory("failure", 0, 0.1, turns=4)
    pairs = round_pairs(
        [EXPERT], [better], [worse], kinds=("failure_failure",), max_per_kind=9, max_extra_turns=1
    )
    assert [len(one.turns) for one in pairs.trajectories] == [4, 2]
    pairs = round_pairs([], [better], [worse], max_per_kind=9, max_extra_turns=1)
    assert [len(one.turns) for one in pairs.trajectories] == [4, 4]


def test_cutting_keeps_whole_turns_and_drops_the_observation_behind_them():
    whole = trajectory("target", 0, 0.5, turns=3)  # tokens: p p a a o a a o a a
    cut = cut_turns(whole, 2)
    assert cut.tokens.tolist() == whole.tokens[:7].tolist()
    assert cut.agent_mask.tolist() == [False, False, True, True, False, True, True]
    assert cut.logps.shape == (7,)
    assert len(cut.turns) == 2
    assert cut.reward == 0.5
    assert cut_turns(whole, 3) is whole
    assert cut_turns(whole, 9) is whole


def test_added_trajectories_keep_one_place():
    pairs = round_pairs([EXPERT], [trajectory("target", 0, 0.5)], [], max_per_kind=1)
    success = trajectory("target", 1, 1.0)
    extended, indices = add_trajectories(pairs, [success, EXPERT, success])
    assert indices == [2, 0]
    assert len(extended.trajectories) == 3
    assert extended.pairs == pairs.pairs


def test_a_pair_is_another_one_from_other_turns_on():
    better, worse = trajectory("target", 0, 0.5, turns=3), trajectory("target", 1, 0.2, turns=3)
    found = [
        Preference(better, worse),
        Preference(better, worse, 1, 1),
        Preference(better, worse, 1, 2),
        Preference(better, worse, 1, 1),
        Preference(better, better, 0, 1),
    ]
    pairs = collect_pairs({"first": found, "second": found[1:3]}, max_per_kind=9)
    assert [(p.kind, p.chosen_from, p.rejected_from) for p in pairs.pairs] == [
        ("first", 0, 0),
        ("first", 1, 1),
        ("first", 1, 2),
    ]
    assert len(pairs.trajectories) == 2
    kept = keep_pairs(pairs, 1, Keep(), [1, 2])
    assert [(p.chosen_from, p.rejected_from) for p in kept.pairs] == [(1, 1)]
    words = "3/first/t/target-0-from-1/target-1-from-2"
    assert draw(3, "first", *found[2][:4]) == hashlib.sha256(words.encode()).hexdigest()


def test_the_same_tokens_of_which_others_are_the_agents_are_another_trajectory():
    one = trajectory("target", 0, 0.5, turns=2, ids=7)
    other = replace(one, sample=1, agent_mask=np.append(False, one.agent_mask[:-1]))
    again = replace(one, sample=2)
    assert by_task([one, other, again]) == {"t": [one, other]}
    pairs, places = add_trajectories(PairSet(trajectories=(), pairs=()), [one, other, again])
    assert places == [0, 1]
    assert pairs.trajectories == (one, other)


def test_what_is_imitated_stands_once_for_each_way_to_weigh_its_turns():
    two, silent = trajectory("target", 1, 1.0, turns=2), trajectory("target", 2, 1.0)
    silent = replace(silent, agent_mask=np.zeros_like(silent.agent_mask))
    found = [
        two,
        Imitation(two, (0.0, 1.0)),
        Imitation(two, (1.0, 1.0)),  # as if it had none
        Imitation(two, (0, 1)),
        Imitation(EXPERT),
        Imitation(two, (0.0, 0.0)),  # trains nothing
        Imitation(silent),
    ]
    pairs = round_pairs([EXPERT], [trajectory("target", 0, 0.5)], [], max_per_kind=1)
    extended, extras = add_imitations(pairs, found, "mine")
    assert extras == [Extra(2), Extra(2, (0.0, 1.0)), Extra(0)]
    assert len(extended.trajectories) == 3
    assert extended.pairs == pairs.pairs


@pytest.mark.parametrize(
    "turns, words",
    [
        ((1.0,), "turns: found 1 weights, expected 2, one for each turn"),
        ((1.0, -0.5), "turns: found -0.5 as the weight of turn 1, expected a number of 0 or more"),
        ((float("nan"), 1.0), "turns: found nan as the weight of turn 0"),
    ],
)
def test_weights_that_do_not_fit_the_turns_are_refused_by_trajectory_and_builder(turns, words):
    two = trajectory("target", 1, 1.0, turns=2)
    empty = PairSet(trajectories=(), pairs=())
    with pytest.raises(ConfigError, match=rf"builder mine:f: trajectory t \(target, sample 1\): {words}"):
        add_imitations(empty, [Imitation(two, turns)], "mine:f")


rewards = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=4)
orders = st.builds(Keep, by=st.sampled_from(sorted(KEPT)), seed=st.integers(0, 3))


@given(rewards, rewards, st.sampled_from([0.5, 1.0]), st.booleans(), st.integers(1, 5), orders, st.randoms())
def test_every_pair_is_fair_whatever_the_order(ours, theirs, expert_reward, cross, count, keep, random):
    experts = [trajectory("expert", 0, expert_reward)]
    target = [trajectory("target", k, reward, turns=k + 1) for k, reward in enumerate(ours)]
    failure = [trajectory("failure", k, reward, turns=k + 1) for k, reward in enumerate(theirs)]

    def both() -> list[PairSet]:
        return [
            round_pairs(
                experts,
                target,
                failure,
                max_per_kind=count,
                max_extra_turns=1,
                cross_agent_only=cross,
                keep=keep,
            ),
            failure_pairs(target, failure, max_per_kind=count, cross_agent_only=cross, keep=keep),
        ]

    before = both()
    random.shuffle(target)
    random.shuffle(failure)
    after = both()
    for one, other in zip(before, after, strict=True):
        assert names(one) == names(other)
        assert {index for pair in one.pairs for index in (pair.chosen, pair.rejected)} == set(
            range(len(one.trajectories))
        )
        for pair in one.pairs:
            chosen, rejected = one.trajectories[pair.chosen], one.trajectories[pair.rejected]
            assert chosen.reward > rejected.reward
            assert chosen.task_id == rejected.task_id == pair.task_id
            assert (pair.kind == "failure_failure") == ("expert" not in (chosen.agent, rejected.agent))
            if pair.kind == "failure_failure":
                assert chosen.failure and rejected.failure
        for kind in {pair.kind for pair in one.pairs}:
            assert sum(pair.kind == kind for pair in one.pairs) <= count
