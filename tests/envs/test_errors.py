"""Which answers of the shipped environments are errors: played where that is quick, else as once read."""

import pytest

from coevo_jax.envs.alfworld.environment import AlfWorldEnv
from coevo_jax.envs.alfworld.options import AlfWorldOptions
from coevo_jax.envs.env import TellsErrors, error_test
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.scienceworld.environment import ScienceWorld
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from coevo_jax.envs.textworld.environment import Shelf, TextWorldEnv
from coevo_jax.envs.textworld.options import TextWorldOptions

SMALL = {"train_databases": 2, "dev_databases": 1, "test_databases": 1, "train_tasks": 8}

SCIENCEWORLD_ERRORS = (
    "Invalid action. No known action matches that input.",
    "Ambiguous request: Please enter the number for the action you intended (or blank to cancel):\n0:\tlook",
    "It's not clear how to flush that.",
    "It's not clear how to get there from here.",
    "I'm not sure how to use the stove.",
    "The table is not something that can be activated.",
    "The table is not edible.",
    "The sink is not moveable.",
    "The fridge isn't open, so you can't see inside.",
    "That thing doesn't appear to have a temperature that the thermometer can read.",
)
SCIENCEWORLD_ANSWERS = (
    "The door is already open.",
    "The stove is now activated.",
    "The orange was delicious.",
    "You move to the kitchen.",
    "This room is called the kitchen. In it, you see: \n\ta fridge. The fridge door is closed. ",
    "There is nothing in the cup",
    "a cupboard. The cupboard door is closed. ",
)
TEXTWORLD_ERRORS = (
    "Invalid action. That's not a verb I recognise.",
    "You can't see any such thing.",
    "You can't go that way.",
    "You have to open the gateway first.",
    "You haven't got that.",
    "You need to take the coin first.",
    "You still miss something.",
    "What do you want to unlock the frosted-glass door with?",
    "That's plainly inedible.",
    "It isn't something you can open.",
    "That doesn't seem to fit the lock.",
    "The fridge is fixed in place.",
    "The box is closed.",
    "(with the latchkey)\nThat doesn't seem to be something you can unlock.",
    "(with the meal)\nCutting something requires a knife.\nCommands: go east, take meal",
)
TEXTWORLD_ANSWERS = (
    "You open the box.",
    "That's already open.",
    "The yellow potato is already here.",
    "You are carrying nothing.",
    "You couldn't pay me to eat that standard thing.",
    "-= Kitchen =-\nYou can't miss the fridge. The fridge is closed.",
    "It is what it is, a frosted-glass door. You can't see inside it",
    "The fridge looks rugged. It is closed.",
    "(the shirt)\nYou pick up the shirt from the ground.",
    "",
)


def test_scienceworld():
    is_error = error_test(ScienceWorld(ScienceWorldOptions(), java="never started"))
    assert [text for text in SCIENCEWORLD_ERRORS if not is_error(text)] == []
    assert [text for text in SCIENCEWORLD_ANSWERS if is_error(text)] == []


def test_textworld(tmp_path):
    is_error = error_test(TextWorldEnv(TextWorldOptions(), Shelf(folder=tmp_path, splits={}, records={})))
    assert [text for text in TEXTWORLD_ERRORS if not is_error(text)] == []
    assert [text for text in TEXTWORLD_ANSWERS if is_error(text)] == []


def test_alfworld(tmp_path):
    is_error = error_test(AlfWorldEnv(AlfWorldOptions(data_path=str(tmp_path)), tmp_path, {}))
    errors = ("Nothing happens.", "Nothing happens.\nCommands: look", "Invalid action. Nothing happens.")
    assert all(map(is_error, errors))
    assert not any(map(is_error, ("You arrive at desk 1. On it, nothing happens.", "The drawer 1 is open.")))


def test_sql_errors_are_the_engines():
    env = make_env("intercode_sql", SMALL)()
    is_error = error_test(env)
    env.reset(env.tasks("train")[0])
    actions = {
        "execute[SHOW TABLES]": False,
        "execute[SELECT 1 WHERE 0]": False,  # no row is an answer
        "execute[SELECT 'Error: x']": False,
        "execute[SELECT nothing FROM nowhere]": True,
        "execute[SELEC 1]": True,
        "execute[DROP TABLE x]": True,
        "SHOW TABLES": True,
        "submit": False,
    }
    assert {action: is_error(env.step(action).observation) for action in actions} == actions
    env.close()


def test_a_shop_answers_either_with_a_page_or_an_invalid_action():
    env = make_env("webshop", {})()
    is_error = error_test(env)
    assert not isinstance(env, TellsErrors)  # the wording says it all
    env.reset(env.tasks("train")[0])
    actions = {
        "search[red shoes]": False,
        "click[nothing]": True,
        "buy": True,
        "click[back to search]": False,
    }
    assert {action: is_error(env.step(action).observation) for action in actions} == actions
    env.close()


@pytest.mark.parametrize("name", ["intercode_sql", "webshop"])
def test_experts_make_no_error(name):
    env = make_env(name, SMALL if name == "intercode_sql" else {})()
    is_error = error_test(env)
    demonstrations = [env.expert(task) for task in env.tasks("train")[:8]]
    told = [turn.observation for one in demonstrations if one is not None for turn in one.turns]
    assert len(told) > 10 and not any(map(is_error, told))
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "actions"),
    [
        (
            "scienceworld",
            {"families": ["find-living-thing"]},
            {"look around": False, "dance": True, "teleport to kitchen": False, "flush sink": True}
            | {"read stove": True, "open fridge": False, "look in fridge": False, "move sink to table": True}
            | {"open door to hallway": False, "inventory": False},
        ),
        (
            "textworld",
            {"train_games": 2, "dev_games": 1, "test_games": 1},
            {"look": False, "dance": True, "take nothing": True, "go up": True, "inventory": False},
        ),
    ],
)
def test_the_real_games_answers(name, options, actions):
    env = make_env(name, options)()
    is_error = error_test(env)
    env.reset(env.tasks("train")[0])
    assert {action: is_error(env.step(action).observation) for action in actions} == actions
    env.close()
