"""Advantages relative to a group: arrays written by hand, then parity with the papers' equations."""

import numpy as np
import pytest

from coevo_jax.methods.advantages import (
    anchors,
    episode_relative,
    gigpo,
    groups,
    grpo,
    relative,
    returns,
    step_relative,
)
from coevo_jax.methods.material import Material, Reinforced
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Ending, Trajectory, Turn


def played(sample: int, reward: float, shown: str, *, task="t", agent="target", ending=None) -> Trajectory:
    """An episode that a task's prompt "s" opens; `shown` has a letter for what each turn was answered.

    Two tokens a turn, then one of the answer.
    """
    states = "s" + shown
    tokens, mask = [ord("s")], [False]
    for number, answer in enumerate(shown):
        tokens += [100 * sample + number, 7, ord(answer)]
        mask += [True, True, False]
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt=states[0],
        turns=tuple(Turn(response="r", action="a", observation=answer) for answer in shown),
        reward=reward,
        ending=ending or (Ending.SOLVED if reward >= 1 else Ending.FAILED),
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array(mask),
        logps=np.zeros(len(tokens), np.float32),
    )


def material(*collections: list[Trajectory]) -> Material:
    return Material(played=collections, experts={})


def by_name(found) -> dict[tuple[str, int], tuple[float, ...]]:
    return {(one.trajectory.task_id, one.trajectory.sample): one.advantages for one in found}


def test_rewards_are_relative_to_the_mean_of_a_group():
    assert relative([1.0, 0.0, 0.5, 0.5], "mean") == [0.5, -0.5, 0.0, 0.0]


@pytest.mark.parametrize("norm, deviation", [("sample_std", 1.0), ("population_std", (2 / 3) ** 0.5)])
def test_deviations_divide_by_n_less_1_or_n(norm, deviation):
    found = relative([3.0, 4.0, 5.0], norm)
    np.testing.assert_allclose(found, [-1 / deviation, 0.0, 1 / deviation], rtol=1e-5)


@pytest.mark.parametrize("norm", ["mean", "sample_std", "population_std"])
def test_a_level_group_and_a_lone_member_have_no_advantage(norm):
    assert relative([0.7], norm) == [0.0]
    assert relative([0.1] * 3, norm) == [0.0] * 3  # sum([0.1] * 3) / 3 is not 0.1


def test_a_return_is_the_reward_discounted_by_the_turns_that_follow():
    assert returns(0.8, 3, 0.5) == [0.2, 0.4, 0.8]
    assert returns(0.8, 2, 1.0) == [0.8, 0.8]
    assert returns(0.8, 2, 0.0) == [0.0, 0.8]


def test_turns_are_runs_of_agent_tokens_and_anchors_what_was_shown_before_them():
    one = played(0, 0.0, "ab")
    assert turn_starts(one).tolist() == [1, 4]
    assert anchors(one, "observation") == ["s", "a"]
    assert anchors(one, "history") == [one.tokens[:1].tobytes(), one.tokens[:4].tobytes()]


def test_grpo_gives_every_turn_of_an_episode_the_same():
    found = by_name(grpo(material([played(0, 1.0, "ab"), played(1, 0.0, "c")]), norm="mean"))
    assert found == {("t", 0): (0.5, 0.5), ("t", 1): (-0.5,)}


# Two ways from s to x, one of which goes round by y; rewards 1, 0.5 and 0.
WAYS = [played(0, 1.0, "xz"), played(1, 0.5, "yxz"), played(2, 0.0, "xz")]


def test_a_turn_counts_against_those_in_its_anchor_state_by_hand():
    step, sizes = step_relative(WAYS, norm="mean", gamma=0.5, anchor="observation")
    # At s: returns 0.5, 0.125, 0; their mean is 5/24. At x: 1, 0.5, 0. At y nobody else stands.
    assert step[0, 0] == pytest.approx(0.5 - 5 / 24) and step[1, 0] == pytest.approx(0.125 - 5 / 24)
    assert step[2, 0] == pytest.approx(-5 / 24)
    assert (step[0, 1], step[1, 2], step[2, 1]) == (0.5, 0.0, -0.5)
    assert step[1, 1] == 0.0
    assert sizes == {(0, 0): 3, (0, 1): 3, (1, 0): 3, (1, 1): 1, (1, 2): 3, (2, 0): 3, (2, 1): 3}


def test_a_state_that_an_episode_comes_back_to_holds_both_of_its_turns():
    _, sizes = step_relative([played(0, 1.0, "sz")], norm="mean", gamma=1.0, anchor="observation")
    assert sizes == {(0, 0): 2, (0, 1): 2}


def test_states_with_another_history_are_apart_where_history_is_the_anchor():
    step, sizes = step_relative(WAYS, norm="mean", gamma=0.5, anchor="history")
    assert sizes[0, 1] == sizes[1, 2] == sizes[2, 1] == 1 and sizes[1, 0] == 3
    assert step[0, 1] == step[1, 2] == 0.0


def test_gigpo_is_the_sum_of_both_parts():
    found = by_name(gigpo(material(WAYS), omega=2.0, gamma=0.5))
    assert found["t", 0] == pytest.approx((0.5 + 2 * (0.5 - 5 / 24), 0.5 + 2 * 0.5))
    assert found["t", 1] == pytest.approx((2 * (0.125 - 5 / 24), 0.0, 0.0))
    sizes = [one.anchor_sizes for one in gigpo(material(WAYS))]
    assert sizes == [(3, 3), (3, 1, 3), (3, 3)]


def test_groups_are_tasks_over_all_collections_with_equal_samples_and_without_faults_or_silence():
    broken = played(3, 0.0, "x", ending=Ending.FAULT)
    silent = played(4, 0.0, "")
    twin = played(1, 1.0, "x", agent="other")
    found = list(groups(material([played(1, 0.0, "x", task="u"), broken, *WAYS], [silent, twin])))
    names = [[(one.task_id, one.agent, one.sample) for one in group] for group in found]
    assert names == [
        [("t", "other", 1), ("t", "target", 0), ("t", "target", 1), ("t", "target", 2)],
        [("u", "target", 1)],
    ]
    alone = [one for one in grpo(material([played(1, 0.3, "x", task="u")]))]
    assert alone == [Reinforced(alone[0].trajectory, (0.0,))]


def test_an_episode_counts_once_or_once_a_turn():
    group = [played(0, 1.0, "ab"), played(1, 0.25, "c")]
    assert episode_relative(group, norm="mean", over="episodes") == [0.375, -0.375]
    assert episode_relative(group, norm="mean", over="turns") == [0.25, -0.5]


def equations(
    group: list[Trajectory], norm: str, omega: float, gamma: float, anchor: str, over: str
) -> list[list[float]]:
    """GiGPO's advantages from arXiv 2505.10978, section 4, with matrices of what is compared with what."""
    rewards = np.array([one.reward for one in group])

    def normed(values: np.ndarray, peers: np.ndarray) -> np.ndarray:
        """Values of [n], and which of them each is compared with, bool [n, n]."""
        found = np.zeros(len(values))
        for i, own in enumerate(peers):
            members = values[own]
            spread = {"mean": 1.0, "sample_std": np.std(members, ddof=1) + 1e-6 if own.sum() > 1 else 1.0}
            spread["population_std"] = np.std(members) + 1e-6 if own.sum() > 1 else 1.0
            found[i] = (values[i] - np.mean(members)) / spread[norm]
        return found

    rows = [(i, t) for i, one in enumerate(group) for t in range(len(one.turns))]
    episode = normed(rewards, np.ones((len(group), len(group)), bool))
    if over == "turns":
        found = normed(np.array([rewards[i] for i, _ in rows]), np.ones((len(rows), len(rows)), bool))
        episode = np.array([found[rows.index((i, 0))] for i in range(len(group))])
    reward_at = {(i, len(one.turns) - 1): one.reward for i, one in enumerate(group)}
    value = np.array(
        [
            sum(gamma ** (k - t) * reward_at.get((i, k), 0.0) for k in range(t, len(group[i].turns)))
            for i, t in rows
        ]
    )
    observed = np.array([group[i].prompt if t == 0 else group[i].turns[t - 1].observation for i, t in rows])
    if anchor == "history":
        ends = [np.flatnonzero(~group[i].agent_mask)[t] for i, t in rows]
        observed = np.array([str(group[i].tokens[: e + 1]) for (i, _), e in zip(rows, ends, strict=True)])
    step = normed(value, observed[:, None] == observed[None])
    found: list[list[float]] = [[] for _ in group]
    for (i, _), advantage in zip(rows, step, strict=True):
        found[i].append(episode[i] + omega * advantage)
    return found


@pytest.mark.parametrize("norm", ["mean", "sample_std", "population_std"])
@pytest.mark.parametrize("anchor", ["observation", "history"])
@pytest.mark.parametrize("over", ["episodes", "turns"])
def test_parity_with_the_equations_on_random_episodes(norm, anchor, over):
    rng = np.random.default_rng([3, len(norm), len(anchor)])
    for _ in range(20):
        group = [
            played(
                sample % 3,
                float(rng.choice([0, 0.25, 1])),
                "".join(rng.choice(list("sxy"), rng.integers(1, 6))),
            )
            for sample in range(int(rng.integers(1, 7)))
        ]
        group.sort(key=lambda one: one.sample)
        omega, gamma = float(rng.uniform(0.1, 2)), float(rng.uniform(0, 1))
        found = list(gigpo(material(group), norm=norm, omega=omega, gamma=gamma, anchor=anchor, over=over))
        assert [one.trajectory for one in found] == group
        expected = equations(group, norm, omega, gamma, anchor, over)
        for one, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.advantages, wanted, atol=1e-9)
        plain = list(grpo(material(group), norm=norm))
        for one, wanted in zip(plain, equations(group, norm, 0.0, gamma, anchor, "episodes"), strict=True):
            np.testing.assert_allclose(one.advantages, wanted, atol=1e-9)
