"""WebShop's files: what is read, and the one clear message for everything that cannot be."""

import copy
import json

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS
from coevo_jax.envs.webshop.catalogue import catalogue_files, load_raw, read_products, search_text
from coevo_jax.envs.webshop.environment import make_webshop
from coevo_jax.envs.webshop.goals import draw_prices, human_goals, split_by_goal, synthetic_goals
from coevo_jax.envs.webshop.options import WebShopOptions
from tests.envs.test_webshop import ATTRIBUTES, HUMAN, PRODUCTS, write_files


def read(folder, count=1000):
    return read_products(load_raw(folder, count), count).products


def change(rows, *keys, value):
    """A copy with one value replaced, or taken out where `value` is ..."""
    rows = copy.deepcopy(rows)
    place = rows
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return rows


FIRST = "B0AAAAAAA1"


def test_products_are_read_as_upstream_reads_them(tmp_path):
    write_files(tmp_path)
    first, second = read(tmp_path)  # no "nan", no long asin, no second of the same
    assert first.query == "wireless earbuds"
    assert (first.low, first.high, first.price_tag) == (1010.5, 1020.0, "$1010.5 to $1020.0")
    assert (second.low, second.high, second.price_tag) == (100.0, 100.0, "$100.0")
    assert first.options == {"color": ("black", "red | gold")}
    assert second.options == {} and second.bullets == ("One feature",)
    assert second.attributes == ("DUMMY_ATTR",) and second.instruction is None
    assert search_text(first) == (
        "velora wireless earbuds earbuds for runners. noise cancelling color: black, red | gold"
    )


@pytest.mark.parametrize(
    ("tag", "low", "high"),
    [
        ("$9.99", 9.99, 9.99),
        ("$9.99 - $19.99", 9.99, 19.99),
        ("$1,299.00", 1299.0, 1299.0),
        ("$1,299.00$1,400", 1299.0, 1400.0),
        ("$.99", 0.99, 0.99),
        ("$ 5", 5.0, 5.0),
        ("from $5. to $7 or $9", 5.0, 7.0),
        ("US$3", 3.0, 3.0),
        ("$9.99 (2 for 1)", 9.9921, 9.9921),  # upstream takes every digit
        ("", 100.0, 100.0),
        (None, 100.0, 100.0),
        (0, 100.0, 100.0),
        ([], 100.0, 100.0),
        (..., 100.0, 100.0),  # no such key
    ],
)
def test_prices_are_read_as_upstream_reads_them(tmp_path, tag, low, high):
    write_files(tmp_path, change(PRODUCTS, 1, "pricing", value=tag))
    catalogue = read_products(load_raw(tmp_path, 1000), 1000)
    assert (catalogue.products[1].low, catalogue.products[1].high) == (low, high)
    assert catalogue.left_out == {}


@pytest.mark.parametrize(
    "tag",
    [
        "free",
        "9.99",
        " ",
        "$",
        "$9.99 - 19.99",
        "$1.2.3",
        "$5 $",
        "$1 $2 $x",
        "$" + "9" * 400,
        9.99,
        True,
        ["$5"],
        {"$": 5},
    ],
    ids=str,
)
def test_a_price_that_upstream_cannot_read_costs_its_row_only(tmp_path, tag):
    options = write_files(tmp_path, change(PRODUCTS, 0, "pricing", value=tag))
    with pytest.warns(UserWarning, match=rf"left out 1 row.*row 0 \(asin {FIRST}\): pricing: found"):
        env = make_webshop(options)
    assert [task.id for split in SPLITS for task in env.tasks(split)] == ["B0AAAAAAA2/0"]


def test_price_draws_stay_in_range_and_follow_the_seed(tmp_path):
    write_files(tmp_path)
    products = read(tmp_path)
    prices = [draw_prices(products, seed) for seed in range(20)]
    assert all(1010.5 <= price["B0AAAAAAA1"] <= 1020.0 for price in prices)
    assert len({price["B0AAAAAAA1"] for price in prices}) == 20
    assert {price["B0AAAAAAA2"] for price in prices} == {100.0}
    assert draw_prices(products, 3) == draw_prices(products, 3)


def test_human_goals(tmp_path):
    write_files(tmp_path)
    products = read(tmp_path)
    limits = set()
    for seed in range(40):
        first, second = human_goals(products, draw_prices(products, seed), seed)
        assert (first.id, first.instruction, first.price_upper) == (
            "B0AAAAAAA1/0",
            "i need earbuds",
            1_000_000.0,
        )
        assert (first.attributes, first.options) == (("noise cancelling",), ("black",))
        assert second.instruction == f"any, and price lower than {second.price_upper:.2f} dollars"
        limits.add(second.price_upper)
    assert limits == {120.0, 130.0, 140.0}  # the larger of two of 110, 120, 130, 140


def test_synthetic_goals(tmp_path):
    write_files(tmp_path)
    products = read(tmp_path)
    goals = synthetic_goals(products, draw_prices(products, 0), 0)
    assert [goal.id for goal in goals] == ["B0AAAAAAA1/0", "B0AAAAAAA1/1"]
    assert goals[1].named_options == (("color", "red | gold"),)
    assert goals[1].instruction == "Find me noise cancelling earbuds with color: red | gold"
    options = WebShopOptions(data_path=str(tmp_path), goals="synthetic")
    env = make_webshop(options)
    assert {task.id for split in SPLITS for task in env.tasks(split)} == {"B0AAAAAAA1/0", "B0AAAAAAA1/1"}


@pytest.mark.parametrize(
    ("count", "test", "dev"), [(2000, 500, 1000), (1501, 500, 1000), (1500, 150, 300), (9, 0, 1)]
)
def test_split_sizes_and_upstream_order(count, test, dev):
    import random

    goals = list(range(count))
    splits = split_by_goal(goals)
    random.seed(233)
    random.shuffle(goals)
    assert splits["test"] == goals[:test]
    assert splits["dev"] == goals[test : test + dev]
    assert splits["train"] == goals[test + dev :]


def test_which_files(tmp_path):
    write_files(tmp_path)
    names = lambda count: [path.name for path in catalogue_files(tmp_path, count)]  # noqa: E731
    small = ["items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json"]
    assert names(1000) == small
    with pytest.raises(ConfigError, match=r"items_shuffle\.json: not found.*did you mean"):
        names(None)
    write_files(tmp_path, suffix="")
    whole = ["items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"]
    assert names(1000) == small and names(None) == names(12_000) == whole
    (tmp_path / small[1]).unlink()
    assert names(1000) == whole


@pytest.mark.parametrize(
    ("part", "keys", "value", "message"),
    [
        ("products", (1,), 5, r"items_shuffle_1000\.json: row 1: found 5, expected a product"),
        ("products", (1, "asin"), ..., r"row 1: asin: missing, expected text"),
        ("products", (1, "asin"), 7, r"row 1: asin: found 7, expected text"),
        ("products", (1, "name"), None, r"row 1 \(asin B0AAAAAAA2\): name: found null, expected text"),
        ("products", (0, "query"), ..., rf"row 0 \(asin {FIRST}\): query: missing"),
        ("products", (0, "full_description"), [1], r"row 0 .*full_description: found \[1\], expected text"),
        ("products", (0, "small_description"), [1], r"row 0 .*small_description: .*expected a list of texts"),
        ("products", (0, "pricing"), "free", r'row 0 .*pricing: found "free", expected a price like'),
        ("products", (1, "name"), "half \ud83d", r'row 1 .*name: found "half \ufffd", expected text'),
        ("products", (0, "customization_options"), [1], r"row 0 .*customization_options: found \[1\]"),
        ("products", (0, "customization_options", "Color"), 1, r"customization_options\.Color: found 1"),
        (
            "products",
            (0, "customization_options", "Color", 1),
            {"values": "x"},
            r"row 0 .*customization_options\.Color\[1\]: value: missing.*did you mean 'values'",
        ),
        ("attributes", (FIRST,), [], rf"items_ins_v2_1000\.json: {FIRST}: found \[\], expected attributes"),
        ("attributes", (FIRST, "attributes"), "x", rf"{FIRST}: attributes: found \"x\", expected a list"),
        ("human", (FIRST,), {}, rf"items_human_ins\.json: {FIRST}: found {{}}, expected a list"),
        ("human", (FIRST, 1, "instruction"), ..., rf"{FIRST}\[1\]: instruction: missing"),
        ("human", (FIRST, 0, "instruction_options"), {}, rf"{FIRST}\[0\]: instruction_options: found {{}}"),
    ],
)
def test_a_broken_row_is_left_out_and_named(tmp_path, part, keys, value, message):
    files = {"products": PRODUCTS, "attributes": ATTRIBUTES, "human": HUMAN}
    files[part] = change(files[part], *keys, value=value)
    options = write_files(tmp_path, **files)
    with pytest.warns(UserWarning, match=message) as caught:
        env = make_webshop(options)
    (said,) = [str(one.message) for one in caught]
    assert "\n" not in said and said.startswith(str(tmp_path)) and "left out 1 row(s)" in said
    left = {task.id for split in SPLITS for task in env.tasks(split)}
    lost = {"products": f"B0AAAAAAA{keys[0] + 1}/0" if part == "products" else "", "attributes": ""}
    lost["human"] = "" if keys[1:2] == (1,) else f"{FIRST}/0"
    assert left == {f"{FIRST}/0", "B0AAAAAAA2/0"} - {lost[part]}


def test_rows_left_out_are_counted_by_file(tmp_path):
    products = [
        {**PRODUCTS[0], "asin": f"B{number}", "pricing": "?" if number % 2 else "$5"} for number in range(9)
    ]
    human = {f"B{number}": HUMAN[FIRST] if number else [5, HUMAN[FIRST][0], None] for number in range(9)}
    options = write_files(tmp_path, products, {"B0": [], "B2": {"attributes": 1}, "B3": []}, human)
    with pytest.warns(UserWarning) as caught:
        env = make_webshop(options)
    said = [str(one.message) for one in caught]
    assert [text.partition(": left out ")[2].partition(" row")[0] for text in said] == ["4", "2", "2"]
    assert "items_ins_v2" in said[1] and "items_human_ins" in said[2]
    ids = {task.id for split in SPLITS for task in env.tasks(split)}
    assert ids == {"B0/1", "B2/0", "B4/0", "B6/0", "B8/0"}  # B0's readable instruction keeps its number


def test_a_catalogue_of_broken_rows_only_is_refused_with_the_first(tmp_path):
    options = write_files(tmp_path, [{"title": "x"}, 5])
    with pytest.raises(
        ConfigError, match=r"found no product, expected .*the first row: .*row 0: asin: missing"
    ):
        make_webshop(options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"asin": }]', r"items_shuffle_1000\.json: found no valid JSON: .*line 2 column 10"),
        ("{}", r"items_shuffle_1000\.json: found {}, expected a list of products"),
        ("[]", r"items_shuffle_1000\.json: found no product"),
        ("[" * 200_000, r"items_shuffle_1000\.json: found no valid JSON"),
        (b"\xff\xfe\x00[]", r"items_shuffle_1000\.json: found no readable text"),
    ],
    ids=["syntax", "mapping", "empty", "deep", "binary"],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    options = write_files(tmp_path)
    (tmp_path / "items_shuffle_1000.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        make_webshop(options)


def test_missing_folder_file_and_goals(tmp_path):
    with pytest.raises(ConfigError, match=r"data_path: found '.*nowhere', expected a folder"):
        make_webshop(WebShopOptions(data_path=str(tmp_path / "nowhere")))
    options = write_files(tmp_path, human={})
    with pytest.raises(ConfigError, match=r"found no human goal for the 2 products.*try goals: synthetic"):
        make_webshop(options)
    (tmp_path / "items_human_ins.json").unlink()
    with pytest.raises(ConfigError, match=r"items_human_ins\.json: not found"):
        make_webshop(options)


def test_a_row_beyond_the_products_asked_for_is_not_read(tmp_path):
    broken = change(PRODUCTS, 1, "name", value=None)
    write_files(tmp_path, broken)
    env = make_webshop(WebShopOptions(data_path=str(tmp_path), products=1))
    assert [task.id for split in SPLITS for task in env.tasks(split)] == [f"{FIRST}/0"]


def test_values_json_allows_and_python_reads(tmp_path):
    products = change(PRODUCTS, 1, "full_description", value=None)
    write_files(tmp_path, products)
    assert read(tmp_path)[1].description == ""
    (tmp_path / "items_shuffle_1000.json").write_text(json.dumps(products).replace("[SEP]", "NaN"))
    assert len(read(tmp_path)) == 2
