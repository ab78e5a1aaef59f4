"""What answers list as actions, read off their texts."""

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import OffersActions, offer_test
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.textworld.text import commands_in, with_commands
from coevo_jax.phases.world import check_world
from tests.letters_env import LettersEnv, LettersOptions
from tests.tiny import tiny_config


def test_commands_are_those_that_are_shown():
    shown = with_commands("A room.", ["go east", "take coin"], 99, show=True)
    assert commands_in(shown) == ["go east", "take coin"]
    assert commands_in(with_commands("A room.", ["go east"], 99, show=False)) == []


def test_every_button_of_a_shops_page_is_offered_and_can_be_clicked():
    env = make_env("webshop", {})()
    assert isinstance(env, OffersActions)
    task = next(task for task in env.tasks("train") if env.expert(task))
    expert = env.expert(task)
    assert expert is not None
    page = env.reset(task)
    assert not env.offered(page)  # the search page has words to be found, and no button
    for turn in expert.turns:
        if turn.action.startswith("click"):
            offered = [one.lower() for one in env.offered(page)]
            assert turn.action.lower() in offered and len(offered) > 2
        page = env.step(turn.action).observation
    env.close()


def test_an_environment_that_does_not_say_offers_nothing():
    assert offer_test(LettersEnv(LettersOptions()))("anything") == ()


def test_choices_alone_are_refused_where_nothing_is_listed(letters, tmp_path):
    recipe = ("recipe=daug", "agents={}")
    check_world(tiny_config(tmp_path, *recipe))
    alone = ("recipe.explore_corrected.hints.operations=[other_choice]",)
    with pytest.raises(ConfigError, match="letters does not say which actions its answers list"):
        check_world(tiny_config(tmp_path, *recipe, *alone))
