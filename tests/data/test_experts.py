from types import SimpleNamespace

import numpy as np
import pytest

from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.data.chat.tokenizer import train_tokenizer
from coevo_jax.data.experts import best_of_tasks, expert_texts, load_experts
from coevo_jax.data.interchange import Conversation
from coevo_jax.envs.env import Task
from coevo_jax.trajectory import Demonstration, Ending, Turn

TASKS = [Task(id=name, split="train", family="f") for name in ("solved", "half", "none", "long")]


def demonstration(name, reward, words):
    turns = (
        Turn(response="Action: look", action="look", observation="seen " * words),
        Turn(response="Action: submit", action="submit", observation="never shown"),
    )
    return Demonstration(task_id=name, prompt=f"Task {name}", turns=turns, reward=reward)


EXPERTS = {
    "solved": demonstration("solved", 1.0, 1),
    "half": demonstration("half", 0.5, 2),
    "long": demonstration("long", 1.0, 500),
}
ENV = SimpleNamespace(system_prompt="Be brief.", expert=lambda task: EXPERTS.get(task.id))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    return chat_format(train_tokenizer(expert_texts(ENV, TASKS), 400, tmp_path_factory.mktemp("tok")))


def test_experts_are_rendered_in_order_and_the_rest_is_counted(chat):
    experts = load_experts(ENV, chat, TASKS, max_tokens=200)
    assert (experts.missing, experts.too_long) == (1, 1)
    assert [one.task_id for one in experts.trajectories] == ["solved", "half"]
    assert [one.ending for one in experts.trajectories] == [Ending.SOLVED, Ending.FAILED]
    first = experts.trajectories[0]
    tokens, mask = render(chat, "Be brief.", "Task solved", EXPERTS["solved"].turns)
    np.testing.assert_array_equal(first.tokens, tokens)
    np.testing.assert_array_equal(first.agent_mask, mask)
    assert first.logps.dtype == np.float32
    assert first.logps.tolist() == [0.0] * len(tokens)
    assert (first.agent, first.sample, first.reward) == ("expert", 0, 1.0)


def test_the_longest_expert_that_fits_is_kept(chat):
    length = len(load_experts(ENV, chat, TASKS[:1], max_tokens=200).trajectories[0].tokens)
    assert load_experts(ENV, chat, TASKS[:1], max_tokens=length).too_long == 0
    assert load_experts(ENV, chat, TASKS[:1], max_tokens=length - 1).too_long == 1


def test_stand_ins_take_the_place_of_experts_that_are_missing(chat):
    other = demonstration("none", 0.25, 1)
    stand_ins = {"none": other, "solved": demonstration("solved", 0.1, 3)}
    experts = load_experts(ENV, chat, TASKS, max_tokens=200, stand_ins=stand_ins)
    assert [(one.task_id, one.reward) for one in experts.trajectories] == [
        ("solved", 1.0),
        ("half", 0.5),
        ("none", 0.25),
    ]
    assert experts.missing == 0 and {one.agent for one in experts.trajectories} == {"expert"}


def test_the_best_row_of_each_task():
    rewards = [("a", 0.2), ("b", 0.0), ("a", 0.7), ("a", 0.7), ("c", None), ("c", 1.0)]
    rows = [Conversation(id=name, messages=(), reward=reward) for name, reward in rewards]
    assert [rows.index(one) for one in best_of_tasks(rows)] == [2, 4]


def test_texts_are_what_training_sees():
    assert list(expert_texts(ENV, TASKS[:1])) == [
        "Be brief.",
        "Task solved",
        "Action: look",
        "seen ",
        "Action: submit",
    ]
