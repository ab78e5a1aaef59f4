"""What is built of branches, against trajectories written by hand: a turn is a letter."""

import pytest

from coevo_jax.methods.beneficial_segments import beneficial_segments
from coevo_jax.methods.points import turn_ends
from coevo_jax.methods.proposals import agent_proposals, expert_proposals
from coevo_jax.methods.step_and_outcome import step_and_outcome
from coevo_jax.methods.verified_branch import verified_branch
from coevo_jax.trajectory import Ending
from tests.methods.spelled import expert, left, material, spelled


def word(trajectory) -> str:
    return "".join(chr(token) for token in trajectory.tokens[1::2])


def pairs(found) -> list[tuple[str, str, int]]:
    """The words of chosen and rejected, and the turn that both count from."""
    found = list(found)
    assert all(one.chosen_from == one.rejected_from for one in found)
    return [(word(one.chosen), word(one.rejected), one.chosen_from) for one in found]


def places(points) -> list[tuple[str, int, str | None]]:
    return [(word(point.trajectory), point.turn, point.response) for point in points]


# Verified Critical Step Optimization

FAILED = spelled("tried", "abc", 0.5)
VERIFIED = left(FAILED, 1, "xc", 1.0, sample=0)


def test_a_branch_that_reached_success_is_preferred_to_its_failure_from_its_first_own_turn():
    branches = [VERIFIED, left(FAILED, 2, "y", 0.9, sample=1), left(FAILED, 0, "zz", 1.0, sample=2)]
    found = list(verified_branch(material([FAILED], branches)))
    assert pairs(found) == [("zz", "abc", 0), ("axc", "abc", 1)]
    assert all(one.rejected is FAILED for one in found)


def test_a_branch_that_does_what_the_failure_did_makes_no_pair():
    assert not list(verified_branch(material([FAILED], [left(FAILED, 1, "bd", 1.0)])))
    silent = spelled("tried", "a.c", 0.5)
    assert not list(verified_branch(material([silent], [left(silent, 1, ".d", 1.0)])))
    assert pairs(verified_branch(material([silent], [left(silent, 1, "d", 1.0)]))) == [("ad", "a.c", 1)]


def test_only_finished_branches_of_failures_at_hand_make_pairs():
    solved = spelled("tried", "abd", 1.0, sample=1)
    broken = left(FAILED, 1, "x", 0.0, ending=Ending.LOST)
    assert not list(verified_branch(material([FAILED, solved], [broken, left(solved, 1, "x", 1.0)])))
    assert not list(verified_branch(material([VERIFIED])))
    assert not list(verified_branch(material([spelled("other", "abc", 0.5)], [VERIFIED])))


def test_a_lower_threshold_takes_better_failures_but_none_that_is_no_better():
    branches = [left(FAILED, 1, "x", 0.7, sample=0), left(FAILED, 2, "y", 0.5, sample=1)]
    assert not list(verified_branch(material([FAILED], branches)))
    assert pairs(verified_branch(material([FAILED], branches), threshold=0.4)) == [("ax", "abc", 1)]


def test_the_pairs_of_a_failure_are_limited_to_one_of_each_turn_first():
    branches = [
        left(FAILED, turn, letters, 1.0, sample=number)
        for number, (turn, letters) in enumerate([(2, "u"), (2, "v"), (1, "w"), (1, "w"), (1, "z")])
    ]
    other = spelled("tried", "bbb", 0.5, sample=1)
    third = left(other, 1, "a", 1.0, sample=9)
    found = list(verified_branch(material([FAILED, other], [*branches, third]), per_failure=3))
    assert pairs(found) == [("aw", "abc", 1), ("abu", "abc", 2), ("az", "abc", 1), ("ba", "bbb", 1)]


def test_a_branch_that_failed_can_be_left_again():
    second = left(FAILED, 1, "yyy", 0.5)
    third = left(second, 2, "z", 1.0, into="again")
    assert pairs(verified_branch(material([FAILED], [second], [third]))) == [("ayz", "ayyy", 2)]


# Who proposes a step

EXPERT = expert("axz")


def test_the_expert_proposes_its_own_step_where_the_failure_did_something_else():
    solved = spelled("tried", "abz", 1.0, sample=1)
    given = material([FAILED, solved], experts=[EXPERT])
    assert places(expert_proposals(given)) == [("abc", 1, "say x"), ("abc", 2, "say z")]
    assert places(expert_proposals(given, first=2)) == [("abc", 2, "say z")]
    assert places(expert_proposals(given, count=1)) == [("abc", 1, "say x")]
    assert places(expert_proposals(material([FAILED], experts=[expert("ax")]))) == [("abc", 1, "say x")]
    assert not list(expert_proposals(material([FAILED])))


def test_another_agent_proposes_the_step_that_it_played_at_a_failure():
    played = [
        left(FAILED, 1, letters, 0.0, sample=number, into="proposals", ending=ending)
        for number, (letters, ending) in enumerate(
            [
                ("x", Ending.TURN_LIMIT),
                ("b", Ending.TURN_LIMIT),  # what the failure did
                (".", Ending.TURN_LIMIT),
                ("y", Ending.TOKEN_LIMIT),  # cut off
                ("xq", Ending.FAILED),  # the first step again
                ("z", Ending.LOST),
            ]
        )
    ]
    found = list(agent_proposals(material([FAILED], played)))
    assert places(found) == [("abc", 1, "say x")] and found[0].trajectory is FAILED


# Iterative step-level process refinement

STATES = expert("abcd")
OWN = [
    left(STATES, 0, "abx", 0.4, sample=0, into="own"),
    left(STATES, 1, "by", 0.4, sample=1, into="own"),  # the expert's own step at turn 1
    left(STATES, 2, "uv", 0.6, sample=2, into="own"),
    left(STATES, 3, "w", 0.6, sample=3, into="own"),
]


def scored(parent, turn: int, *rewards: float):
    return [
        left(parent, turn, "r" * (number + 1), reward, sample=100 * turn + number, into="rollouts")
        for number, reward in enumerate(rewards)
    ]


ROLLOUTS = [
    *scored(STATES, 2, 0.9, 0.7),  # the expert's turn 1 is worth 0.8
    *scored(OWN[1], 2, 0.2, 0.4),
    *scored(STATES, 3, 0.9, 0.9),  # its turn 2: 0.9
    *scored(OWN[2], 3, 0.7, 0.8),  # the agent's turn 2: 0.75
]


def ipr(own=OWN, rollouts=ROLLOUTS, experts=(STATES,), **options):
    return pairs(step_and_outcome(material(own, rollouts, experts=experts), **options))


def test_step_pairs_need_a_gap_of_step_rewards_and_the_outcome_pair_a_gap_of_outcomes():
    outcome, third, last = ("abcd", "abx", 0), ("abcd", "abuv", 2), ("abcd", "abcw", 3)
    assert ipr() == [outcome, third, last]
    assert ipr(only="outcomes") == [outcome]
    assert ipr(only="steps", tau=0.14) == [third, last]  # 0.9 - 0.75 is 0.15
    assert ipr(only="steps", tau=0.15) == [last]  # the last turn's gap is that of the rewards
    assert ipr(only="steps", tau=0.4) == []
    assert ipr(only="steps", same_steps=True) == [("abcd", "aby", 1), third, last]


def test_the_agent_wins_only_where_it_may():
    worse = expert("abcd", 0.5)
    own = [left(worse, 0, "xyz", 0.7, into="own"), left(worse, 3, "w", 0.6, sample=1, into="own")]
    assert ipr(own, [], [worse]) == []
    assert ipr(own, [], [worse], agent_wins=True) == [("xyz", "abcd", 0), ("abcw", "abcd", 3)]


def test_a_step_without_a_finished_rollout_makes_no_pair():
    lost = [left(OWN[2], 3, "r", 0.0, sample=9, into="rollouts", ending=Ending.LOST), *scored(STATES, 3, 0.9)]
    assert ipr([OWN[2]], lost) == []
    assert ipr([OWN[2]], scored(OWN[2], 3, 0.1)) == []


def test_a_step_reward_and_the_outcome_have_to_agree():
    better = scored(OWN[2], 3, 1.0, 1.0)  # the scorer does better from behind the agent's step
    assert ipr([OWN[2]], [*better, *scored(STATES, 3, 0.5)], agent_wins=True) == []


def test_what_was_played_from_the_tasks_start_can_make_a_step_pair_too():
    rollouts = [*ROLLOUTS, *scored(STATES, 1, 0.8), *scored(OWN[0], 1, 0.1)]
    other = left(STATES, 0, "xb", 0.2, sample=7, into="own")
    found = ipr([other], [*rollouts, *scored(other, 1, 0.3)], first=0)
    assert found == [("abcd", "xb", 0)] * 2  # the outcome pair and the step pair


def test_a_branch_is_scored_where_its_tokens_stand_in_another_one_as_well():
    greedy = [
        left(STATES, 0, "abq", 0.0, sample=0, into="own"),
        left(STATES, 1, "bq", 0.0, sample=1, into="own"),
    ]
    given = material(greedy, experts=[STATES])
    assert places(turn_ends(given, experts=False)) == [("abq", 1, None), ("abq", 2, None)]
    assert places(turn_ends(given, first=1)) == [("abcd", 2, None), ("abcd", 3, None), ("abq", 2, None)]


# Exploring Expert Failures

LONG = expert("abcdef", 0.5)


def weighed(played, solved_by=(LONG,), **options):
    found = beneficial_segments(material(*played, experts=solved_by), **options)
    return [(word(one.trajectory), "".join(str(int(weight)) for weight in one.turns or ())) for one in found]


def played_from(outcomes: dict[int, str]):
    """The agent's episodes from the task's start and from states of the expert; capitals are successes."""
    start = [
        spelled("tried", letters.lower(), float(letters.isupper()))
        for turn, letters in outcomes.items()
        if turn == 0
    ]
    later = [
        left(LONG, turn, letters.lower(), float(letters.isupper()), sample=turn)
        for turn, letters in outcomes.items()
        if turn
    ]
    return start, later


def test_the_start_is_solved_by_the_shortest_success_whose_expert_turns_are_beneficial():
    assert weighed(played_from({0: "xxxx", 2: "YYY", 4: "ZZ"})) == [("abyyy", "11111")]
    assert weighed(played_from({0: "XXXXX", 2: "YYY"})) == [("xxxxx", "11111")]  # a tie: as it comes first
    assert weighed(played_from({0: "xxxx", 2: "yyy"})) == []


def test_turns_that_lead_into_a_state_that_needs_recovery_are_not_trained():
    outcomes = {0: "XXX", 2: "yyy", 4: "ZZ", 5: "w"}
    assert weighed(played_from(outcomes)) == [("xxx", "111"), ("abcdzz", "001111")]
    assert weighed(played_from(outcomes), beneficial=False) == [("xxx", "111"), ("abcdzz", "000011")]
    everything = weighed(played_from(outcomes), solutions="all")
    assert everything == [("xxx", "111"), ("abcdzz", "001111"), ("abcdzz", "001111")]


def test_a_state_needs_recovery_after_a_state_that_was_solved_alone():
    later = {0: "xxx", 1: "YYY", 3: "zz", 4: "WWWWW"}
    assert weighed(played_from(later)) == [("ayyy", "1111"), ("abcdwwwww", "100111111")]
    assert weighed(played_from({0: "xxx", 1: "yyy", 3: "ZZ"})) == [("abczz", "11111")]


def test_an_experts_success_is_a_solution_of_every_state_and_the_agents_own_comes_first():
    solved = expert("abcdef")
    outcomes = {0: "XXXXXX", 2: "yyy"}
    start, later = played_from(outcomes)
    assert weighed((start, later), [solved]) == [("xxxxxx", "111111"), ("abcdef", "001111")]
    assert weighed((start, later), [solved], experts=False) == [("xxxxxx", "111111")]
    assert weighed((start, later), [solved], beneficial=False) == [("xxxxxx", "111111")]


def test_several_samples_of_a_state_count_together_and_lost_ones_not_at_all():
    start, later = played_from({0: "XXX", 2: "yyy"})
    assert weighed((start, [*later, left(LONG, 2, "QQQQ".lower(), 1.0, sample=8)])) == [("xxx", "111")]
    lost = [left(LONG, 2, "", 0.0, sample=8, ending=Ending.LOST)]
    assert weighed((start, lost)) == [("xxx", "111")]


@pytest.mark.parametrize("experts", [(), (LONG,)])
def test_a_task_without_an_expert_or_a_branch_is_imitated_from_its_start(experts):
    start, _ = played_from({0: "XXX"})
    assert weighed((start, []), experts) == [("xxx", "111")]
