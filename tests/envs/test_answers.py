"""What an environment answers is checked where it answers, and what is no answer is its fault."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from coevo_jax.envs import answers
from coevo_jax.envs.env import EnvFault, StepResult, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.process import isolated
from tests.letters_env import LettersEnv, LettersOptions

TASK = Task(id="a", split="train", family="f")


class Says:
    """An environment that answers what it was given."""

    def __init__(self, answer):
        self.answer = answer

    def reset(self, task):
        return self.answer

    def step(self, action):
        return self.answer

    def reward_at_limit(self):
        return self.answer


def result(observation="o", done=True, reward=0.5):
    return StepResult(observation=observation, done=done, reward=reward)


@pytest.mark.parametrize(
    ("reward", "kept"),
    [
        (0.1 + 0.2 + 0.7, 1.0),
        (1.0000000000000002, 1.0),
        (-1e-9, 0.0),
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (Fraction(1, 4), 0.25),
    ],
)
def test_rounding_is_cut_and_other_numbers_stay(reward, kept):
    assert answers.step(Says(result(reward=reward)), "x", 100).reward == kept
    assert answers.reward_at_limit(Says(reward)) == kept
    assert type(answers.reward_at_limit(Says(reward))) is float


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        (float("nan"), "float nan"),
        (float("inf"), "float inf"),
        (1.5, "1.5"),
        (-0.1, "-0.1"),
        ("1", "str '1'"),
        (None, "NoneType None"),
        (np.zeros(2), "ndarray"),
    ],
)
def test_what_is_no_reward_is_a_fault(reward, found):
    for call in (
        lambda: answers.step(Says(result(reward=reward)), "x", 100),
        lambda: answers.reward_at_limit(Says(reward)),
    ):
        with pytest.raises(EnvFault, match=rf"found {found}.*expected a number in \[0, 1\]"):
            call()


def test_a_reward_counts_only_at_the_end():
    assert answers.step(Says(result(done=False, reward=None)), "x", 100) == result(done=False, reward=0.0)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "step: found NoneType None, expected a StepResult"),
        (("o", True, 1.0), r"step: found tuple \('o', True, 1.0\), expected a StepResult"),
        (result(observation=None), "step: observation: found NoneType None, expected text"),
        (result(observation=b"o"), "step: observation: found bytes b'o', expected text"),
        (result(observation="ab\ud800"), "step: observation: found half of a surrogate pair at character 2"),
        (result(done="yes"), "step: done: found str 'yes', expected True or False"),
        (SimpleNamespace(observation="o", done=True), "expected a StepResult"),
    ],
)
def test_what_is_no_answer_is_a_fault(answer, told):
    with pytest.raises(EnvFault, match=told):
        answers.step(Says(answer), "x", 100)


def test_an_environment_s_own_kinds_of_answer_are_taken():
    named = SimpleNamespace(observation="o", done=np.True_, reward=1)
    assert answers.step(Says(named), "x", 100) == result(reward=1.0)


def test_a_first_observation_is_text():
    assert answers.reset(Says("begin"), TASK, 100) == "begin"
    with pytest.raises(EnvFault, match="reset: found NoneType None, expected text"):
        answers.reset(Says(None), TASK, 100)


def test_a_long_answer_is_cut_before_anything_reads_it():
    assert answers.most_characters(384) == 20_000 and answers.most_characters(32_768) == 524_288
    long = "a" * 100 + "\ud800"
    assert answers.step(Says(result(observation=long)), "x", 100).observation == "a" * 100
    assert answers.reset(Says("b" * 1000), TASK, 10) == "b" * 10


class Leaves(LettersEnv):
    """An environment that ends the process from a step, as a script with a main function may."""

    def __init__(self):
        super().__init__(LettersOptions())

    def step(self, action):
        raise SystemExit(3)


@pytest.mark.parametrize("make", [Leaves, isolated(Leaves, 512)], ids=["thread", "process"])
def test_an_environment_may_not_end_the_run(make):
    with EnvPool(make, workers=1, step_timeout=60.0) as pool:
        pool.submit(0, lambda env: env.step("x"))
        [fault] = pool.wait().values()
        assert isinstance(fault, EnvFault) and "SystemExit: 3" in str(fault)
        pool.submit(0, lambda env: len(env.tasks("train")))  # and the slot has a fresh one
        assert pool.wait()[0] > 0
