"""WebShop: pages and actions, splits, prices, experts, bad input, the cost of a step."""

import json
import time

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, Env, Task
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.webshop.environment import INVALID_ACTION, make_webshop
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.pages import parse_action
from coevo_jax.envs.webshop.words import DEPARTMENTS

DEFAULT = WebShopOptions()
PRODUCTS = [
    {
        "asin": "B0AAAAAAA1",
        "name": "Velora Wireless Earbuds",
        "category": "electronics",
        "query": "Wireless Earbuds ",
        "product_category": "Electronics › Headphones › Earbuds",
        "full_description": "Earbuds for runners.",
        "small_description": ["Noise cancelling", "Long battery life"],
        "pricing": "$1,010.50$1,020",
        "customization_options": {
            "Color": [{"value": " Black ", "image": None}, {"value": "Red/Gold", "image": "x.jpg"}],
            "Nothing": None,
        },
        "images": ["a.jpg"],
        "seller_id": 3,
    },
    {
        "asin": "B0AAAAAAA2",
        "name": "Norvik Wireless Earbuds",
        "category": "electronics",
        "query": "wireless earbuds",
        "product_category": "Electronics › Headphones › Earbuds",
        "full_description": "",
        "small_description": "One feature",
        "pricing": "",
        "customization_options": "",
        "images": ["b.jpg"],
    },
    {"asin": "nan"},
    {"asin": "TOOLONGASIN"},
    {"asin": "B0AAAAAAA1"},
]
ATTRIBUTES = {
    "B0AAAAAAA1": {
        "attributes": ["noise cancelling"],
        "instruction": "Find me noise cancelling earbuds",
        "instruction_attributes": ["noise cancelling"],
    }
}
HUMAN = {
    "B0AAAAAAA1": [
        {
            "instruction": "i need earbuds.",
            "instruction_attributes": ["noise cancelling"],
            "instruction_options": ["black"],
        },
        {"instruction": "skipped", "instruction_attributes": [], "instruction_options": []},
    ],
    "B0AAAAAAA2": [
        {"instruction": "any", "instruction_attributes": ["one feature"], "instruction_options": []}
    ],
}


def write_files(folder, products=PRODUCTS, attributes=ATTRIBUTES, human=HUMAN, suffix="_1000"):
    for name, content in (
        (f"items_shuffle{suffix}", products),
        (f"items_ins_v2{suffix}", attributes),
        ("items_human_ins", human),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return WebShopOptions(data_path=str(folder))


@pytest.fixture(scope="module")
def env():
    instance = make_webshop(DEFAULT)
    yield instance
    instance.close()


@pytest.fixture
def small(tmp_path):
    return make_webshop(write_files(tmp_path))


def all_tasks(env) -> list[Task]:
    return [task for split in SPLITS for task in env.tasks(split)]


def by_id(env, task_id: str) -> Task:
    return next(task for task in all_tasks(env) if task.id == task_id)


def test_pages_by_hand(small):
    prompt = "Instruction: [SEP] i need earbuds"
    item = (
        f"{prompt} [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] black [SEP] red | gold [SEP] Velora "
        "Wireless Earbuds [SEP] Price: $1010.5 to $1020.0 [SEP] Rating: N.A. [SEP] Description "
        "[SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    results = (
        f"{prompt} [SEP] Back to Search [SEP] Page 1 (Total results: 2) [SEP] B0AAAAAAA1 [SEP] Velora "
        "Wireless Earbuds [SEP] $1010.5 to $1020.0 [SEP] B0AAAAAAA2 [SEP] Norvik Wireless Earbuds [SEP] "
        "$100.0"
    )
    start = f"WebShop [SEP] {prompt} [SEP] Search"
    steps = [
        ("search[Velora WIRELESS earbuds]", results),
        ("click[b0aaaaaaa1]", item),
        ("click[Description]", f"{prompt} [SEP] Back to Search [SEP] < Prev [SEP] Earbuds for runners."),
        ("click[< Prev]", item),
        (
            "click[features]",
            f"{prompt} [SEP] Back to Search [SEP] < Prev [SEP] Noise cancelling [SEP] Long battery life",
        ),
        ("click[< prev]", item),
        ("click[Reviews]", f"{prompt} [SEP] Back to Search [SEP] < Prev [SEP] No reviews found"),
        ("click[< Prev]", item),
        ("click[red | gold]", item),
        ("click[< Prev]", results),
        ("click[Back to Search]", start),
        ("search[nothing of that]", f"{prompt} [SEP] Back to Search [SEP] Page 1 (Total results: 0)"),
        ("search[velora]", results.replace("results: 2", "results: 1").partition(" [SEP] B0AAAAAAA2")[0]),
        ("click[B0AAAAAAA1]", item),
        ("click[Black]", item),
    ]
    assert small.reset(by_id(small, "B0AAAAAAA1/0")) == start
    for action, page in steps:
        result = small.step(action)
        assert (result.observation, result.done) == (page, False), action
    bought = small.step("click[Buy Now]")
    # No limit above $990 exists, so the price is within it: attribute, option and price of three.
    assert bought.done and bought.reward == 1.0
    assert (
        bought.observation == "Thank you for shopping with us! [SEP] Your score (min 0.0, max 1.0) [SEP] 1.0"
    )


def test_an_option_chosen_before_leaving_the_product_is_forgotten(small):
    small.reset(by_id(small, "B0AAAAAAA1/0"))
    for action in (
        "search[velora]",
        "click[B0AAAAAAA1]",
        "click[black]",
        "click[< Prev]",
        "click[B0AAAAAAA1]",
    ):
        small.step(action)
    assert small.step("click[Buy Now]").reward == pytest.approx(2 / 3)


def test_a_later_choice_replaces_the_earlier_one(small):
    small.reset(by_id(small, "B0AAAAAAA1/0"))
    for action in ("search[velora]", "click[B0AAAAAAA1]", "click[black]", "click[red | gold]"):
        small.step(action)
    assert small.step("click[Buy Now]").reward == pytest.approx(2 / 3)


def test_results_are_paged_as_upstream(env):
    task = env.tasks("train")[0]
    env.reset(task)
    pages = [env.step("search[black]").observation]
    pages += [env.step("click[Next >]").observation for _ in range(4)]
    assert env.step("click[Next >]").observation == INVALID_ACTION
    shown = [[part for part in page.split(" [SEP] ") if part.startswith("B0")] for page in pages]
    assert [len(page) for page in shown] == [10] * 5
    assert len({asin for page in shown for asin in page}) == 50
    for number, page in enumerate(pages, start=1):
        assert f"Page {number} (Total results: 50)" in page
        assert ("[SEP] < Prev [SEP]" in page) == (number > 1)
        assert ("[SEP] Next > [SEP]" in page) == (number < 5)
    assert env.step("click[< Prev]").observation == pages[3]
    assert env.step(f"click[{shown[0][0]}]").observation == INVALID_ACTION  # of another page
    env.step(f"click[{shown[3][0]}]")
    assert env.step("click[< Prev]").observation == pages[3]


@pytest.mark.parametrize(
    ("action", "parsed"),
    [
        ("search[Red Shoes]", ("search", "red shoes")),
        (" Click [ Buy Now ] ", ("click", "buy now")),
        ("click[< Prev] and then", ("click", "< prev")),
        ("click[a [b]]", ("click", "a [b]")),
        ("search[a\nb]", ("search", "a\nb")),
        ("search[red", None),
        ("search red]", None),
        ("search]red[", None),
        ("search[]", None),
        ("search[ ]", None),
        ("buy[now]", None),
        ("I click[Buy Now]", None),
        ("", None),
    ],
)
def test_parse_action(action, parsed):
    assert parse_action(action) == parsed


BAD_ACTIONS = [
    "click[B0AAAAAAAA]",
    "click[Search]",
    "click[Buy Now]",
    "click[< Prev]",
    "click[Next >]",
    "click[black]",
    "search[[[",
    "]]]]click[",
    "\x00\x01\ufffd\ud800[\udfff]",
    "x" * 100_000,
    "click[" + "y" * 100_000 + "]",
    "[" * 50_000 + "]" * 50_000,
]


@pytest.mark.parametrize("action", BAD_ACTIONS, ids=lambda action: repr(action[:12]))
def test_bad_actions_change_nothing(env, action):
    task = env.tasks("train")[0]
    env.reset(task)
    start = time.monotonic()
    result = env.step(action)
    assert time.monotonic() - start < 1.0
    assert (result.observation, result.done) == (INVALID_ACTION, False)
    for turn in env.expert(task).turns:  # the episode goes on where it was
        result = env.step(turn.action)
    assert result.done and result.reward == 1.0


@pytest.mark.parametrize(
    "words", ["black " * 16_666, "z" * 99_990, "\x00\udcff é 🛒 'a'.b-c_d", "the of and"]
)
def test_odd_searches_end_in_a_page(env, words):
    env.reset(env.tasks("train")[0])
    start = time.monotonic()
    result = env.step(f"search[{words}]")
    assert time.monotonic() - start < 1.0
    assert "Page 1 (Total results:" in result.observation and not result.done


def test_step_outside_an_episode_is_refused(small):
    with pytest.raises(RuntimeError, match="reset"):
        small.step("search[a]")
    task = small.tasks("train")[0]
    small.reset(task)
    for turn in small.expert(task).turns:
        small.step(turn.action)
    with pytest.raises(RuntimeError, match="reset"):  # bought: the episode is over
        small.step("click[Buy Now]")
    small.reset(task)
    small.close()
    small.close()
    with pytest.raises(RuntimeError, match="reset"):
        small.step("search[a]")


def test_protocol_and_limits(env):
    assert isinstance(env, Env)
    task = env.tasks("train")[0]
    assert env.max_turns(task) == 10
    env.reset(task)
    env.step("search[black]")
    assert env.reward_at_limit() == 0.0


def test_splits_share_no_task_and_no_product(env):
    tasks = {split: env.tasks(split) for split in SPLITS}
    assert {split: len(part) for split, part in tasks.items()} == {"train": 2100, "dev": 600, "test": 300}
    ids = [task.id for task in all_tasks(env)]
    assert len(ids) == len(set(ids))
    products = {split: {task.id.partition("/")[0] for task in part} for split, part in tasks.items()}
    assert not products["train"] & products["dev"]
    assert not (products["train"] | products["dev"]) & products["test"]
    for split, part in tasks.items():
        assert {task.split for task in part} == {split}
        assert {task.family for task in part} == set(DEPARTMENTS)
    assert len(DEPARTMENTS) >= 10


def test_upstream_splits_where_asked_for():
    env = make_webshop(WebShopOptions(split_by="goal"))
    assert [len(env.tasks(split)) for split in ("test", "dev", "train")] == [500, 1000, 1500]
    assert len({task.id for task in all_tasks(env)}) == 3000
    other = make_webshop(WebShopOptions(split_by="product"))
    assert {task.id for task in all_tasks(env)} == {task.id for task in all_tasks(other)}


def test_options_are_checked():
    for options, words in (
        ({"products": 999}, "products at least 1000"),
        ({"products": None}, "products at least 1000"),
        ({"data_path": "x", "goals_per_product": 2}, "goals_per_product"),
        ({"noun_tagger": "word"}, "did you mean 'words'"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_env("webshop", options)
