"""Distorted actions, against texts written by hand."""

from hashlib import sha256
from itertools import islice

import numpy as np
import pytest

from coevo_jax.methods.distortion import (
    OPERATIONS,
    Context,
    Suggestion,
    distort,
    hash_draws,
    suggestions,
)
from coevo_jax.trajectory import Ending, Trajectory, Turn

SHOWN = "[('id', 'int'), ('name', 'text'), ('city', 'text')]"
QUERY = "execute[SELECT name FROM boat WHERE city = 'Rome']"
NOTHING = Context(())


def scripted(*numbers):
    """Draws these numbers, each of which must be one of those that are asked for."""
    left = list(numbers)

    def draw(count):
        number = left.pop(0)
        assert 0 <= number < count
        return number

    draw.left = left
    return draw


def distorted(operation, action, context=NOTHING, *numbers):
    draw = scripted(0, *numbers)  # 0 takes the only operation
    found = distort(action, context, (operation,), draw)
    assert not draw.left
    return found


@pytest.mark.parametrize(
    "action, number, expected",
    [
        ("execute[DESC boat]", 0, "execute[boat]"),
        ("execute[DESC boat]", 1, "execute[DESC]"),
        ("take red apple from box 1", 1, "take red from box 1"),
        ("take red apple from box 1", 4, "take red apple from box"),
        ("a  b c", 0, "a  c"),
        ("name, price", 0, "name,"),
    ],
)
def test_a_word_is_left_out_with_one_space(action, number, expected):
    assert distorted("drop_word", action, NOTHING, number) == (expected, "drop_word")


@pytest.mark.parametrize(
    "action, number, expected",
    [
        ("execute[DESC boat]", 0, "execute[boat DESC]"),
        (QUERY, 3, "execute[SELECT name FROM WHERE boat city = 'Rome']"),
        (QUERY, 5, "execute[SELECT name FROM boat WHERE Rome = 'city']"),
        ("go b b c", 0, "go b c b"),  # of b, b and c, only the last two differ
    ],
)
def test_neighbours_change_places(action, number, expected):
    assert distorted("swap_words", action, NOTHING, number) == (expected, "swap_words")


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ((0, 0), "execute[SELECT id FROM boat WHERE city = 'Rome']"),  # of "name": id, int, text, city
        ((0, 3), "execute[SELECT city FROM boat WHERE city = 'Rome']"),
        ((1, 0), "execute[SELECT name FROM ship WHERE city = 'Rome']"),  # of "boat": the text before
        ((2, 2), "execute[SELECT name FROM boat WHERE name = 'Rome']"),
        ((3, 0), "execute[SELECT name FROM boat WHERE city = 'Which']"),  # of "Rome": the question
    ],
)
def test_a_word_is_replaced_out_of_the_latest_text_that_has_it(numbers, expected):
    context = Context(("Which boats of Rome have a name?", "[('boat',), ('ship',)]", SHOWN))
    assert distorted("replace_word", QUERY, context, *numbers) == (expected, "replace_word")


def test_upper_and_lower_case_are_one_word_as_a_replacement():
    found = distorted("replace_word", "take Apple", Context(("Apple apple APPLE pear",)), 0, 0)
    assert found == ("take pear", "replace_word")
    assert distorted("replace_word", "take Apple", Context(("Apple apple",))) == ("take Apple", "")


def test_another_action_of_the_expert_is_taken():
    context = Context((), ("look", "submit"))
    assert distorted("other_action", "go", context, 1) == ("submit", "other_action")


def test_another_action_that_the_latest_answer_lists_is_taken():
    context = Context(("Choose",), (), ("click[b]", "click[c]"))
    assert distorted("other_choice", "click[a]", context, 1) == ("click[c]", "other_choice")


def test_what_an_answer_lists_is_read_off_the_latest_one():
    turns = [
        Turn(response="", action="click[a]", observation="a b A"),
        Turn(response="", action="click[b]", observation="c"),
    ]
    one = Trajectory(**{**vars(expert()), "turns": tuple(turns), "prompt": "a"})
    first, second = made(
        one, 1.0, ("other_choice",), offered=lambda text: [f"click[{x}]" for x in text.split()]
    )
    assert first == ("click[a]", "")  # nothing else is listed
    assert second in [("click[a]", "other_choice"), ("click[A]", "other_choice")]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_cannot_be_changed_stays(operation):
    assert distorted(operation, "look", Context(("Copy",))) == ("look", "")


def test_operations_are_tried_in_the_drawn_order():
    draw = scripted(1, 1, 0, 0)  # swap_words and replace_word cannot; drop_word has one word to leave out
    found = distort("go there", Context(("Copy",)), ("drop_word", "swap_words", "replace_word"), draw)
    assert found == Suggestion("go", "drop_word")
    assert not draw.left


def test_draws_are_the_hashes_of_numbered_names():
    expected = [int(sha256(f"a/b/{number}".encode()).hexdigest()[:16], 16) for number in range(3)]
    assert list(islice(hash_draws("a/b"), 3)) == expected


def expert(*actions, task="t"):
    turns = tuple(Turn(response=f"Action: {one}", action=one, observation=SHOWN) for one in actions)
    return Trajectory(
        task_id=task,
        agent="expert",
        sample=0,
        prompt="the name of a boat",
        turns=turns,
        reward=1.0,
        ending=Ending.SOLVED,
        tokens=np.zeros(0, np.int32),
        agent_mask=np.zeros(0, bool),
        logps=np.zeros(0, np.float32),
    )


def made(one, share=0.3, operations=OPERATIONS, **more):
    return suggestions(
        one, **{"share": share, "operations": operations, "seed": 0, "phase": "p", "sample": 0} | more
    )


LONG = expert(*[f"say name number {number}" for number in range(300)])


def test_the_share_of_distorted_turns_is_that_of_the_option():
    assert all(not one.operation for one in made(LONG, 0.0))
    assert all(one.operation for one in made(LONG, 1.0))
    for share in (0.1, 0.3, 0.7):
        found = sum(bool(one.operation) for one in made(LONG, share)) / 300
        assert abs(found - share) < 4 * (share * (1 - share) / 300) ** 0.5


def test_suggestions_depend_on_their_name_alone_and_differ_by_every_part_of_it():
    first = made(LONG)
    assert first == made(LONG)
    others = [made(LONG, seed=1), made(LONG, phase="q"), made(LONG, sample=1)]
    others.append(made(expert(*[turn.action for turn in LONG.turns], task="u")))
    assert all(other != first for other in others)
    assert made(expert(*[turn.action for turn in LONG.turns[:9]])) != ()


def test_a_turn_is_distorted_by_what_was_told_before_it_and_by_other_turns_actions():
    turns = [
        Turn(response="", action="look", observation="box chair"),
        Turn(response="", action="take box", observation="later box door"),
        Turn(response="", action="look ", observation=""),
    ]
    one = expert()
    one = Trajectory(**{**vars(one), "turns": tuple(turns), "prompt": "Copy"})
    [_, second, _] = made(one, 1.0, ("replace_word",))
    assert second == ("take chair", "replace_word")
    [first, second, third] = made(one, 1.0, ("other_action",))
    assert first == ("take box", "other_action") and third == ("take box", "other_action")
    assert second[0] in ("look", "look ")
