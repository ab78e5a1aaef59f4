"""Statistics by hand, the bootstrap's properties, and the words for a collapse."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo_jax.episode_stats.summary import detect_collapse, failure_diversity, reward_histogram, summarize
from coevo_jax.trajectory import Ending, Trajectory, Turn


def record(task: str, reward: float, ending: Ending | None = None, actions=("look",), sample: int = 0):
    ending = ending or (Ending.SOLVED if reward >= 1 else Ending.FAILED)
    return Trajectory(
        task_id=task,
        agent="target",
        sample=sample,
        prompt="",
        turns=tuple(Turn(response=a, action=a, observation="") for a in actions),
        reward=reward,
        ending=ending,
        tokens=np.arange(6, dtype=np.int32),
        agent_mask=np.array([False, False, True, True, True, False]),
        logps=np.zeros(6, np.float32),
    )


def summary(records, **options):
    return summarize(records, hard_negative_threshold=0.6, seed=0, **options)


def test_summary_by_hand():
    found = summary(
        [
            record("a", 1.0, actions=("x", "y")),
            record("b", 0.6),
            record("c", 0.2, Ending.TOKEN_LIMIT),
            record("d", 0.0, Ending.TURN_LIMIT),
            record("e", 0.9, Ending.FAULT),  # its reward must not matter
        ]
    )
    assert (found["n"], found["finished"], found["faults"], found["tasks"]) == (5, 4, 1, 4)
    assert found["mean_reward"] == pytest.approx(0.45)
    assert found["success_rate"] == 0.25
    assert found["histogram"] == [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert found["hard_negative_share"] == 0.25
    assert found["hard_negative_share_of_failures"] == pytest.approx(1 / 3)
    assert found["failure_count"] == 3
    assert found["mean_failure_reward"] == pytest.approx(0.8 / 3)
    assert found["endings"] == {"solved": 1, "failed": 1, "turn_limit": 1, "token_limit": 1, "fault": 1}
    assert found["mean_turns"] == 1.25
    assert found["mean_agent_tokens"] == 3


def test_histogram_puts_edges_where_they_belong():
    edges = [0.0, 0.1, 0.3, 0.6, 0.7, 0.999999, 1.0]
    assert reward_histogram(edges) == [1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1]


def test_nothing_finished_has_no_means():
    for records in ([], [record("a", 0.0, Ending.FAULT)]):
        found = summary(records)
        assert found["finished"] == 0
        assert found["mean_reward"] is None and found["mean_reward_ci"] is None
        assert found["diversity"]["duplicates"] is None
        assert json.loads(json.dumps(found, allow_nan=False)) == found


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=20), st.randoms())
def test_order_never_matters_and_json_keeps_everything(values, shuffle):
    records = [record(f"t{task}", reward, sample=i) for i, (task, reward) in enumerate(values)]
    first = summary(records, bootstrap_samples=50)
    shuffle.shuffle(records)
    assert summary(records, bootstrap_samples=50) == first
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    low, high = first["mean_reward_ci"]
    assert -1e-9 <= low <= high <= 1 + 1e-9


def test_bootstrap_depends_on_the_seed_only():
    rng = np.random.default_rng([5])
    records = [record(f"t{i}", float(r)) for i, r in enumerate(rng.random(50))]
    first, again, other = (summarize(records, hard_negative_threshold=0.6, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first["mean_reward_ci"] != other["mean_reward_ci"]


def test_interval_agrees_with_the_normal_one():
    rewards = np.random.default_rng([6]).random(400)
    low, high = summary([record(f"t{i}", float(r)) for i, r in enumerate(rewards)])["mean_reward_ci"]
    half = 1.96 * rewards.std() / np.sqrt(400)
    assert low == pytest.approx(rewards.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(rewards.mean() + half, abs=0.15 * half)


def test_samples_of_one_task_do_not_narrow_the_interval():
    rewards = np.random.default_rng([7]).random(30)
    once = summary([record(f"t{i}", float(r)) for i, r in enumerate(rewards)])
    copies = [record(f"t{i}", float(r), sample=s) for i, r in enumerate(rewards) for s in range(4)]
    assert summary(copies)["mean_reward_ci"] == pytest.approx(once["mean_reward_ci"], abs=1e-12)


def test_diversity_by_hand():
    found = failure_diversity(
        [
            record("a", 0.0, actions=("go to hall", "open door")),
            record("a", 0.1, actions=("go to hall", "open door"), sample=1),
            record("b", 0.0, actions=("go to hall", "open door")),
            record("c", 0.0, actions=("look",)),
        ]
    )
    assert found["distinct_sequences"] == 2 / 4  # two different ones among four
    assert found["duplicates"] == 1 / 4  # only task a is repeated
    assert found["distinct_bigrams"] == 3 / 9  # go-to, to-hall, open-door, three times each


def healthy(**changes):
    base = summary([record(f"t{i}", 0.05 * i, actions=(f"act {i}",)) for i in range(21)])
    return {**copy.deepcopy(base), **changes}


def test_a_healthy_agent_has_not_collapsed():
    assert detect_collapse(healthy(), healthy(), healthy()) is None
    assert detect_collapse(healthy(), None, None) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean_reward": 0.2}, "mean reward 0.200 is less than half of the warm start's 0.500"),
        ({"mean_failure_reward": 0.004}, "its failures earn almost nothing"),
        ({"success_rate": 0.96}, "it solves 96.0% of its tasks"),
        ({"endings": {"token_limit": 11}}, "52% of its episodes hit the token limit"),
        (
            {"diversity": {"distinct_sequences": 0.01, "distinct_bigrams": 0.1, "duplicates": 0.9}},
            "its failures repeat themselves",
        ),
    ],
)
def test_each_collapse_is_told(changes, words):
    assert words in detect_collapse(healthy(**changes), None, healthy())


def test_a_fall_since_the_last_round_is_told():
    told = detect_collapse(healthy(mean_reward=0.3), healthy(mean_reward=0.9), healthy())
    assert told == "mean reward 0.300 is less than half of the last round's 0.900"


def test_solving_everything_is_no_collapse_of_the_target():
    solved = healthy(success_rate=0.99)
    assert detect_collapse(solved, None, healthy(), makes_negatives=False) is None
    assert detect_collapse(solved, None, healthy(), makes_negatives=True) is not None


def test_rewards_that_were_always_zero_are_no_collapse():
    zero = healthy(mean_failure_reward=0.0, mean_reward=0.01)
    assert detect_collapse(zero, zero, healthy(mean_failure_reward=0.0, mean_reward=0.02)) is None
