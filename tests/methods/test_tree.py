"""Search trees by hand: states, values, which state is played on from next, and how the tree is counted."""

from math import log, nan, sqrt

import numpy as np
import pytest

from coevo_jax.methods.tree import (
    Tree,
    most_promising,
    promising_nodes,
    search_trees,
    tree_counts,
    upper_bound,
)
from coevo_jax.trajectory import Ending
from tests.methods.spelled import left, material, spelled


def tree(paths: dict[str, float], *expanded: str) -> Tree:
    """A tree of words with their rewards, played on from behind the beginnings of some."""
    made = [spelled("target", word, reward, sample=n) for n, (word, reward) in enumerate(paths.items())]
    return Tree(paths=tuple(made), left=frozenset(state(word) for word in expanded))


def state(word: str):
    return spelled("target", word, 0.0).turns


def word(found) -> str | None:
    return None if found is None else "".join(turn.action for turn in found)


def next_of(made: Tree, exploration: float = 0.25, depth: int | None = None) -> str | None:
    return word(most_promising(made, exploration=exploration, depth=depth))


def test_a_value_is_the_mean_reward_of_all_episodes_through_a_state():
    made = tree({"ab": 1.0, "ac": 0.5, "b": 0.0})
    assert made.value(()) == 0.5 and made.value(state("a")) == 0.75 and made.value(state("ac")) == 0.5
    assert np.isnan(made.value(state("x"))) and len(made.through(state("a"))) == 2


def test_children_of_the_same_text_and_answer_are_one():
    made = tree({"ab": 1.0, "ac": 0.5, "b": 0.0})
    assert [word(child) for child in made.children(())] == ["a", "b"]
    assert [word(child) for child in made.children(state("a"))] == ["ab", "ac"]
    again = Tree(paths=(*made.paths, spelled("target", "ab", 0.0, sample=9)))
    assert [word(child) for child in again.children(state("a"))] == ["ab", "ac"]
    assert again.value(state("ab")) == 0.5 and len(again.through(state("ab"))) == 2


def test_the_bound_is_that_of_the_paper():
    assert upper_bound(0.5, 1, 4, 0.25) == 0.5 + 0.25 * sqrt(log(4))
    assert upper_bound(0.5, 4, 16, 2.0) == 0.5 + 2 * sqrt(log(16) / 4)
    assert upper_bound(0.5, 3, 9, 0.0) == 0.5


def test_a_search_begins_at_the_tasks_start_whatever_was_explored():
    assert next_of(tree({"ab": 1.0, "ba": 0.0})) == ""


def test_the_child_with_the_largest_bound_is_taken():
    # Of 4 episodes 3 went to "a" with mean 0.6, 1 to "b" with 0.5: ln 4 = 1.386.
    paths = {"aa": 0.6, "ab": 0.6, "ac": 0.6, "ba": 0.5}
    made = tree(paths, "")
    assert next_of(made, exploration=0.0) == "a"
    assert next_of(made, exploration=0.25) == "b"  # 0.6 + 0.25 x 0.680 = 0.770 < 0.5 + 0.25 x 1.177 = 0.794
    assert next_of(made, exploration=0.19) == "a"  # 0.729 > 0.724


def test_it_goes_down_until_a_state_that_was_not_played_on_from():
    paths = {"aax": 1.0, "abx": 0.2, "ba": 0.1}
    assert next_of(tree(paths, "", "a"), exploration=0.0) == "aa"
    assert next_of(tree(paths, "", "a", "aa"), exploration=0.0) == "ab"  # "aax" ended its episode
    assert next_of(tree(paths, "", "a", "aa", "ab"), exploration=0.0) == "b"
    assert next_of(tree(paths, "", "a", "aa", "ab", "b"), exploration=0.0) is None


def test_of_equal_children_the_first_that_was_played_is_taken():
    assert next_of(tree({"bx": 0.5, "ax": 0.5}, "")) == "b"


def test_states_behind_too_many_turns_are_not_played_on_from():
    paths = {"abcd": 1.0, "b": 0.0}
    assert next_of(tree(paths, "", "a"), depth=3) == "ab"
    assert next_of(tree(paths, "", "a", "ab"), depth=3) is None  # "abc" is 3 turns deep, "b" an end
    assert next_of(tree(paths, "", "a", "ab"), depth=4) == "abc"


def test_a_state_whose_branches_were_all_lost_is_given_up():
    made = Tree(paths=(spelled("target", "ab", 0.5),), left=frozenset({(), state("ab")}))
    assert next_of(made) == "a"
    assert next_of(Tree(paths=made.paths[:1], left=frozenset({state("a"), ()}))) is None


EXPLORED = spelled("target", "abc", 0.5)


def searching(*branches):
    made = material([EXPLORED])
    return type(made)(played=made.played, experts={}, branches=branches)


def test_points_are_states_of_what_was_explored_and_of_what_the_phase_played():
    [first] = promising_nodes(searching())
    assert (first.trajectory, first.turn) == (EXPLORED, 0)
    own = [left(EXPLORED, 0, "xyz", 1.0, sample=0, into="tree"), left(EXPLORED, 0, "x", 0.0, sample=1)]
    [second] = promising_nodes(searching(*own), exploration=0.0)
    assert (second.trajectory, second.turn, second.response) == (EXPLORED, 1, None)  # "x" has 0.5 as well
    better = [own[0], left(EXPLORED, 0, "xw", 0.6, sample=1, into="tree")]
    [third] = promising_nodes(searching(*better), exploration=0.0)
    assert (third.trajectory, third.turn) == (own[0], 1)
    deeper = left(own[0], 1, "vv", 0.9, sample=2, into="tree")
    [fourth] = promising_nodes(searching(*better, deeper), exploration=0.0)
    assert (fourth.trajectory, fourth.turn) == (own[0], 2)  # "xy" has 1.0, "xv" 0.9


def test_what_was_lost_has_left_its_state_and_has_no_value():
    lost = left(EXPLORED, 0, "", 0.0, into="tree", ending=Ending.LOST)
    [made] = search_trees(searching(lost)).values()
    assert made.left == {()} and made.paths == (EXPLORED,)
    [point] = promising_nodes(searching(lost))
    assert point.turn == 1


@pytest.mark.parametrize(("samples", "expected"), [(0, nan), (2, 0.5)])
def test_a_task_without_an_episode_that_was_played_has_no_tree(samples, expected):
    played = [spelled("target", "ab", 0.5, sample=n) for n in range(samples)]
    fault = spelled("target", "ab", 0.0, sample=7, ending=Ending.FAULT)
    trees = search_trees(material([*played, fault]))
    assert len(trees) == (samples > 0)
    assert all(one.value(()) == expected for one in trees.values())


def test_nodes_are_the_children_of_states_that_were_played_on_from():
    made = {"t": tree({"aax": 1.0, "abx": 0.2, "ba": 0.1}, "", "a"), "s": tree({"ab": 0.0})}
    assert tree_counts(made) == {"trees": 2, "expanded": 2, "nodes": 4, "depth": 2, "paths": 4}
