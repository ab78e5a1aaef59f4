"""Environments in processes of their own: the same answers, and no harm to anybody else."""

import os
import signal
from functools import partial

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.process import ProcessEnv, isolated
from tests.letters_env import LettersOptions, make_letters
from tests.process_envs import Misbehaving, Options, make_misbehaving, refuse

MAKE = partial(make_letters, LettersOptions())


@pytest.fixture
def letters():
    env = ProcessEnv(MAKE, 512)
    yield env
    env.close()


def test_it_answers_as_the_environment_itself_does(letters):
    itself = MAKE()
    assert (letters.name, letters.system_prompt) == (itself.name, itself.system_prompt)
    task = itself.tasks("train")[3]
    assert list(letters.tasks("train")) == list(itself.tasks("train"))
    assert letters.max_turns(task) == itself.max_turns(task)
    assert letters.reset(task) == itself.reset(task)
    demonstration = itself.expert(task)
    assert letters.expert(task) == demonstration
    for turn in demonstration.turns:
        assert letters.step(turn.action) == itself.step(turn.action)
    assert letters.reward_at_limit() == itself.reward_at_limit()


def test_what_it_raises_is_a_fault_and_a_config_error_stays_one(letters):
    with pytest.raises(EnvFault, match="AttributeError"):
        letters.step(None)
    with pytest.raises(ConfigError, match="no such folder"):
        ProcessEnv(refuse, 512)


def test_a_dead_process_is_a_fault_and_closing_twice_is_safe(letters):
    os.kill(letters.pid, signal.SIGKILL)
    with pytest.raises(EnvFault, match="process ended"):
        letters.step("a")
    letters.close()
    letters.close()


def test_hanging_dying_and_greedy_ones_harm_no_other_and_are_replaced():
    pids = []

    def act(env, action):
        env.reset(Misbehaving.TASK)
        pids.append(env.pid)
        return env.step(action).observation

    with EnvPool(isolated(partial(make_misbehaving, Options()), 256), workers=4, step_timeout=6) as pool:
        actions = ("hang", "die", "eat", "work")
        for slot, action in enumerate(actions):
            pool.submit(slot, lambda env, action=action: act(env, action))
        outcomes = pool.wait()
        assert "no answer" in str(outcomes[0])
        assert "process ended" in str(outcomes[1])
        assert "MemoryError" in str(outcomes[2])
        assert outcomes[3] == "worked"
        for slot in range(4):
            pool.submit(slot, lambda env: act(env, "work"))
        assert pool.wait() == dict.fromkeys(range(4), "worked")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
