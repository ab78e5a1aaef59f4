"""The world behind the environment: catalogue, prices, search index, goals and splits, built once."""

import functools
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, Task
from coevo_jax.envs.webshop.catalogue import (
    Catalogue,
    Product,
    catalogue_files,
    load_raw,
    read_products,
    search_text,
)
from coevo_jax.envs.webshop.generator import generate_raw
from coevo_jax.envs.webshop.goals import GOAL_MAKERS, SPLITTERS, Goal, draw_prices
from coevo_jax.envs.webshop.nouns import NounTagger, noun_tagger
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.pages import Shop
from coevo_jax.envs.webshop.search import SearchIndex, build_index, search

SEARCH_RESULTS = 50
PLAY_OPTIONS = {"max_turns", "results_per_page", "noun_tagger"}
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class SharedShop:
    """Everything instances share; never written to."""

    products: tuple[Product, ...]
    positions: Mapping[str, int]  # in `products`, by asin
    prices: Mapping[str, float]  # dollars, by asin
    index: SearchIndex
    goals: Mapping[str, Goal]  # by task id
    splits: Mapping[str, tuple[Task, ...]]


def open_world(options: WebShopOptions) -> SharedShop:
    """The world of the options, made once for equal options and one state of the files.

    Raises:
      ConfigError: the files or what they hold cannot be used.
    """
    state: tuple[int, ...] = ()
    if options.data_path is not None:
        files = catalogue_files(Path(options.data_path), options.products)
        state = tuple(path.stat().st_mtime_ns for path in files)
    with _LOCK:  # worker threads make their instances at the same time
        return _open_once(options.model_dump_json(exclude=PLAY_OPTIONS, exclude_unset=True), state)


@functools.lru_cache(maxsize=2)
def _open_once(options_json: str, _state: tuple[int, ...]) -> SharedShop:
    options = WebShopOptions.model_validate_json(options_json)
    path = options.data_path
    raw = load_raw(Path(path), options.products) if path is not None else generate_raw(options)
    catalogue = read_products(raw, options.products)
    _warn_of_rows(catalogue)
    products = catalogue.products
    prices = draw_prices(products, options.seed)
    goals = GOAL_MAKERS[options.goals](products, prices, options.seed)
    if not goals:
        other = "human" if options.goals == "synthetic" else "synthetic"
        raise ConfigError(
            f"env.options.goals: found no {options.goals} goal for the {len(products)} products of "
            f"{raw.products_name}, expected some; try goals: {other}"
        )
    splitter = options.split_by or ("product" if path is None else "goal")
    parts = SPLITTERS[splitter](goals)
    splits = {
        split: tuple(Task(id=goal.id, split=split, family=goal.category) for goal in parts[split])
        for split in SPLITS
    }
    return SharedShop(
        products=products,
        positions=MappingProxyType({product.asin: i for i, product in enumerate(products)}),
        prices=MappingProxyType(prices),
        index=build_index({product.asin: search_text(product) for product in products}),
        goals=MappingProxyType({goal.id: goal for goal in goals}),
        splits=MappingProxyType(splits),
    )


def _warn_of_rows(catalogue: Catalogue) -> None:
    """Say how many rows of each file are left out, and why the first is."""
    for name, messages in catalogue.left_out.items():
        warnings.warn(
            f"{name}: left out {len(messages)} row(s) that cannot be read; the first: {messages[0]}",
            stacklevel=2,
        )


def make_shop(world: SharedShop, per_page: int) -> Shop:
    """The pages' view of a world."""
    return Shop(
        products=world.products,
        search=lambda query: search(world.index, query, SEARCH_RESULTS),
        per_page=per_page,
    )


def tagger_of(options: WebShopOptions) -> NounTagger:
    """The noun tagger the options name.

    Raises:
      ConfigError: the tagger is missing.
    """
    with _LOCK:
        return noun_tagger(options.noun_tagger)
