"""Suggestions in what an agent is told, and corrections as tokens, against arrays written by hand."""

from dataclasses import replace

import pytest

from coevo_jax.methods.corrections import corrections, kept_corrections
from coevo_jax.methods.distortion import OPERATIONS, suggestions
from coevo_jax.methods.hints import NO_HINTS, WORDING, Hints, hinted, retold, wrong_wording
from coevo_jax.methods.material import Material
from coevo_jax.trajectory import Ending
from tests.methods.test_own_steps import END, Chat, episode

EXPERT = episode(
    "expert",
    ("look", "a door"),
    ("open it", ""),
    tokens=[5, 53, 54, 6, 10, END, 7, 201, 204, 8, 11, 12, END],
    mask="----aa----aaa",
    reward=1.0,
    ending=Ending.SOLVED,
)


def material(*played, experts=(EXPERT,), **more):
    known = {one.task_id: one for one in experts}
    return Material(played=tuple(played), experts=known, chat=Chat(), seed=0, phase="p", **more)


def test_a_suggestion_stands_where_the_wording_has_it():
    assert hinted("a {action} b", "go {text}", WORDING) == "a {action} b\nSuggested action: go {text}"
    assert hinted("door", "go", "({action}) {text}!") == "(go) door!"
    assert hinted("door", "", WORDING) == "door"


@pytest.mark.parametrize(
    "wording, why",
    [
        ("{text}", "expected {action} once"),
        ("{action}", "expected {text} once"),
        ("{text} {text} {action}", "expected {text} once"),
        (" {text} {action}", "white space at its ends"),
        (WORDING, ""),
    ],
)
def test_what_is_no_wording_is_told_why(wording, why):
    assert why in wrong_wording(wording) and bool(why) == bool(wrong_wording(wording))


def test_hints_go_on_by_the_number_of_the_turn_and_end_with_the_expert():
    hints = Hints(actions=("one", "two"))
    assert hints.at((), "anything") == "one"
    assert hints.at(("one",), "else") == "two"
    assert hints.at(("one", "two"), "else") == ""
    assert NO_HINTS.at((), "anything") == ""


def test_hints_may_end_where_the_agent_is_told_something_else_and_do_not_come_back():
    hints = Hints(actions=("one", "two", "three"), told=("task", "a door", "a hall"))
    assert hints.at((), "task") == "one"
    assert hints.at(("one",), "a door") == "two"
    assert hints.at(("one",), "a wall") == ""
    assert hints.at(("one", ""), "a hall") == ""


def test_a_trajectory_is_told_again_with_suggestions_and_without():
    """The agent's tokens are the very ones; what is told is encoded anew."""
    told = retold(EXPERT, ("look", "close"), "{text} {action}", material())
    words = [53, 54, 54]
    assert told.tokens.tolist() == [5, *words, 6, 10, END, 7, 201, 204, 205, 8, 11, 12, END]
    assert told.agent_mask.tolist() == [False] * 5 + [True] * 2 + [False] * 5 + [True] * 3
    assert told.hints == ("look", "close")
    assert (told.prompt, told.turns) == (EXPERT.prompt, EXPERT.turns)
    one = retold(EXPERT, ("", "close"), "{text} {action}", material())
    assert one.tokens.tolist() == [*EXPERT.tokens[:9], 205, *EXPERT.tokens[9:]]
    back = retold(told, (), "", material())
    assert back.tokens.tolist() == EXPERT.tokens.tolist() and back.hints == ()
    assert back.agent_mask.tolist() == EXPERT.agent_mask.tolist()


def test_a_turn_that_stopped_at_its_action_is_closed_once():
    open_ended = replace(
        EXPERT,
        tokens=EXPERT.tokens[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]].copy(),
        agent_mask=EXPERT.agent_mask[:12].copy(),
        logps=EXPERT.logps[:12].copy() - 1.0,
    )
    open_ended.agent_mask[5] = False  # the end token was written for the agent
    told = retold(open_ended, (), "", material(system_prompt="You. "))
    assert told.tokens.tolist() == [5, 54, 53, 54, 6, 10, END, 7, 201, 204, 8, 11, 12]
    assert told.agent_mask.tolist() == [False] * 5 + [True] + [False] * 5 + [True] * 2
    assert told.logps.tolist() == [0.0] * 5 + [-1.0] + [0.0] * 5 + [-1.0] * 2


PLAYED = episode("target", ("wait", ""), tokens=[1, 10], mask="-a", collection="tried")


def test_corrections_are_the_experts_behind_their_suggestions():
    found = list(corrections(material([PLAYED]), share=0.5, copies=4, plain_weight=0.25))
    assert [one.trajectory.sample for one in found] == [0, 1, 2, 3]
    kinds = set()
    for copy, one in enumerate(found):
        made = suggestions(
            EXPERT,
            share=0.5,
            operations=OPERATIONS,
            seed=0,
            phase="p",
            sample=copy,
        )
        assert one.trajectory.hints == tuple(suggestion.action for suggestion in made)
        assert one.turns == tuple(1.0 if suggestion.operation else 0.25 for suggestion in made)
        told = retold(EXPERT, one.trajectory.hints, WORDING, material())
        assert one.trajectory.tokens.tolist() == told.tokens.tolist()
        assert one.trajectory.tokens[one.trajectory.agent_mask].tolist() == [10, END, 11, 12, END]
        assert (one.trajectory.agent, one.trajectory.collection) == ("expert", "corrections")
        kinds |= {suggestion.operation for suggestion in made}
    assert "" in kinds and len(kinds) > 1


def test_corrections_are_of_the_tasks_that_were_played_and_have_an_expert():
    assert list(corrections(material([]))) == []
    assert list(corrections(material([PLAYED], experts=()))) == []
    other = replace(PLAYED, task_id="u")
    assert list(corrections(material([other]))) == []


def corrected(sample, *turns, reward=1.0, **more):
    return episode(
        "corrector",
        *turns,
        sample=sample,
        tokens=[5, 53, 54, 99, 6, 20 + sample, END, 7, 201, 204, 98, 8, 21, END],
        mask="-----aa-----aa",
        reward=reward,
        ending=Ending.SOLVED if reward >= 1 else Ending.FAILED,
        hints=("look", "open"),
        collection="corrected",
        **more,
    )


SOLVED = corrected(0, ("peek", "a door"), ("open it", ""))
AS_EXPERT = corrected(1, ("look", "a door"), ("open it", ""))
CLOSE = corrected(2, ("peek", "a door"), ("sing", ""), reward=0.7)
FAILED = corrected(3, ("peek", "a door"), ("sing", ""), reward=0.2)
FAULTY = replace(corrected(4, ("peek", "a door"), ("open it", "")), ending=Ending.FAULT, reward=0.0)
EVERYTHING = [SOLVED, AS_EXPERT, CLOSE, FAILED, FAULTY]


@pytest.mark.parametrize(
    "options, samples",
    [({}, [0]), ({"repeats": True}, [0, 1]), ({"threshold": 0.5}, [0, 2]), ({"threshold": 0.1}, [0, 2, 3])],
)
def test_live_successes_are_kept_without_their_suggestions(options, samples):
    found = list(kept_corrections(material(EVERYTHING), **options))
    assert [one.sample for one in found] == samples
    for one in found:
        assert one.hints == () and one.collection == "corrected"
        own = [20 + one.sample, END]
        assert one.tokens.tolist() == [5, 53, 54, 6, *own, 7, 201, 204, 8, 21, END]
        assert one.agent_mask.tolist() == [False] * 4 + [True] * 2 + [False] * 4 + [True] * 2


def test_a_success_without_an_expert_is_kept():
    assert [one.sample for one in kept_corrections(material(EVERYTHING, experts=()))] == [0, 1]
