"""A game process killed in the middle of a roll-out: one fault, and all other episodes as they were."""

import os
import signal

import pytest

from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.scienceworld.environment import make_scienceworld
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from coevo_jax.envs.textworld.environment import make_textworld
from coevo_jax.envs.textworld.generate import generate_textworld
from coevo_jax.envs.textworld.options import TextWorldOptions
from coevo_jax.rollout import play
from coevo_jax.trajectory import Ending
from tests.scripted_env import CharChat, make_engine, random_params

EPISODES = 5
PARAMS = random_params()
ENGINE = make_engine(slots=2, max_tokens=400)


class OneAction(CharChat):
    """Reads every response as one action that the game understands, and shortens what the game says."""

    def decode_response(self, ids):
        return "Action: look around"

    def encode(self, text):
        return [2 + len(text) % 7] * 6


def textworld(folder):
    made = TextWorldOptions(families=("quest",), train_games=EPISODES, dev_games=0, test_games=0)
    generate_textworld(made, folder, lambda done, total: None)
    return lambda: make_textworld(TextWorldOptions(games_path=str(folder))), "interpreter_pid"


def scienceworld(folder):
    return lambda: make_scienceworld(ScienceWorldOptions(families=("find-animal",))), "simulator_pid"


def killing(make, pid_name: str, victim: str, pids: list[int]):
    """The maker of instances whose process is killed before the third turn of a task."""

    def make_one():
        env = make()
        reset, step = env.reset, env.step
        turns = []

        def counted_reset(task):
            turns[:] = [task.id]
            return reset(task)

        def deadly_step(action):
            turns.append(action)
            if turns[0] == victim and len(turns) == 4:
                pids.append(getattr(env, pid_name))
                os.kill(pids[-1], signal.SIGKILL)
            return step(action)

        env.reset, env.step = counted_reset, deadly_step
        return env

    return make_one


@pytest.mark.slow
@pytest.mark.parametrize("world", [textworld, scienceworld])
def test_a_killed_process_is_one_fault_and_harms_no_other_episode(world, tmp_path):
    make, pid_name = world(tmp_path)
    lister = make()
    tasks = lister.tasks("train")[:EPISODES]
    lister.close()

    def rolled(maker):
        with EnvPool(maker, workers=2, step_timeout=60) as pool:
            options = {
                "agent": "target",
                "samples": 1,
                "temperature": 1.0,
                "top_p": 1.0,
                "seed": 0,
                "phase": 0,
                "script": {task.id: [OneAction().response_ids("look")] * 25 for task in tasks},
            }
            return play(ENGINE, PARAMS, pool, OneAction(), tasks, **options)

    pids: list[int] = []
    undisturbed, _ = rolled(make)
    found, stats = rolled(killing(make, pid_name, tasks[1].id, pids))
    assert len(pids) == 1
    assert stats.endings["fault"] == stats.faults == 1 and stats.episodes == EPISODES
    assert (found[1].ending, found[1].reward, len(found[1].turns)) == (Ending.FAULT, 0.0, 3)
    for number, (one, other) in enumerate(zip(found, undisturbed, strict=True)):
        assert other.ending is Ending.TURN_LIMIT
        assert number == 1 or (one.turns, one.reward, one.ending) == (other.turns, other.reward, other.ending)
