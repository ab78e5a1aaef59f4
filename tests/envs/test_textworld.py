"""TextWorld: games made and replayed, text, splits, restart of the making, faults, bad input."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, Env, EnvFault, PreparesExperts
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.textworld.environment import make_textworld
from coevo_jax.envs.textworld.games import cache_folder, game_request, planned_tasks
from coevo_jax.envs.textworld.generate import generate_textworld, make_game
from coevo_jax.envs.textworld.interpreter import Interpreter
from coevo_jax.envs.textworld.making import SPLIT_QUARTERS, without_detours
from coevo_jax.envs.textworld.options import TextWorldOptions
from coevo_jax.envs.textworld.text import clean, refused, with_commands
from tests.stopping import stop

MADE = TextWorldOptions(
    families=("quest",), quest_length=(2, 3), train_games=1, dev_games=1, test_games=1, workers=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("textworld")
    calls = []
    generate_textworld(MADE, out, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    return out


@pytest.fixture(scope="module")
def env(folder):
    env = make_textworld(TextWorldOptions(games_path=str(folder)))
    yield env
    env.close()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.slow
def test_every_expert_wins_again_and_sees_what_was_recorded(env):
    assert isinstance(env, Env) and isinstance(env, PreparesExperts)
    played = [task for split in SPLITS for task in env.tasks(split)]
    assert sorted(task.id for task in played) == [
        "quest/dev-0",
        "quest/test-0",
        "quest/train-0",
    ]
    for task in played:
        expert = env.expert(task)
        assert env.max_turns(task) == 2 * len(expert.turns) + 5
        assert env.reset(task) == expert.prompt
        for number, turn in enumerate(expert.turns, start=1):
            result = env.step(turn.action)
            assert result.observation == turn.observation
            assert result.done == (number == len(expert.turns))
        assert result.reward == expert.reward == 1.0
        assert "*** The End ***" in result.observation
        assert "$$" not in expert.prompt and "\n>" not in expert.prompt


def test_malformed_actions_change_nothing(env):
    task = env.tasks("train")[0]
    expert = env.expert(task)
    env.reset(task)
    for action in (
        "",
        "x" * 100_000,
        "\x00\x01é",
        "look. quit",
        "undo",
        "tw-print max_score",
        "sing loudly to it",
    ):
        result = env.step(action)
        assert result.observation.startswith("Invalid action"), action
        assert (result.done, result.reward) == (False, 0.0)
    assert env.reward_at_limit() == 0.0
    assert [env.step(turn.action).observation for turn in expert.turns] == [
        turn.observation for turn in expert.turns
    ]
    with pytest.raises(RuntimeError, match="reset"):
        env.step("look")


def test_a_game_that_dies_is_a_fault(folder):
    killed = make_textworld(TextWorldOptions(games_path=str(folder)))
    task = killed.tasks("train")[0]
    assert killed.reset(task) == killed.expert(task).prompt
    os.kill(killed.interpreter_pid, signal.SIGKILL)
    with pytest.raises(EnvFault, match="process"):
        killed.step("look")
    killed.close()


@pytest.mark.slow
def test_a_game_that_hangs_ends_when_it_is_closed(folder):
    hung = make_textworld(TextWorldOptions(games_path=str(folder)))
    task = hung.tasks("train")[0]
    hung.reset(task)
    pid = hung.interpreter_pid
    stop(pid)
    faults = []

    def play():
        try:
            hung.step("look")
        except EnvFault as fault:
            faults.append(fault)

    thread = threading.Thread(target=play)
    thread.start()
    time.sleep(0.1)
    hung.close()
    thread.join(10)
    assert len(faults) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    hung.close()
    with pytest.raises(EnvFault, match="closed"):
        hung.reset(task)


@pytest.mark.slow
def test_making_goes_on_where_it_stopped_and_makes_the_same_bytes(folder):
    before = files(folder)
    for ending in (".task.json", ".z8"):
        (folder / f"quest/dev-0{ending}").unlink()
    calls = []
    generate_textworld(MADE, folder, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 1)]
    assert files(folder) == before
    assert sorted(path.split(".")[0] for path in before if path.endswith(".z8")) == [
        "quest/dev-0",
        "quest/test-0",
        "quest/train-0",
    ]


def test_commands_are_shown_on_request(folder):
    env = make_textworld(TextWorldOptions(games_path=str(folder), show_commands=True))
    task = env.tasks("train")[0]
    assert env.expert(task).turns[0].action in env.expert(task).prompt.splitlines()[-1]
    env.close()


def test_a_plan_is_disjoint_and_keeps_its_games_when_it_grows():
    few, many = TextWorldOptions(train_games=8), TextWorldOptions(train_games=40)
    assert cache_folder(few) == cache_folder(many) != cache_folder(TextWorldOptions(seed=1))
    plan, more = planned_tasks(few), planned_tasks(many)
    assert {task.id for task in plan["train"]} < {task.id for task in more["train"]}
    assert [len(plan[split]) for split in SPLITS] == [8, 40, 60]
    assert {task.family for task in plan["train"]} == set(few.families)
    for task in plan["train"]:
        assert game_request(few, task, Path("x")) == game_request(many, task, Path("x"))
    assert plan["train"] != tuple(sorted(plan["train"], key=lambda task: task.id))
    quarters = [quarter for split in SPLITS for quarter in SPLIT_QUARTERS[split]]
    assert sorted(quarters) == [0, 1, 2, 3]  # of the games' content: no game is in two splits


def test_walkthroughs_lose_their_detours():
    walkthrough = [
        "inventory",
        "open fridge",
        "take egg from fridge",
        "open fridge",
        "drop knife",
        "take knife",
    ]
    assert without_detours(walkthrough) == ["open fridge", "take egg from fridge"]
    assert without_detours(["drop knife", "take egg"]) == ["drop knife", "take egg"]


def test_text_is_freed_of_its_frame():
    title = "\n\n   ____ \n  |    $$\\  \n   \\$$  \\$$ \n"
    title += "\nWelcome! Find it.\n\n\n\n-= Attic =-\nDark.  \n\n>      -= Attic =-0/1"
    assert clean(title) == "Welcome! Find it.\n\n-= Attic =-\nDark."
    end = f"Taken.\n\n{' ' * 40}*** The End ***\n\nYou scored 1.\n\n"
    end += "Would you like to RESTART, RESTORE a saved game?\n> "
    assert clean(end) == "Taken.\n\n*** The End ***\n\nYou scored 1."
    assert clean("That's not a verb I recognise.\n\n>") == "Invalid action. That's not a verb I recognise."
    assert with_commands("abcdef", ["look", "go east"], 3, True) == "abc\nCommands: look, go east"
    assert with_commands("abcdef", ["look"], 3, False) == "abc"


@pytest.mark.parametrize(
    "action", ["go north", "open gate.", "take Henderson's latchkey from box", "look", "x key"]
)
def test_commands_of_the_game_pass(action):
    assert refused(action) is None


@pytest.mark.parametrize(
    "action", ["", "  ", "Restart", "quit", "save", "g", "go east then look", "a\nb", "é", "y" * 191]
)
def test_what_is_no_command_is_refused(action):
    assert refused(action).startswith("Invalid action")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["chess"]}, "one of quest, coin, treasure, cooking"),
        ({"families": ["cookin"]}, "did you mean 'cooking'"),
        ({"world_size": [4, 3]}, r"world_size as \[fewest, most\] between 1 and 25"),
        ({"quest_length": [0, 3]}, "quest_length as"),
        ({"games_path": "x", "seed": 1}, r"no option of making beside games_path \(.*: seed\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        make_env("textworld", options)


def test_bad_folders(tmp_path, folder):
    def error(index: str | None) -> str:
        if index is not None:
            (tmp_path / "games.jsonl").write_text(index)
        with pytest.raises(ConfigError) as caught:
            make_textworld(TextWorldOptions(games_path=str(tmp_path)))
        return str(caught.value)

    assert "games.jsonl: found no readable text" in error(None)
    line = (folder / "games.jsonl").read_text().splitlines()[0]
    assert "games.jsonl:1: found '{', expected a JSON object" in error("{\n")
    assert "games.jsonl:1: file: found no" in error(line)
    assert "games.jsonl: found no game" in error("")
    with pytest.raises(ConfigError, match="games_path"):
        generate_textworld(TextWorldOptions(games_path="x"), tmp_path, print)


def test_settings_without_a_game_are_an_error(tmp_path):
    class NoGame(Interpreter):
        def call(self, request):
            return None

    task = planned_tasks(MADE)["train"][0]
    with pytest.raises(
        ConfigError, match=r"found no quest game of settings .*'quest_length': [23].*world_size"
    ):
        make_game(NoGame(), MADE, task, tmp_path)


@pytest.mark.slow
def test_every_family_in_every_split(tmp_path, monkeypatch):
    monkeypatch.setenv("COEVO_CACHE", str(tmp_path))
    env = make_textworld(TextWorldOptions(train_games=8, dev_games=4, test_games=4))
    tasks = [task for split in SPLITS for task in env.tasks(split)]
    env.prepare_experts(tasks, lambda done, total: None)
    prompts = set()
    for task in tasks:
        expert = env.expert(task)
        env.reset(task)
        rewards = [env.step(turn.action).reward for turn in expert.turns]
        assert rewards == sorted(rewards) and rewards[-1] == 1.0
        assert task.family != "cooking" or 0 < rewards[-2] < 1
        prompts.add((expert.prompt, tuple(turn.action for turn in expert.turns)))
    assert len(prompts) == len(tasks)
    env.close()


@pytest.mark.slow
def test_a_lost_game_earns_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("COEVO_CACHE", str(tmp_path))
    env = make_textworld(TextWorldOptions(families=("cooking",), train_games=1, quest_length=(2, 2)))
    [task] = env.tasks("train")
    food = next(
        t.action for t in env.expert(task).turns if t.action.startswith("take ") and "knife" not in t.action
    )
    env.reset(task)
    for turn in env.expert(task).turns:
        env.step(turn.action)
        if turn.action == food:
            break
    assert env.reward_at_limit() > 0
    name = food.removeprefix("take ").split(" from ")[0]
    for action in ("eat", "drink", "drop", "eat"):
        result = env.step(f"{action} {name}")
        if result.done:
            break
    assert (result.done, result.reward, env.reward_at_limit()) == (True, 0.0, 0.0)
    env.close()
