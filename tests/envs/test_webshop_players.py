"""The scripted players of WebShop: what they decide, at which rates, and that their episodes come back."""

import numpy as np
import pytest
from pydantic import ValidationError

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import says_invalid
from coevo_jax.envs.players import play_tasks
from coevo_jax.envs.webshop.environment import make_webshop
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.players import PLAYERS, WebShopHabits, check_world, lesson, skills
from coevo_jax.trajectory import Turn

OPTIONS = WebShopOptions(results_per_page=3, split_by="product")
HABITS = WebShopHabits()
RATES = tuple(name for name in WebShopHabits.model_fields if name != "seed")
NONE = HABITS.model_copy(update=dict.fromkeys(RATES, 0.0))
EPISODES = 300


@pytest.fixture(scope="module")
def env():
    instance = make_webshop(OPTIONS)
    yield instance
    instance.close()


@pytest.fixture(scope="module")
def experts(env):
    return [env.expert(task) for task in env.tasks("train")[:EPISODES]]


def played(env, habits, count=EPISODES):
    """The episodes of the first tasks as lists of actions, and their rewards."""
    episodes = [one for _, one in play_tasks(PLAYERS, env, "train", range(count), habits)]
    return [[turn.action for turn in one.turns] for one in episodes], [one.reward for one in episodes]


def plans(experts, count=EPISODES):
    return [[turn.action for turn in one.turns] for one in experts[:count]]


def near(found, rate):
    """Whether a share of draws lies within four standard deviations of its rate."""
    count = len(found)
    assert count > 100
    return abs(np.mean(found) - rate) < 4 * (rate * (1 - rate) / count) ** 0.5


def test_without_a_habit_players_do_as_the_expert_does(env, experts):
    actions, rewards = played(env, NONE, 100)
    assert actions == plans(experts, 100) and set(rewards) == {1.0}


def test_careful_players_are_a_share_of_all(env, experts):
    hasty = NONE.model_copy(update={"careful": 0.25, "short_query": 1.0})
    actions, _ = played(env, hasty)
    searched = [(ours[0], plan[0]) for ours, plan in zip(actions, plans(experts), strict=True)]
    assert near([ours == plan for ours, plan in searched], 0.25)


def test_searches_and_products_go_wrong_at_their_rates(env, experts):
    actions, _ = played(env, NONE.model_copy(update={"short_query": 0.4}))
    both = list(zip(actions, plans(experts), strict=True))
    assert near([ours[0] != plan[0] for ours, plan in both], 0.4)
    goals = [env.goal(task).query for task in env.tasks("train")[:EPISODES]]
    short = [ours[0] for ours, plan in both if ours[0] != plan[0]]
    assert set(short) <= {f"search[{query}]" for query in goals}

    sure = NONE.model_copy(update={"hasty": 1.0, "first": 1.0})
    first = [ours[1] for ours in played(env, sure)[0]]
    opened = [ours[1] for ours in played(env, sure.model_copy(update={"first": 0.4}))[0]]
    assert near([a == b for a, b in zip(first, opened, strict=True)], 0.4 + 0.6 / OPTIONS.results_per_page)


def test_options_are_skipped_and_mistaken_at_their_rates(env, experts):
    def missed(actions):
        both = zip(actions, plans(experts), strict=True)
        return [option not in ours for ours, plan in both for option in plan[2:-1]]

    actions, _ = played(env, NONE.model_copy(update={"skip_option": 0.35}))
    assert near(missed(actions), 0.35)
    actions, rewards = played(env, NONE.model_copy(update={"wrong_option": 0.3}))
    assert near(missed(actions), 0.3)
    assert min(rewards) < 1.0


def test_errors_are_handled_at_their_rates(env):
    lost = NONE.model_copy(update={"short_query": 1.0, "insist": 1.0, "first": 0.5})
    lost = lost.model_copy(update={"start_over": 0.3, "repeat": 0.2, "give_up": 0.25})
    followed = []
    for _, one in play_tasks(PLAYERS, env, "train", range(EPISODES), lost):
        errors = [i for i, turn in enumerate(one.turns) if says_invalid(turn.observation)]
        if not errors:
            continue
        action, after = one.turns[errors[0]].action, one.turns[errors[0] + 1].action
        followed.append("search" if after.startswith("search") else "same" if after == action else "on")
    assert near([what == "search" for what in followed], 0.3)
    assert near([what == "same" for what in followed], 0.2)


def test_who_checks_ends_with_the_experts_purchase(env):
    hasty = NONE.model_copy(update={"short_query": 1.0, "first": 1.0, "skip_option": 1.0})
    _, careless = played(env, hasty, 200)
    _, checked = played(env, hasty.model_copy(update={"check": 1.0}), 200)
    assert set(checked) == {1.0} and np.mean(careless) < 0.8


def test_what_was_played_depends_on_seed_and_place_and_comes_back(env):
    episodes = list(play_tasks(PLAYERS, env, "train", range(EPISODES), HABITS))
    assert list(play_tasks(PLAYERS, env, "train", range(30, 40), HABITS)) == episodes[30:40]
    other = HABITS.model_copy(update={"seed": 1})
    assert list(play_tasks(PLAYERS, env, "train", range(30, 40), other)) != episodes[30:40]
    for task, episode in episodes:
        assert env.reset(task) == episode.prompt
        results = [env.step(turn.action) for turn in episode.turns]
        assert [result.observation for result in results] == [turn.observation for turn in episode.turns]
        assert [result.done for result in results] == [False] * (len(results) - 1) + [True]
        assert results[-1].reward == episode.reward and len(results) <= OPTIONS.max_turns
    failures = [one.reward for _, one in episodes if one.reward < 1]
    assert len(failures) > 50 and np.mean([reward > 0.2 for reward in failures]) > 0.8  # graded, not zero
    assert sum(any(says_invalid(turn.observation) for turn in one.turns) for _, one in episodes) > 25


def test_skills_tell_words_that_were_copied_and_clicks_that_were_offered():
    prompt = (
        "WebShop [SEP] Instruction: [SEP] find me a non stick pan in green, 12 inch, and price [SEP] Search"
    )

    def shown(*turns):
        return skills(prompt, [Turn(response="", action=a, observation=o) for a, o in turns])

    assert shown(("search[non stick pan green]", "a page"), ("click[B0]", "Invalid action: no")) == {
        "copied": True,
        "opened": False,
    }
    assert shown(("search[red pan]", "a page"), ("click[B0]", "its page")) == {
        "copied": False,
        "opened": True,
    }
    assert shown(("look", "Invalid action")) == {}

    values = ("color", "green", "blue", "size", "2 inch", "12 inch")
    parts = ("Instruction:", "find me", "Back to Search", "< Prev", *values)
    page = " [SEP] ".join((*parts, "A Pan", "Price: $5", "Rating: N.A.", "Buy Now"))
    opened, bought = ("click[B0BABABABA]", page), ("click[Buy Now]", "Thank you")

    def options(*clicks):
        found = shown(opened, *((f"click[{one}]", page) for one in clicks), bought)
        return found.get("wanted"), found.get("chosen")

    assert options("green", "12 inch") == (True, True)
    assert options("green") == (True, False) and options() == (None, False)
    assert options("blue", "12 inch") == (False, False)
    assert options("2 inch", "green", "12 inch") == (False, True)
    other = ("click[B0BEBEBEBE]", page.replace("green", "gray").replace("12 inch", "14 inch"))
    assert "chosen" not in shown(opened, other, bought)  # which has none of the instruction's
    assert shown(opened, other, ("click[Back to Search]", "x"), opened, bought)["chosen"] is False
    assert "chosen" not in shown(opened)  # bought nothing


def test_experts_show_every_skill(experts):
    """But for a title as their search, and a value that the reward takes for the wanted one ("4 ounce")."""
    found = [skills(one.prompt, one.turns) for one in experts]
    for skill, least in {"copied": 0.97, "opened": 1.0, "wanted": 0.94, "chosen": 1.0}.items():
        own = [one[skill] for one in found if skill in one]
        assert len(own) > 250 and np.mean(own) >= least, skill


def test_a_base_learns_over_a_catalogue_of_another_seed(tmp_path):
    taught = lesson(OPTIONS, HABITS, 1000, 3000)
    assert (taught.options.seed, taught.options.products, taught.episodes) == (1000, 1500, 3000)
    assert (taught.options.results_per_page, taught.habits) == (3, HABITS)
    assert len(make_webshop(taught.options).tasks("train")) >= 3000
    with pytest.raises(ConfigError, match="found data_path"):
        lesson(WebShopOptions(data_path=str(tmp_path)), HABITS, 1000, 3000)


def test_what_no_player_can_play_is_refused():
    check_world(OPTIONS)
    with pytest.raises(ConfigError, match="found max_turns 5, expected at least 6"):
        check_world(WebShopOptions(max_turns=5))
    with pytest.raises(ValidationError, match="at most 1 together"):
        WebShopHabits(start_over=0.6, give_up=0.5)
