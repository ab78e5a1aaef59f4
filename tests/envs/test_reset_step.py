"""Any object with reset and step as an environment."""

import random

import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance import run_checks
from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.random_players import PLAYERS, RandomHabits, play
from coevo_jax.envs.registry import make_env


class Corridor:
    """Gymnasium's shape: a number to walk to; five values of a step, two of a reset."""

    def __init__(self, length=4):
        self.length, self.closed = length, False

    def reset(self, seed=None):
        self.goal, self.place = random.Random(seed).randrange(1, self.length), 0
        return self.seen(), {"seed": seed}

    def step(self, action):
        self.place += (-1, 1)[action]
        found = self.place == self.goal
        return self.seen(), 1.0 if found else -0.1, found, abs(self.place) > 9, {}

    def seen(self):
        return {"place": np.int64(self.place).item(), "length": self.length}

    def render(self):
        return f"you stand at {self.place}"

    def close(self):
        self.closed = True


class Echo:
    """The older shape: four values of a step, one of a reset; observations repeat all that was said."""

    def reset(self, seed):
        self.said = "Say something."
        return self.said

    def step(self, action):
        self.said += f"\nYou said {action[:20]}"
        return self.said, None if action != "stop" else 0.75, action == "stop", {}


class Short(Echo):
    def step(self, action):
        return self.said, 0.0


def made(make, **options):
    return make_env("reset_step", {"make": f"tests.envs.test_reset_step:{make}"} | options)()


WALK = {"action": "choice", "choices": ["left", "right"], "reward": "sum", "reward_range": [-1.0, 1.0]}


def test_a_choice_and_a_summed_reward():
    env = made("Corridor", observation="{place} of {length}", arguments={"length": 9}, **WALK)
    task = env.tasks("train")[0]
    assert env.reset(task) == "0 of 9"
    goal = random.Random(int(task.id.rpartition("/")[2])).randrange(1, 9)
    assert env.step("up").observation == "Invalid action: expected one of left, right."
    results = [env.step("Right") for _ in range(goal)]
    assert results[-1].done and results[-1].reward == pytest.approx((1 - 0.1 * (goal - 1) + 1) / 2)
    assert [one.observation for one in results] == [f"{n} of 9" for n in range(1, goal + 1)]
    with pytest.raises(RuntimeError, match="outside an episode"):
        env.step("left")
    env.close(), env.close()


def test_what_it_renders_in_place_of_observations():
    env = made("Corridor", render=True, **WALK)
    assert env.reset(env.tasks("dev")[0]) == "you stand at 0"
    assert env.step("left").observation == "you stand at -1"
    env.close()


def test_texts_of_which_only_the_new_is_shown():
    env = made("Echo")
    assert env.reset(env.tasks("train")[0]) == "Say something."
    assert env.step("one").observation == "You said one"
    assert env.reward_at_limit() == 0.0
    last = env.step("stop")
    assert (last.observation, last.done, last.reward) == ("You said stop", True, 0.75)


def test_another_shape_is_a_fault_and_no_function_one_message():
    env = made("Short")
    env.reset(env.tasks("train")[0])
    with pytest.raises(EnvFault, match="expected a tuple of 4 or 5"):
        env.step("a")
    with pytest.raises(ConfigError, match="no attribute 'Nothing'"):
        made("Nothing")
    with pytest.raises(ConfigError, match=r"env\.options\.make: found null, expected package"):
        make_env("reset_step", {})()
    with pytest.raises(ConfigError, match="no_such_module"):
        make_env("reset_step", {"make": "no_such_module:make"})()
    with pytest.raises(ConfigError, match="choices with action choice"):
        made("Corridor", action="choice")


@pytest.mark.parametrize(("make", "options"), [("Corridor", WALK), ("Echo", {"examples": ["a", "stop"]})])
def test_it_passes_every_check(make, options):
    name = f"tests.envs.test_reset_step:{make}"
    results = run_checks(make_env("reset_step", {"make": name} | options), tasks_per_split=1, call_timeout=10)
    assert not {one.name: one.message for one in results if one.status == "failed"}


def test_random_players_keep_the_best_of_their_episodes():
    env = made("Corridor", max_turns=8, **WALK)
    task = env.tasks("train")[0]
    one, best = (
        play(env, task, RandomHabits(best_of=count), np.random.default_rng([3])) for count in (1, 12)
    )
    assert best.reward > one.reward and best.task_id == task.id
    assert all(turn.action in ("left", "right") for turn in best.turns)
    assert best.turns[0].response == f"Action: {best.turns[0].action}"
    assert PLAYERS.lesson(None, RandomHabits(), 4, 20).habits == RandomHabits(seed=4)
