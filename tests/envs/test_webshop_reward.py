"""WebShop's reward by hand and by property, and its noun taggers."""

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.webshop import nouns as nouns_module
from coevo_jax.envs.webshop.catalogue import Product
from coevo_jax.envs.webshop.environment import make_webshop
from coevo_jax.envs.webshop.goals import Goal
from coevo_jax.envs.webshop.nouns import nouns_by_words
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.reward import normal_color, option_matches, similar, type_factor, webshop_reward
from coevo_jax.envs.webshop.shop import open_world


def product(**changes) -> Product:
    fields = {
        "asin": "B0",
        "name": "Velora Wireless Earbuds",
        "category": "electronics",
        "query": "wireless earbuds",
        "product_category": "Electronics › Headphones › Earbuds",
        "description": "Made for Runners",
        "bullets": ("Noise cancelling",),
        "price_tag": "$20.0",
        "low": 20.0,
        "high": 20.0,
        "options": {"color": ("black", "navy blue"), "size": ("small", "large")},
        "attributes": ("fast charging", "hands free"),
        "instruction": None,
        "instruction_attributes": (),
        "human": (),
    }
    return Product(**fields | changes)


def goal(**changes) -> Goal:
    fields = {
        "id": "B0/0",
        "asin": "B0",
        "category": "electronics",
        "query": "wireless earbuds",
        "name": "Velora Wireless Earbuds",
        "product_category": "Electronics › Headphones › Earbuds",
        "instruction": "",
        "attributes": ("fast charging", "hands free"),
        "options": ("black", "large"),
        "option_names": (),
        "price_upper": 30.0,
    }
    return Goal(**fields | changes)


@pytest.mark.parametrize(
    ("bought", "price", "chosen", "wanted", "expected"),
    [
        ({}, 20.0, ("black", "large"), {}, 1.0),  # 2 attributes, 2 options, price: 5 of 5
        ({}, 30.0, ("black", "large"), {}, 1.0),  # the limit itself is within it
        ({}, 30.01, ("black", "large"), {}, 4 / 5),
        ({}, 20.0, (), {}, 3 / 5),
        ({}, 20.0, ("black",), {}, 4 / 5),
        ({}, 20.0, ("red", "small"), {}, 3 / 5),
        ({"attributes": ("hands free",)}, 20.0, ("black", "large"), {}, 4 / 5),
        ({"attributes": ("charging fast",)}, 20.0, ("black", "large"), {}, 4 / 5),  # order does not count
        ({"attributes": ()}, 20.0, (), {"attributes": ("noise cancelling",), "options": ()}, 1.0),  # feature
        ({"attributes": ()}, 20.0, (), {"attributes": ("runners",), "options": ()}, 1.0),  # description
        ({"attributes": ()}, 20.0, (), {"attributes": ("wireless",), "options": ()}, 1.0),  # title
        ({"attributes": ()}, 20.0, (), {"attributes": ("Runners",), "options": ()}, 1 / 2),  # wrong case
        # Another kind of product: one of three nouns shared (1/3 > 0.2), nothing else: still the type.
        ({"query": "x", "product_category": "A › B", "name": "Velora Lamp"}, 20.0, (), {"options": ()}, 1.0),
        # One of six nouns (0.17), no query, one category: half.
        (
            {"query": "x", "product_category": "Electronics › B", "name": "Velora"},
            20.0,
            (),
            {"options": (), "name": "Velora Wireless Earbuds Charging Case Set"},
            0.5,
        ),
        # The same with two categories: whole.
        (
            {"query": "x", "product_category": "Headphones › Electronics", "name": "Velora"},
            20.0,
            (),
            {"options": (), "name": "Velora Wireless Earbuds Charging Case Set"},
            1.0,
        ),
        # One of eleven nouns (0.09): a tenth, even for the same query.
        ({"name": "K"}, 20.0, (), {"options": (), "name": "A B C D E F G H I J K L".replace("A ", "")}, 0.1),
        # No noun shared: nothing.
        ({"name": "Norvik Lamp"}, 20.0, ("black", "large"), {}, 0.0),
    ],
)
def test_reward_by_hand(bought, price, chosen, wanted, expected):
    assert webshop_reward(product(**bought), price, chosen, goal(**wanted), nouns_by_words) == pytest.approx(
        expected
    )


def test_repeated_nouns_count_below_only():
    wanted = goal(name="cable cable cable cable cable cable", query="y", product_category="Z")
    assert type_factor(product(name="Cable", query="x"), wanted, nouns_by_words) == 0.5  # 1/6


def test_a_title_without_nouns_is_no_fault():
    assert type_factor(product(), goal(name="2-in-1 (3.5)"), lambda title: ()) == 1.0
    assert type_factor(product(query="x", product_category="Q"), goal(), lambda title: ()) == 0.5  # 0.2


@pytest.mark.parametrize(
    ("value", "color"),
    [("", ""), ("navy blue", "blue"), ("black forest", "black"), ("violet lavender", "lavender"), ("x", "x")],
)
def test_normal_color(value, color):
    assert normal_color(value) == color


@pytest.mark.parametrize(
    ("value", "option", "name", "matches"),
    [
        ("navy blue", "light blue", None, True),  # both are blue
        ("navy", "light blue", None, False),
        ("large", "x-large", None, True),  # a subset of the words: upstream's leniency
        ("x-large", "xx-large", None, True),  # 93: so is this
        ("small", "large", None, False),
        ("3 ounce (pack of 1)", "3 ounce", None, True),
        ("6 feet", "10 feet", None, False),
        ("navy blue", "navy blue", "color", True),
        ("peppermint", "peppermint", "scent", False),  # its colour is "mint": as upstream, out of reach
    ],
)
def test_option_matches(value, option, name, matches):
    assert option_matches(value, option, name) == matches


def test_similar_rounds_and_drops_latin_1():
    assert similar("Café", "caf")
    # 2 * 6 / (6 + 8) = 85.7 is rounded to 86, which passes 85; 85.4 does not.
    assert fuzz.token_set_ratio("abcdef", "abcdefgh") == pytest.approx(85.71, abs=0.01)
    assert similar("abcdef", "abcdefgh")
    assert not similar("abcdefghijklmnopq", "abcdefghijklmnxyzuvwpq")


TEXT = st.text(st.sampled_from("abc red blue large'-é›"), max_size=12)
PRODUCT = st.builds(
    product,
    name=TEXT,
    query=TEXT,
    product_category=TEXT,
    description=TEXT,
    bullets=st.lists(TEXT, max_size=2).map(tuple),
    attributes=st.lists(TEXT, max_size=3).map(tuple),
)
GOAL = st.builds(
    goal,
    name=TEXT,
    query=TEXT,
    product_category=TEXT,
    attributes=st.lists(TEXT, max_size=3).map(tuple),
    options=st.lists(TEXT, max_size=3).map(tuple),
    price_upper=st.floats(1, 100),
)


@given(PRODUCT, st.floats(0, 200), st.lists(TEXT, max_size=3), GOAL)
def test_reward_lies_in_the_unit_interval(bought, price, chosen, wanted):
    assert 0.0 <= webshop_reward(bought, price, chosen, wanted, nouns_by_words) <= 1.0


@given(PRODUCT, st.floats(0, 200), st.lists(TEXT, max_size=3), GOAL)
def test_a_price_over_the_limit_loses_its_share(bought, price, chosen, wanted):
    within = webshop_reward(bought, wanted.price_upper, chosen, wanted, nouns_by_words)
    over = webshop_reward(bought, wanted.price_upper + 0.01, chosen, wanted, nouns_by_words)
    parts = len(wanted.attributes) + len(wanted.options) + 1
    assert within - over == pytest.approx(type_factor(bought, wanted, nouns_by_words) / parts)


@given(st.integers(0, 2999))
def test_buying_the_goal_product_with_its_options_earns_one(number):
    world = open_world(WebShopOptions())
    wanted = list(world.goals.values())[number]
    bought = world.products[world.positions[wanted.asin]]
    price = world.prices[wanted.asin]
    assert price < wanted.price_upper
    assert webshop_reward(bought, price, wanted.options, wanted, nouns_by_words) == 1.0


def test_nouns_by_words():
    assert nouns_by_words("The Mom's T-Shirt for 2 of 3-Pack Übung") == ("mom's", "t-shirt", "pack", "übung")


def test_missing_spacy_and_missing_model_are_said(monkeypatch):
    class NoModel:
        @staticmethod
        def load(name):
            raise OSError(name)

    def missing(name):
        raise ImportError(name)

    nouns_module.noun_tagger.cache_clear()
    monkeypatch.setattr(nouns_module.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="noun_tagger: found 'spacy', but spaCy is not installed"):
        make_webshop(WebShopOptions(noun_tagger="spacy"))
    monkeypatch.setattr(nouns_module.importlib, "import_module", lambda name: NoModel)
    with pytest.raises(ConfigError, match="noun_tagger: found 'spacy', but its model en_core_web_sm is not"):
        make_webshop(WebShopOptions(noun_tagger="spacy"))


@pytest.mark.skipif(importlib.util.find_spec("en_core_web_sm") is None, reason="needs spaCy's model")
def test_spacy_tags_nouns():
    assert "shoe" in nouns_module.noun_tagger("spacy")("adidas Basketball Shoe")
