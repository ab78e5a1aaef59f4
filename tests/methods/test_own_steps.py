"""What is made of an agent's own steps at the states of experts, against arrays written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.methods.expert_step_over import expert_step_over
from coevo_jax.methods.material import Material
from coevo_jax.methods.questions import INSTRUCTION, why_expert
from coevo_jax.methods.reflection import reason_of, reflections
from coevo_jax.methods.world_model import next_observations
from coevo_jax.trajectory import About, Branch, Ending, Trajectory, Turn

END = 9


class Chat:
    """One token a word; a prompt stands between 5 and 6, an answer between 7 and 8, a turn ends with END."""

    end_id = END

    def prompt_ids(self, system, prompt):
        return [5, *(50 + len(word) for word in (system + prompt).split()), 6]

    def response_ids(self, text):
        return [*(100 + len(word) for word in text.split()), END]

    def observation_ids(self, observation):
        return [7, *(200 + len(word) for word in observation.split()), 8]


def episode(agent, *turns, task="t", sample=0, tokens, mask, **more) -> Trajectory:
    """An episode of turns (action, answer); its mask as a string of "a" for the agent's tokens."""
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="the task",
        turns=tuple(Turn(response=f"Action: {a}", action=a, observation=o) for a, o in turns),
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array([one == "a" for one in mask]),
        logps=np.zeros(len(tokens), np.float32),
        **({"reward": 0.0, "ending": Ending.TURN_LIMIT} | more),
    )


EXPERT = episode(
    "expert",
    ("look", "a door"),
    ("open it", ""),
    tokens=[1, 10, END, 2, 11, 12, END],
    mask="-aa-aaa",
    reward=1.0,
    ending=Ending.SOLVED,
)


def branch(sample, turn, *turns, tokens, mask, source="expert", **more):
    left = Branch(collection=source, sample=0, turns=turn, tokens=[1, 4][turn])
    return episode(
        "target", *turns, sample=sample, tokens=tokens, mask=mask, branch=left, collection="own", **more
    )


AT_START = branch(0, 0, ("wait", "nothing moves"), tokens=[1, 20, END], mask="-aa")
SAME = branch(1, 0, ("look", "a door"), tokens=[1, 21, 10, END], mask="-aaa")  # with another thought
LATER = branch(2, 1, ("look", "a door"), ("sing", "la"), tokens=[1, 10, END, 2, 22, 23], mask="-aa-aa")
AGAIN = replace(LATER, sample=3)  # drawn twice
LOST = branch(4, 1, ("look", "a door"), tokens=[1, 10, END, 2], mask="-aa-", ending=Ending.LOST)
CUT_OFF = branch(
    5,
    1,
    ("look", "a door"),
    ("", ""),
    tokens=[1, 10, END, 2, 30],
    mask="-aa-a",
    ending=Ending.TOKEN_LIMIT,
)
OF_ANOTHER = branch(6, 0, ("run", "far"), tokens=[1, 24, END], mask="-aa", source="tried")
PLAYED = [LATER, AGAIN, AT_START, SAME, LOST, CUT_OFF, OF_ANOTHER]


def material(*played, **more):
    return Material(played=(played,), experts={"t": EXPERT}, chat=Chat(), **more)


def step_rows(preferences):
    return [
        (
            one.chosen.tokens.tolist(),
            one.rejected.tokens.tolist(),
            one.chosen_from,
            one.rejected_from,
            one.rejected.sample,
        )
        for one in preferences
    ]


def test_an_experts_step_stands_over_the_agents_own_from_there_on():
    expected = [
        ([1, 10, END], [1, 20, END], 0, 0, 0),
        ([1, 10, END, 2, 11, 12, END], [1, 10, END, 2, 22, 23], 1, 1, 2),
        ([1, 10, END, 2, 11, 12, END], [1, 10, END, 2, 30], 1, 1, 5),
    ]
    assert step_rows(expert_step_over(material(*PLAYED))) == expected
    by_text = replace(SAME, turns=(replace(SAME.turns[0], response="Thought: so\nAction: look"),))
    assert step_rows(expert_step_over(material(by_text))) == []
    assert len(step_rows(expert_step_over(material(by_text), same="response"))) == 1
    assert step_rows(expert_step_over(Material(played=(PLAYED,), experts={}))) == []


def test_a_branch_that_goes_on_is_cut_behind_its_own_step():
    longer = branch(
        7,
        0,
        ("wait", "nothing moves"),
        ("sing", "la"),
        tokens=[1, 20, END, 3, 25, END],
        mask="-aa-aa",
    )
    [pair] = expert_step_over(material(longer))
    assert pair.rejected.tokens.tolist() == [1, 20, END] and len(pair.rejected.turns) == 1


def test_the_answer_alone_is_trained_of_what_an_own_action_led_to():
    found = list(next_observations(material(*PLAYED)))
    assert [one.trajectory.sample for one in found] == [0, 2] and all(one.turns is None for one in found)
    first, later = (one.trajectory for one in found)
    assert first.tokens.tolist() == [1, 20, END, 7, 207, 205, 8]
    assert first.agent_mask.tolist() == [False] * 3 + [True] * 4
    # The turn stopped at the end of its action's line: it is closed for the agent, and that is not trained.
    assert later.tokens.tolist() == [1, 10, END, 2, 22, 23, END, 7, 202, 8]
    assert later.agent_mask.tolist() == [False] * 7 + [True] * 3
    assert not first.logps.any() and len(later.logps) == 10
    assert [one.trajectory.sample for one in next_observations(material(SAME))] == []
    assert [one.trajectory.sample for one in next_observations(material(SAME), same=None)] == [1]


def test_a_question_tells_the_state_and_every_other_action_once():
    first, second = why_expert(material(*PLAYED, replace(AT_START, tokens=AT_START.tokens + 1)))
    assert (first.turn, second.turn) == (0, 1) and first.trajectory is EXPERT
    assert first.text == (
        "the task\n\nAction taken: look\nAnswer: a door\nOther action: wait\nAnswer: nothing moves\n\n"
        + INSTRUCTION
    )
    assert second.text.startswith(
        "the task\nAction: look\na door\n\nAction taken: open it\nAnswer: \nOther action: sing\nAnswer: la\n"
    )
    [asked] = why_expert(material(AT_START), instruction="Why?")
    assert asked.text.endswith("nothing moves\n\nWhy?")
    assert list(why_expert(material(SAME, LOST))) == []


def answer(text, turn=1, sample=0, ending=Ending.ANSWERED, collection="expert"):
    return Trajectory(
        task_id="t",
        agent="target",
        sample=sample,
        prompt="Why?",
        turns=(Turn(response=text, action="", observation=""),),
        reward=0.0,
        ending=ending,
        tokens=np.array([1, 2, END], np.int32),
        agent_mask=np.array([False, True, True]),
        logps=np.full(3, -1, np.float32),
        collection="reasons",
        about=About(collection=collection, sample=0, turn=turn),
    )


def test_a_reason_and_the_experts_action_are_one_turn_and_it_alone_is_trained():
    [one] = reflections(material(answer("Thought: it is shut\nAction: knock")))
    said = one.trajectory
    response = "Thought: it is shut\nAction: open it"
    assert said.turns == (EXPERT.turns[0], replace(EXPERT.turns[1], response=response))
    assert said.tokens.tolist() == [1, 10, END, 2, 108, 102, 102, 104, 107, 104, 102, END]
    assert said.agent_mask.tolist() == [False, True, True, False] + [True] * 8
    assert one.turns == (0.0, 1.0) and not said.logps.any()
    assert (said.agent, said.collection, said.sample, said.reward) == ("target", "reasons", 0, 1.0)
    [first] = reflections(material(answer("I see nothing yet", turn=0, sample=4)))
    assert first.turns == (1.0,) and first.trajectory.tokens[0] == 1


@pytest.mark.parametrize(
    "said",
    [
        answer("it is sh", ending=Ending.TOKEN_LIMIT),
        answer("Action: open it"),
        answer(" Thought: \nAction: open it"),
        answer("it is shut", collection="tried"),
        replace(answer("it is shut"), about=None),
    ],
)
def test_what_gives_no_reason_is_left_out(said):
    assert list(reflections(material(said))) == []


def test_what_was_cut_off_is_a_reason_where_the_recipe_says_so():
    cut = answer("it is sh", ending=Ending.TOKEN_LIMIT)
    [one] = reflections(material(cut, replace(cut, turns=())), cut_off=True)
    assert one.trajectory.turns[1].response == "Thought: it is sh\nAction: open it"


def test_reasons_are_without_names_and_actions():
    assert reason_of("Thought: a\nb Action: c Action: d") == "a\nb"
    assert reason_of("a thought: so") == "a thought: so"


def test_an_answer_is_neither_success_nor_failure():
    said = answer("it is shut")
    assert not (said.finished or said.failure or said.success)
    assert not replace(said, ending=Ending.TOKEN_LIMIT).finished
