"""Prices, goals and splits: everything drawn comes from the seed, in the order of the catalogue."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.envs.webshop.catalogue import Product

LIMITS = tuple(10.0 * tens for tens in range(1, 100))  # dollars
NO_LIMIT = 1_000_000.0
UPSTREAM_SHUFFLE_SEED = 233
UPSTREAM_TEST, UPSTREAM_DEV = 500, 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What to buy. Everything but the instruction is hidden from the agent."""

    id: str  # "ASIN/number", the number counting the product's instructions or option combinations
    asin: str
    category: str
    query: str
    name: str
    product_category: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    option_names: tuple[str, ...]  # of synthetic goals, beside `options`; () for human ones
    price_upper: float  # dollars; NO_LIMIT where there is none

    @property
    def named_options(self) -> tuple[tuple[str | None, str], ...]:
        """Pairs of name and value; the name is None in human goals."""
        names = self.option_names or (None,) * len(self.options)
        return tuple(zip(names, self.options, strict=True))


def draw_prices(products: Sequence[Product], seed: int) -> dict[str, float]:
    """Price in dollars by product: uniform within the range, where it has one."""
    draws = stream("webshop prices", seed).random(len(products))
    return {
        product.asin: product.low + (product.high - product.low) * draw
        for product, draw in zip(products, draws.tolist(), strict=True)
    }


def human_goals(products: Sequence[Product], prices: Mapping[str, float], seed: int) -> list[Goal]:
    """One goal for every human instruction that names an attribute."""
    rng = stream("webshop price limits", seed)
    goals = []
    for product in products:
        for number, human in enumerate(product.human):
            if human is None or not human.attributes:
                continue
            limit, words = _limit(rng, prices[product.asin])
            text = human.text.strip(".") + words
            goals.append(_goal(product, number, text, human.attributes, human.options, (), limit))
    return goals


def synthetic_goals(products: Sequence[Product], prices: Mapping[str, float], seed: int) -> list[Goal]:
    """One goal for every combination of options of a product that has an instruction."""
    rng = stream("webshop price limits", seed)
    goals = []
    for product in products:
        if product.instruction is None or not product.instruction_attributes:
            continue
        limit, words = _limit(rng, prices[product.asin])
        for number, (names, values) in enumerate(_combinations(product)):
            named = ", and ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
            text = product.instruction + (f" with {named}" if named else "") + words
            goals.append(_goal(product, number, text, product.instruction_attributes, values, names, limit))
    return goals


GOAL_MAKERS = {"human": human_goals, "synthetic": synthetic_goals}


def split_by_goal(goals: Sequence[Goal]) -> dict[str, list[Goal]]:
    """Upstream's splits in upstream's order: goals 0-499 test, 500-1499 dev, the others train.

    Of 1500 goals or fewer a tenth is test and a fifth dev. Products may stand in two splits.
    """
    order = list(goals)
    random.Random(UPSTREAM_SHUFFLE_SEED).shuffle(order)
    test, dev = _sizes(len(order))
    return {"train": order[test + dev :], "dev": order[test : test + dev], "test": order[:test]}


def split_by_product(goals: Sequence[Goal]) -> dict[str, list[Goal]]:
    """Splits that share no product: test about a tenth (at most 500), dev a fifth (at most 1000), train."""
    of_product: dict[str, list[Goal]] = {}
    for goal in goals:
        of_product.setdefault(goal.asin, []).append(goal)
    rng = random.Random(UPSTREAM_SHUFFLE_SEED)
    products = list(of_product)
    rng.shuffle(products)
    test, dev = min(len(goals) // 10, UPSTREAM_TEST), min(len(goals) // 5, UPSTREAM_DEV)
    splits: dict[str, list[Goal]] = {"train": [], "dev": [], "test": []}
    for asin in products:
        free = next(
            (name for name, size in (("test", test), ("dev", dev)) if len(splits[name]) < size), "train"
        )
        splits[free] += of_product[asin]
    for part in splits.values():
        rng.shuffle(part)
    return splits


SPLITTERS = {"goal": split_by_goal, "product": split_by_product}


def _sizes(count: int) -> tuple[int, int]:
    if count > UPSTREAM_TEST + UPSTREAM_DEV:
        return UPSTREAM_TEST, UPSTREAM_DEV
    return count // 10, count // 5


def _limit(rng: np.random.Generator, price: float) -> tuple[float, str]:
    """A price limit above the price, and the words that state it."""
    near = [limit for limit in LIMITS if limit > price][:4]
    if len(near) < 2:
        return NO_LIMIT, ""
    limit = max(near[i] for i in rng.choice(len(near), 2, replace=False))
    return limit, f", and price lower than {limit:.2f} dollars"


def _combinations(product: Product) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    names = tuple(sorted(product.options))
    for values in itertools.product(*(product.options[name] for name in names)):
        yield names, values


def _goal(
    product: Product,
    number: int,
    instruction: str,
    attributes: tuple[str, ...],
    options: tuple[str, ...],
    option_names: tuple[str, ...],
    price_upper: float,
) -> Goal:
    return Goal(
        id=f"{product.asin}/{number}",
        asin=product.asin,
        category=product.category,
        query=product.query,
        name=product.name,
        product_category=product.product_category,
        instruction=instruction,
        attributes=attributes,
        options=options,
        option_names=option_names,
        price_upper=price_upper,
    )
