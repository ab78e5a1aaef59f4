"""The pool closes what it made, also where the very first call of an instance never returns."""

import threading

from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.pool import EnvPool
from tests.scripted_env import ScriptedEnv, make_tasks

PATIENCE = 5.0  # seconds for what happens in another thread; a hanging reset lasts far longer
[TASK] = make_tasks(1)


class Hanging(ScriptedEnv):
    """Its reset returns only once the instance is closed, as a call into a dead process does."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.freed = threading.Event(), threading.Event()

    def reset(self, task):
        self.entered.set()
        assert self.freed.wait(60), "nobody closed this instance"
        raise RuntimeError("closed")

    def close(self):
        super().close()
        self.freed.set()


def reset(env):
    return env.reset(TASK)


def test_an_instance_whose_first_reset_hangs_is_closed_after_the_timeout():
    made = []

    def make_env():
        made.append(ScriptedEnv() if made else Hanging())
        return made[-1]

    with EnvPool(make_env, workers=1, step_timeout=0.2) as pool:
        pool.submit(0, reset)
        [outcome] = pool.wait().values()
        assert isinstance(outcome, EnvFault) and "no answer within 0.2 s" in str(outcome)
        assert made[0].freed.wait(PATIENCE)
        pool.submit(0, reset)  # the slot goes on with a fresh instance
        assert isinstance(pool.wait()[0], str)
        assert not made[1].closed
    assert made[1].closed == 1


def test_an_instance_made_too_late_is_closed_without_a_call():
    late, made = Hanging(), threading.Event()

    def make_env():
        assert made.wait(60)
        return late

    with EnvPool(make_env, workers=1, step_timeout=0.2) as pool:
        pool.submit(0, reset)
        assert isinstance(pool.wait()[0], EnvFault)
        made.set()
        assert late.freed.wait(PATIENCE)
    assert not late.entered.is_set()


def test_closing_the_pool_closes_an_instance_inside_its_first_reset():
    env = Hanging()
    pool = EnvPool(lambda: env, workers=1, step_timeout=PATIENCE)
    pool.submit(0, reset)
    assert env.entered.wait(PATIENCE)
    pool.close()
    assert env.freed.is_set()
