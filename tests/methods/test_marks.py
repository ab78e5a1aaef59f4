"""Marks and grades: texts, the grade of a reward, and what is imitated under which mark."""

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.methods.marks import grade_of, graded, marked, unmarked, wrong_grades, wrong_mark
from coevo_jax.methods.material import Imitation, Material, as_imitation
from coevo_jax.trajectory import Ending, Trajectory, Turn

FOUR = (1.0, 0.5, 0.0)
GOOD, BAD = "{task} good", "{task} bad"


def trajectory(task: str, sample: int, reward: float, actions=("look", "take"), ending=None, **more):
    number = 100 * sum(map(ord, task)) + sample
    return Trajectory(
        task_id=task,
        agent="a",
        sample=sample,
        prompt="p",
        turns=tuple(Turn(response=action, action=action, observation="") for action in actions),
        reward=reward,
        ending=ending or (Ending.SOLVED if reward >= 1 else Ending.FAILED),
        tokens=np.array([1, number], np.int32),
        agent_mask=np.array([False, True]),
        logps=np.zeros(2, np.float32),
        **more,
    )


def built(*played, **options):
    """Task, sample and mark of everything that is imitated."""
    found = graded(Material(played=tuple(played), experts={}), **{"marks": (GOOD, BAD), **options})
    return [(one.trajectory.task_id, one.trajectory.sample, one.mark) for one in found]


def test_the_task_stands_in_its_place():
    assert marked("Sort.", "[Right] {task}") == "[Right] Sort."
    assert marked("Sort.", "{task}\nRight.") == "Sort.\nRight."
    assert marked("Sort {task}.", "<{task}>") == "<Sort {task}.>"
    assert marked("Sort.", "") == unmarked("Sort.", "") == "Sort."


@given(st.text(), st.text(), st.text())
def test_a_mark_comes_off_as_it_came_on(before, task, after):
    mark = before.replace("{task}", "") + "{task}" + after.replace("{task}", "")
    if mark.count("{task}") == 1:
        assert unmarked(marked(task, mark), mark) == task


@pytest.mark.parametrize("prompt", ["Sort.", "[Right]", "ab"])
def test_a_prompt_under_another_mark_is_refused(prompt):
    with pytest.raises(ValueError, match="not under the mark"):
        unmarked(prompt, "[Right] {task}" if prompt != "ab" else "ab{task}b")


@pytest.mark.parametrize(
    "reward, two, four", [(1.0, 0, 0), (0.99, 1, 1), (0.5, 1, 1), (0.49, 1, 2), (1e-9, 1, 2), (0.0, 1, 3)]
)
def test_the_grade_of_a_reward(reward, two, four):
    assert (grade_of(reward, (1.0,)), grade_of(reward, FOUR)) == (two, four)


def test_every_reward_has_the_mark_of_its_grade():
    played = [trajectory("t", n, reward) for n, reward in enumerate((0.0, 1.0, 0.5, 0.25))]
    assert built(played, failures_per_success=None) == [
        ("t", 0, BAD),
        ("t", 1, GOOD),
        ("t", 2, BAD),
        ("t", 3, BAD),
    ]
    marks = ("{task} 1", "{task} 2", "{task} 3", "{task} 4")
    found = built(played, marks=marks, bounds=FOUR, failures_per_success=None)
    assert [mark[-1] for _, _, mark in found] == ["4", "1", "2", "3"]


def test_failures_are_drawn_over_all_tasks_by_hash():
    played = [trajectory(task, n, float(n == 0)) for task in "tu" for n in range(4)]
    other = [trajectory("v", n, 0.0, collection="c") for n in range(2)]
    names = [f"7/a/{task}/{n}" for task in "tu" for n in range(1, 4)] + ["7/c/v/0", "7/c/v/1"]
    drawn = sorted(names, key=lambda name: sha256(name.encode()).hexdigest())
    for ratio, count in ((0.0, 0), (1.0, 2), (1.5, 3), (4.0, 8)):
        found = built(played, other, failures_per_success=ratio, draw_seed=7)
        assert [one for one in found if one[2] == GOOD] == [("t", 0, GOOD), ("u", 0, GOOD)]
        failures = [one[:2] for one in found if one[2] == BAD]
        kept = {(name.split("/")[2], int(name.split("/")[3])) for name in drawn[:count]}
        assert set(failures) == kept and len(failures) == count
        assert found == sorted(found, key=lambda one: one[:2])  # by tasks and samples, whatever was drawn
    draws = {tuple(built(played, failures_per_success=1.0, draw_seed=seed)) for seed in range(8)}
    assert len(draws) > 1


def test_without_a_success_there_is_nothing_to_set_failures_beside():
    played = [trajectory("t", n, 0.5) for n in range(3)]
    assert built(played) == [] and len(built(played, failures_per_success=None)) == 3


def test_unparsable_and_looping_failures_are_left_out_but_no_success_is():
    played = [
        trajectory("t", 0, 1.0, ("", "look", "look", "look", "take")),
        trajectory("t", 1, 0.2, ("look", "", "take")),
        trajectory("t", 2, 0.2, ("look", "look", "look", "take")),
        trajectory("t", 3, 0.2, ("look", "look", "take", "look")),
        trajectory("t", 4, 0.0, (), ending=Ending.TOKEN_LIMIT),
        trajectory("t", 5, 0.0, ending=Ending.FAULT),
    ]
    every = {"failures_per_success": None}
    assert [n for _, n, _ in built(played, **every)] == [0, 3, 4]
    assert [n for _, n, _ in built(played, drop_unparsable=False, **every)] == [0, 1, 3, 4]
    assert [n for _, n, _ in built(played, most_repeats=3, **every)] == [0, 2, 3, 4]
    assert [n for _, n, _ in built(played, most_repeats=1, **every)] == [0, 4]
    assert [n for _, n, _ in built(played, most_repeats=None, **every)] == [0, 2, 3, 4]


def test_what_is_left_out_is_not_drawn():
    played = [trajectory("t", 0, 1.0)] + [trajectory("t", n, 0.0, ("",)) for n in range(1, 9)]
    assert built([*played, trajectory("t", 9, 0.0)]) == [("t", 0, GOOD), ("t", 9, BAD)]


def test_the_same_tokens_count_once():
    one = trajectory("t", 0, 1.0)
    again = trajectory("t", 0, 1.0, collection="other")
    assert len(built([one], [again], [trajectory("t", n, 0.0) for n in (1, 2)])) == 2


def test_a_bare_trajectory_is_imitated_as_it_was_played():
    one = trajectory("t", 0, 1.0)
    assert as_imitation(one) == Imitation(one) and as_imitation(one).mark == ""
    assert as_imitation(Imitation(one, mark=GOOD)).mark == GOOD


@pytest.mark.parametrize(
    "mark, why",
    [
        ("Right", r"expected \{task\} once"),
        ("{task} {task} right", r"expected \{task\} once"),
        ("{task}\n ", "expected some text beside"),
        (" right {task}", "no white space at its ends"),
        ("{task} right\n", "no white space at its ends"),
        ("", r"expected \{task\} once"),
    ],
)
def test_what_is_no_mark_is_told(mark, why):
    import re

    assert re.search(why, wrong_mark(mark))
    assert wrong_mark(GOOD) == wrong_mark("[a] {task}") == ""


@pytest.mark.parametrize(
    "marks, bounds, why",
    [
        ((GOOD, BAD), (1.0, 0.5), "bounds: found 2 for 2 marks"),
        ((GOOD,), (), "bounds: found 0 for 1 marks"),
        ((GOOD, GOOD), (1.0,), "a mark of its own"),
        ((GOOD, "bad"), (1.0,), "marks: found 'bad'"),
        ((GOOD, BAD, "{task} x"), (0.5, 1.0), "falling numbers"),
        ((GOOD, BAD, "{task} x"), (1.0, 1.0), "falling numbers"),
        ((GOOD, BAD), (1.5,), "falling numbers"),
    ],
)
def test_wrong_grades_are_told(marks, bounds, why):
    assert why in " ".join(wrong_grades(marks, bounds))
    assert not list(wrong_grades((GOOD, BAD), (1.0,)))
