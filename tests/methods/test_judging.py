"""What a discriminator is to tell apart, and advantages of what it thinks, on episodes written by hand."""

import math
from dataclasses import replace

import pytest

from coevo_jax.methods.judged_steps import judged_steps, returns_to_go, step_reward
from coevo_jax.methods.judging import steps_to_judge
from coevo_jax.trajectory import Ending
from tests.methods.spelled import expert, left, material, spelled

EXPERT = expert("abc")


def told(found):
    """Each step as (who, sample, turn)."""
    named = [(found.episodes[step.trajectory], step) for step in found.steps]
    assert all((one.agent == "expert") == step.by_expert for one, step in named)
    return [(one.agent, one.sample, step.turn) for one, step in named]


def test_own_steps_stand_against_the_experts_at_the_states_where_they_left_it():
    own = [
        left(EXPERT, 0, "x", 0.0),
        left(EXPERT, 2, "c", 0.0, sample=1),
        left(EXPERT, 2, "c", 0.0, sample=2),
    ]
    found = steps_to_judge(material(own, experts=[EXPERT]))
    assert told(found) == [
        ("agent", 0, 0),
        ("expert", 0, 0),
        ("agent", 1, 2),  # equal steps all count
        ("expert", 0, 2),
        ("agent", 2, 2),
    ]
    early = steps_to_judge(material([left(EXPERT, 1, "x", 0.0)], experts=[EXPERT]))
    assert len(early.episodes[0].turns) == 2  # nobody reads what the expert did later


def test_of_whole_episodes_every_turn_is_judged_against_all_of_the_experts():
    played = [spelled("agent", "axyz", 0.0), spelled("agent", "b", 0.0, sample=1)]
    found = steps_to_judge(material(played, experts=[EXPERT]))
    assert sorted(told(found)) == [
        *[("agent", 0, turn) for turn in range(4)],
        ("agent", 1, 0),
        *[("expert", 0, turn) for turn in range(3)],
    ]
    later = left(played[0], 2, "uv", 0.0, sample=2)  # of an own episode: turns 2 and 3 are its own
    found = steps_to_judge(material(played, [later], experts=[EXPERT]))
    assert [one for one in told(found) if one[1] == 2] == [("agent", 2, 2), ("agent", 2, 3)]
    assert sum(who == "expert" for who, _, _ in told(found)) == 3


def test_faults_and_silence_and_tasks_without_an_expert_are_left_out():
    lost = left(EXPERT, 1, "x", 0.0, ending=Ending.LOST)
    silent = replace(left(EXPERT, 1, "", 0.0, sample=1))
    other = spelled("agent", "xy", 0.0, task="u")
    found = steps_to_judge(material([lost, silent, other], experts=[EXPERT]))
    assert not found.steps and found.without_expert == 2


def test_the_reward_is_safe_where_the_discriminator_is_sure():
    assert step_reward(0.0, "gail") == pytest.approx(math.log(2))
    d = 1 / (1 + math.exp(-1.5))
    assert step_reward(1.5, "gail") == pytest.approx(-math.log(1 - d))
    assert step_reward(1.5, "airl") == pytest.approx(math.log(d) - math.log(1 - d))
    assert step_reward(800.0, "gail") == 800.0 and step_reward(-800.0, "gail") == 0.0


def test_returns_are_discounted_over_judged_turns():
    assert dict(returns_to_go([None, 1.0, 2.0, 4.0], 0.5)) == {1: 3.0, 2: 4.0, 3: 4.0}
    assert dict(returns_to_go([1.0, 2.0], 0.0)) == {0: 1.0, 1: 2.0}


JUDGED = [
    replace(left(EXPERT, 1, "x", 0.0), judged=(None, 3.0)),
    replace(left(EXPERT, 1, "b", 0.0, sample=1), judged=(None, 1.0)),
    replace(left(EXPERT, 1, "x", 0.0, sample=2), judged=(None, 2.0)),
    replace(left(EXPERT, 0, "y", 0.0, sample=3), judged=(5.0,)),
    replace(left(expert("d", task="u"), 0, "z", 0.0), judged=(-1.0,)),
]


def advantages(**options):
    return [one.advantages for one in judged_steps(material(JUDGED), reward="airl", **options)]


def test_a_turn_is_compared_with_others_in_its_state():
    found = list(judged_steps(material(JUDGED), reward="airl"))
    assert [one.advantages for one in found] == [(0, 1), (0, -1), (0, 0), (0,), (0,)]
    assert [one.first for one in found] == [1, 1, 1, 0, 0]
    assert [one.anchor_sizes for one in found] == [(1, 3), (1, 3), (1, 3), (1,), (1,)]


def test_or_with_those_of_its_task_or_of_the_round():
    task = advantages(among="task")
    assert [one[-1] for one in task] == pytest.approx([0.25, -1.75, -0.75, 2.25, 0.0])
    among = advantages(among="round")
    assert [one[-1] for one in among] == pytest.approx([1, -1, 0, 3, -3])
    normed = advantages(among="round", norm="population_std")
    assert [one[-1] for one in normed] == pytest.approx([0.5, -0.5, 0, 1.5, -1.5], abs=1e-5)


def test_gails_reward_and_later_turns():
    episodes = [
        replace(spelled("agent", "ab", 0.0), judged=(0.0, 1.0)),
        replace(spelled("agent", "ac", 0.0, sample=1), judged=(0.0, -1.0)),
        replace(spelled("agent", "ad", 0.0, sample=2), judged=(0.0, None)),
    ]
    r = [math.log1p(math.exp(x)) for x in (0.0, 1.0, -1.0)]
    found = list(judged_steps(material(episodes), gamma=0.5))
    returns = [r[0] + r[1] / 2, r[0] + r[2] / 2, r[0]]
    mean = sum(returns) / 3
    assert [one.advantages[0] for one in found] == pytest.approx([value - mean for value in returns])
    # After the same turn all three stand in the same state; the last one's turn is not judged.
    centre = (r[1] + r[2]) / 2
    assert [one.advantages[1] for one in found] == pytest.approx([r[1] - centre, r[2] - centre, 0])


def test_what_is_not_judged_is_not_reinforced():
    plain = [left(EXPERT, 1, "x", 0.0), replace(left(EXPERT, 1, "y", 0.0, sample=1), judged=(None, None))]
    assert not list(judged_steps(material(plain)))
    fault = replace(JUDGED[0], ending=Ending.FAULT)
    assert not list(judged_steps(material([fault])))
