"""Every environment that calls itself deterministic gives stored episodes back, in processes and in threads.

COEVO_REPLAYED says how many episodes the slow tests play; `./launch/test.sh --real Replays` takes 200.
"""

import os
import zlib
from importlib.util import find_spec

import numpy as np
import pytest

from coevo_jax.config.options import Config
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.envs.env import SPLITS, TriesActions, format_response
from coevo_jax.envs.registry import ENVIRONMENTS, make_env
from coevo_jax.stored.replay import Replaying, Stored, replay_all
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.envs.openenv_server import serving
from tests.envs.test_reset_step import WALK
from tests.envs.tiny_alfworld import write_download

MANY = int(os.environ.get("COEVO_REPLAYED", "0"))
FEW = 12
FAST: dict[str, dict] = {
    "intercode_sql": {"train_databases": 2, "dev_databases": 1, "test_databases": 1, "train_tasks": 40},
    "webshop": {},
    "reset_step": {"make": "tests.envs.test_reset_step:Corridor", "max_turns": 12} | WALK,
}
SLOW: dict[str, dict] = {
    "textworld": {"train_games": 4, "dev_games": 2, "test_games": 2, "families": ["quest"]},
    "alfworld": {},
    "scienceworld": {"families": ["find-living-thing", "lifespan-longest-lived"], "expert_workers": 1},
}
HUBS = ("openenv", "textarena")  # a server, and a package of its own
OTHERS = ("look", "inventory", "execute[SELECT 1", "execute[SHOW TABLES]", "click[b0nosuchprod]", "wait1", "")


def test_every_environment_is_here():
    assert {*FAST, *SLOW, *HUBS} == set(ENVIRONMENTS)


def played(env, task, number: int) -> Trajectory:
    """An episode of somebody who follows the expert, maybe with gaps, errs, says nothing, and goes on."""
    rng = np.random.default_rng([zlib.crc32(task.id.encode()), number])
    expert = env.expert(task)
    gaps = 0.2 if number % 2 else 0.0
    known = [turn.action for turn in expert.turns if rng.random() >= gaps] if expert else []
    if isinstance(env, TriesActions):
        known = [env.tries(task, rng) for _ in range(env.max_turns(task))]
    prompt, turns, reward, ending = env.reset(task), [], None, Ending.TURN_LIMIT
    while len(turns) < env.max_turns(task) and reward is None:
        errs = rng.random() < 0.3 or not known
        action = str(rng.choice(OTHERS)) if errs else known.pop(0)
        observation = "Invalid action"
        if action:
            answer = env.step(action)
            observation, reward = answer.observation, answer.reward if answer.done else None
        turns.append(Turn(response=format_response("", action), action=action, observation=observation))
    if reward is not None:
        ending = Ending.SOLVED if reward >= 1 else Ending.FAILED
    nothing = np.zeros(0)
    return Trajectory(
        task_id=task.id,
        agent="target",
        sample=number,
        prompt=prompt,
        turns=tuple(turns),
        reward=env.reward_at_limit() if reward is None else reward,
        ending=ending,
        tokens=nothing.astype(np.int32),
        agent_mask=nothing.astype(bool),
        logps=nothing.astype(np.float32),
    )


def comes_back(name: str, options: dict, count: int, folder) -> None:
    """Play, store, read, and play again both ways."""
    make, env = make_env(name, options), None
    try:
        env = make()
        assert env.deterministic
        tasks = [task for split in SPLITS for task in env.tasks(split)[: -(-count // len(SPLITS))]]
        if hasattr(env, "prepare_experts"):
            env.prepare_experts(tasks, lambda done, total: None)
        found = [played(env, tasks[number % len(tasks)], number) for number in range(count)]
    finally:
        if env is not None:
            env.close()
    assert len({one.ending for one in found}) > 1 and max(len(one.turns) for one in found) > 3
    path = folder / "stored.parquet"
    write_trajectories(path, found)
    stored = [
        Stored(where="stored", kind="explore", round=1, trajectory=one) for one in read_trajectories([path])
    ]
    config = Config.model_validate({"env": {"name": name, "workers": 2, "process_memory_mib": 2048}})
    for processes in (False, True):
        replaying = Replaying(
            episodes=stored,
            stored=len(stored),
            environment=name,
            deterministic=True,
            make=make,
            tasks={task.id: task for task in tasks},
            config=config,
            processes=processes,
        )
        again = list(replay_all(replaying))
        assert [one.stored for one in again] == stored
        assert [(one.stored.name, one.difference, one.fault) for one in again if not one.same] == []


@pytest.mark.parametrize("name", FAST)
def test_its_stored_episodes_come_back(name, tmp_path):
    comes_back(name, FAST[name], FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_200_of_its_stored_episodes_come_back(name, tmp_path):
    comes_back(name, FAST[name], 200, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_stored_episodes_of_its_games_come_back(name, tmp_path):
    options = SLOW[name]
    if name == "alfworld":
        options = {"data_path": str(write_download(tmp_path))}
    if name != "textworld":
        options = options | {"experts_path": str(tmp_path / "experts.jsonl")}
    comes_back(name, options, MANY or FEW // 2, tmp_path)


def test_stored_episodes_of_a_server_come_back(tmp_path):
    with serving() as server:
        comes_back("openenv", {"url": server.url, "max_turns": 12}, FEW, tmp_path)


@pytest.mark.skipif(find_spec("textarena") is None, reason="needs the package textarena")
def test_stored_episodes_of_textarenas_games_come_back(tmp_path):
    games = ["GuessTheNumber-v0", "Mastermind-v0", "FrozenLake-v0", "2048-v0-easy"]
    comes_back("textarena", {"games": games}, MANY or FEW, tmp_path)
