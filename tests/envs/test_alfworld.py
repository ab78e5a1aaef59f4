"""ALFWorld: made-up games in the download's layout, really run; what is missing is named."""

import importlib.metadata
import json
import os
import signal
import sys

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.alfworld import games
from coevo_jax.envs.alfworld.environment import make_alfworld
from coevo_jax.envs.alfworld.options import AlfWorldOptions
from coevo_jax.envs.env import SPLITS, Env, EnvFault, PreparesExperts
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.textworld.playing import readable_names
from tests.envs.tiny_alfworld import FAMILIES, write_download, write_game

CLEAN = [
    "go to fridge 1",
    "open fridge 1",
    "take apple 2 from fridge 1",
    "go to sinkbasin 1",
    "clean apple 2 with sinkbasin 1",
    "go to table 1",
    "move apple 2 to table 1",
]


@pytest.mark.parametrize("version", [(3, 13), (3, 14)])
def test_a_python_that_cannot_run_the_games_is_refused_with_the_reason(version):
    words = f"found Python 3.{version[1]}, expected 3.11 or 3.12: TextWorld's runner .*PEP 667"
    with pytest.raises(ConfigError, match=words):
        games.check_planner(version)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    if sys.version_info >= (3, 13):
        pytest.skip("TextWorld cannot run ALFWorld's games on Python 3.13")
    root = write_download(tmp_path_factory.mktemp("alfworld"))
    trial = root / "train" / f"{FAMILIES[1]}-Mug-1" / "trial_1"
    write_game(trial, FAMILIES[1], walkthrough=["look", *CLEAN])
    return root


@pytest.fixture(scope="module")
def env(data):
    env = make_alfworld(AlfWorldOptions(data_path=str(data), experts_path=str(data / "experts.jsonl")))
    calls = []
    env.prepare_experts(env.tasks("train"), lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    env.prepare_experts(env.tasks("train"), lambda done, total: calls.append((done, total)))
    assert len(calls) == 3
    yield env
    env.close()


def test_splits_and_families(data, env):
    assert isinstance(env, Env) and isinstance(env, PreparesExperts)
    assert [len(env.tasks(split)) for split in SPLITS] == [3, 2, 2]
    names = [task.id for split in SPLITS for task in env.tasks(split)]
    assert len(set(names)) == 7 and not any("Sliced" in name for name in names)
    assert {task.id.split("/")[0] for task in env.tasks("dev")} == {"valid_seen"}
    assert {task.id.split("/")[0] for task in env.tasks("test")} == {"valid_unseen"}
    one = make_alfworld(AlfWorldOptions(data_path=str(data), families=(FAMILIES[0],), test_tasks=1))
    assert [len(one.tasks(split)) for split in SPLITS] == [1, 1, 1]
    one.close()


def test_experts_win_again_by_walkthrough_or_planner(env):
    experts = {task.id: env.expert(task) for task in env.tasks("train")}
    actions = {name: [turn.action for turn in expert.turns] for name, expert in experts.items()}
    assert actions[f"train/{FAMILIES[1]}-Mug-1/trial_1"] == ["look", *CLEAN]
    assert actions[f"train/{FAMILIES[1]}-Apple-None-Table-1/trial_1"] == CLEAN
    assert env.expert(env.tasks("test")[0]) is None  # never prepared
    for task in env.tasks("train"):
        expert = experts[task.id]
        assert env.reset(task) == expert.prompt
        results = [env.step(turn.action) for turn in expert.turns]
        assert [result.observation for result in results] == [turn.observation for turn in expert.turns]
        assert [result.done for result in results] == [False] * (len(results) - 1) + [True]
        assert results[-1].reward == 1.0 and results[0].reward == 0.0


def test_what_an_episode_says(env):
    task = next(task for task in env.tasks("dev") if task.family == FAMILIES[0])
    assert env.reset(task) == (
        "You see a fridge 1, a sinkbasin 1, and a table 1.\n\n"
        "Your task is to: put the cold apple on the table."
    )
    assert env.step("go to fridge 1").observation == "You arrive at fridge 1. The fridge 1 is closed."
    assert env.step("Open fridge 1.").observation == "You open the fridge 1. In it is a apple 2, and a mug 1."
    assert env.step("take pear 1 from fridge 1").observation == "Nothing happens."
    for action in ("sing", "", "go to table 1. look", "\x00", "x" * 100_000):
        result = env.step(action)
        assert result.observation.startswith("Invalid action") and not result.done, action
    assert env.reward_at_limit() == 0.0


def test_objects_are_numbered_as_alfworld_does():
    names = readable_names(["sink_bar_2_bar_sinkbasin", "sink_bar_2", "cup_bar_1", "cup_bar_2", "agent1"])
    assert names == {
        "agent1": "agent1",
        "cup_bar_1": "cup 2",
        "cup_bar_2": "cup 1",
        "sink_bar_2": "sink 1",
        "sink_bar_2_bar_sinkbasin": "sinkbasin 1",
    }


@pytest.mark.slow
def test_a_killed_game_is_a_fault(data):
    env = make_alfworld(AlfWorldOptions(data_path=str(data)))
    env.reset(env.tasks("dev")[0])
    os.kill(env.interpreter_pid, signal.SIGKILL)
    with pytest.raises(EnvFault, match="process"):
        env.step("look")
    env.close()
    env.close()


def test_what_is_missing_is_named(tmp_path, data, monkeypatch):
    def error() -> str:
        with pytest.raises(ConfigError) as caught:
            make_env("alfworld", {"data_path": str(tmp_path)})()
        return str(caught.value)

    message = error()
    assert f"{tmp_path}: found no folder train, valid_seen, valid_unseen" in message
    assert "alfworld-download" in message and "game.tw-pddl" in message and "traj_data.json" in message
    for name in games.FOLDERS.values():
        (tmp_path / name).mkdir()
    assert f"{tmp_path / 'train'}: found no playable game.tw-pddl" in error()
    write_game(tmp_path / "train" / "a", FAMILIES[0])
    (tmp_path / "train" / "a" / "traj_data.json").unlink()
    assert "traj_data.json: cannot be read" in error()
    (tmp_path / "train" / "a" / "traj_data.json").write_text(json.dumps({}))
    assert "task_type: found None" in error()
    (tmp_path / "train" / "a" / "game.tw-pddl").write_text("{")
    assert "game.tw-pddl: found b'{', expected a JSON object" in error()

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(games.importlib.metadata, "version", absent)
    with pytest.raises(ConfigError, match="pip install"):
        make_alfworld(AlfWorldOptions(data_path=str(data)))


def test_the_default_folder_follows_alfworlds_own_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"json_2\.1\.1: found no folder train"):
        make_alfworld(AlfWorldOptions())
    with pytest.raises(ConfigError, match="did you mean 'look_at_obj_in_light'"):
        make_env("alfworld", {"families": ["look_at_obj_in_lights"]})
