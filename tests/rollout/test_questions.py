"""Questions in slots: one turn each, in no environment, the same whoever answers beside it."""

from typing import Any

import jax
import numpy as np

from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.envs.env import Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.rollout import QuestionSet, TaskQuestion, play_together
from coevo_jax.rollout.replay import Asked
from coevo_jax.sampling.engine import Sampling
from coevo_jax.trajectory import About, Ending
from tests.scripted_env import CharChat, make_engine, random_params

PARAMS = random_params()
CHAT: Any = CharChat()
TASKS = [Task(id=f"t{number}", split="train", family="f") for number in range(3)]
SYSTEM = "xyz"
ENGINE = make_engine(slots=2, max_tokens=64)


def no_environment():
    raise AssertionError("a question needs no environment")


def question(task: Task, number: int, text: str = "why") -> TaskQuestion:
    about = About(collection="expert", sample=0, turn=number)
    return TaskQuestion(task=task, asked=Asked(system_prompt=SYSTEM, text=text, about=about), number=number)


def answers(questions, *, engine=ENGINE, script=None, make_env=no_environment):
    asked = QuestionSet(agent="target", weights=engine.load(PARAMS), questions=questions, phase=3)
    sampling = Sampling(root=jax.random.key(0), temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    with EnvPool(make_env, workers=1, step_timeout=5.0) as pool:
        [(found, stats)] = play_together(engine, pool, CHAT, [asked], sampling=sampling, script=script)
    return found, stats


def test_an_answer_is_one_turn_behind_the_question():
    said = {task.id: [CHAT.response_ids(f"so {task.id}")] for task in TASKS}
    found, stats = answers([question(task, 0) for task in TASKS], script=said)
    for task, one in zip(TASKS, found, strict=True):
        assert (one.task_id, one.sample, one.agent, one.prompt) == (task.id, 0, "target", "why")
        assert one.ending is Ending.ANSWERED and one.reward == 0 and one.about is not None
        assert [(turn.response, turn.action, turn.observation) for turn in one.turns] == [
            (CHAT.decode_response(said[task.id][0]), "", "")
        ]
        before = CHAT.prompt_ids(SYSTEM, "why")
        assert one.tokens.tolist() == [*before, *said[task.id][0]]
        assert one.agent_mask.tolist() == [False] * len(before) + [True] * len(said[task.id][0])
        assert np.all(one.logps[one.agent_mask] < 0)
    assert stats.endings["answered"] == 3 and stats.faults == 0 and stats.env_calls == 0


def test_an_answer_does_not_depend_on_who_answers_beside_it():
    questions = [question(task, number) for task in TASKS for number in range(3)]
    together, _ = answers(questions)
    alone, _ = answers(questions[4:5])
    assert alone[0].tokens.tolist() == together[4].tokens.tolist()
    assert len({tuple(one.tokens.tolist()) for one in together}) > 3  # tasks and numbers draw differently


def test_an_answer_without_end_is_cut_off_and_a_question_without_room_is_not_asked():
    [cut], _ = answers([question(TASKS[0], 0)], script={"t0": [[5] * 400]})
    assert cut.ending is Ending.TOKEN_LIMIT and len(cut.tokens) == 64 and len(cut.turns) == 1
    many = [question(TASKS[0], number, "w" * 70) for number in range(9)]
    found, _ = answers(many, make_env=object)
    assert {(one.ending, len(one.turns), len(one.tokens)) for one in found} == {(Ending.TOKEN_LIMIT, 0, 0)}


def test_answers_come_back_from_their_file(tmp_path):
    found, _ = answers([question(TASKS[0], 1)], script={"t0": [CHAT.response_ids("so")]})
    write_trajectories(tmp_path / "reasons.parquet", found)
    [read] = read_trajectories([tmp_path / "reasons.parquet"])
    assert read.about == found[0].about == About(collection="expert", sample=0, turn=1)
    assert read.ending is Ending.ANSWERED and read.branch is None
