"""A generated catalogue in exactly the official format, for those who have not downloaded the real one."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.webshop.catalogue import HUMAN_FILE, SMALL, RawCatalogue
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.words import (
    AFTER,
    BEFORE,
    BRANDS,
    BULLETS,
    CHOICES,
    DEPARTMENTS,
    DESCRIPTIONS,
    OPENERS,
    OPTIONS,
    TITLES,
    Kind,
)
from coevo_jax.files import write_whole

GENERATED = "generated catalogue"
# An asin is B0 and four of these syllables, which a small vocabulary holds as one token each.
SYLLABLES = tuple(first + vowel for first in "BGJLMNRTVXZ" for vowel in "AEIOU")
RANGE_SHARE = 0.3  # of the products have a price range
NO_OPTION_SHARE = 0.3  # of the instructions leave an option open


def generate_raw(
    options: WebShopOptions, on_progress: Callable[[int, int], None] | None = None
) -> RawCatalogue:
    """Products, attributes and human-like instructions as the official files have them, parsed.

    A product depends on the seed and its place only: more products leave the first ones as they are.
    """
    total = options.products
    if total is None or options.data_path is not None:
        raise ConfigError(
            "env.options: found data_path or no number of products, expected neither to generate"
        )
    shelves = [(name, place) for name, one in DEPARTMENTS.items() for place in range(len(one.kinds))]
    products: list[dict[str, Any]] = []
    attributes: dict[str, Any] = {}
    human: dict[str, Any] = {}
    for number in range(total):
        rng = stream("webshop product", options.seed, number)
        if number % len(shelves) == 0:  # every kind once in a row of as many products
            order = rng.permutation(len(shelves))
        category, place = shelves[order[number % len(shelves)]]
        asin = _asin(rng, attributes)
        product, extra, instructions = _product(rng, asin, category, place, options.goals_per_product)
        products.append(product)
        attributes[asin] = extra
        human[asin] = instructions
        if on_progress:
            on_progress(number + 1, total)
    return RawCatalogue(
        products=products,
        attributes=attributes,
        human=human,
        products_name=GENERATED,
        attributes_name=f"{GENERATED}, attributes",
        human_name=f"{GENERATED}, instructions",
    )


def generate_webshop(options: WebShopOptions, out: Path, on_progress: Callable[[int, int], None]) -> None:
    """Write a generated catalogue into a folder, to be named by `data_path`: equal options, equal bytes.

    `on_progress(done, total)` counts products.

    Raises:
      ConfigError: the options generate nothing.
    """
    raw = generate_raw(options, on_progress)
    suffix = f"_{SMALL}" if len(raw.products) == SMALL else ""
    for name, content in (
        (f"items_shuffle{suffix}.json", raw.products),
        (f"items_ins_v2{suffix}.json", raw.attributes),
        (HUMAN_FILE, raw.human),
    ):
        write_whole(out / name, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _asin(rng: np.random.Generator, taken: dict[str, Any]) -> str:
    while True:
        asin = "B0" + "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=4))
        if asin not in taken:
            return asin


def _product(
    rng: np.random.Generator, asin: str, category: str, place: int, goals: int
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Rows of one product for the three files."""
    department = DEPARTMENTS[category]
    kind = department.kinds[place]
    brand = _one(rng, BRANDS)
    attributes = _some(rng, department.attributes, int(rng.integers(4, 7)))
    choices = {name.replace("-", " "): _draw_values(rng, name.replace("-", " ")) for name in kind.options}
    words = {"brand": brand, "kind": kind.query, "first": attributes[0], "second": attributes[1]}
    title = _one(rng, TITLES).format(**words | {"kind": kind.query.title()})
    bullets = [
        _one(rng, BULLETS).format(attribute=one, kind=kind.query).capitalize() for one in attributes[1:4]
    ]
    description = _one(rng, DESCRIPTIONS).format(**words, attributes=_listed(attributes))
    product = {
        "asin": asin,
        "name": title,
        "category": category,
        "query": kind.query,
        "product_category": f"{department.root} › {kind.path}",
        "full_description": description,
        "small_description": bullets,
        "pricing": _pricing(rng, kind),
        "customization_options": {
            name.title(): [{"value": value, "image": None} for value in values]
            for name, values in choices.items()
        },
        "images": [f"{asin}.jpg"],
    }
    wanted = _some(rng, attributes, int(rng.integers(1, 4)))
    extra = {
        "attributes": attributes,
        "instruction": f"Find me {_listed(wanted)} {kind.query}",
        "instruction_attributes": wanted,
    }
    instructions = [{"asin": asin, **_instruction(rng, kind, attributes, choices)} for _ in range(goals)]
    return product, extra, instructions


def _draw_values(rng: np.random.Generator, name: str) -> list[str]:
    """Some values of an option in the order of its list."""
    values = OPTIONS[name]
    count = int(rng.integers(2, min(5, len(values)) + 1))
    return [values[i] for i in sorted(rng.choice(len(values), count, replace=False).tolist())]


def _pricing(rng: np.random.Generator, kind: Kind) -> str:
    low, high = kind.price
    price = low + (high - low) * float(rng.random()) ** 2  # most are cheap for their kind
    cents = int(price) + 0.99
    if rng.random() < RANGE_SHARE:
        return f"${cents:.2f} - ${cents + int(rng.integers(2, 16)):.2f}"
    return f"${cents:.2f}"


def _instruction(
    rng: np.random.Generator,
    kind: Kind,
    attributes: Sequence[str],
    choices: dict[str, list[str]],
) -> dict[str, Any]:
    """A human-like instruction with what the reward checks."""
    wanted = _some(rng, attributes, int(rng.integers(1, 4)))
    kept = {name: _one(rng, values) for name, values in choices.items() if rng.random() >= NO_OPTION_SHARE}
    before = rng.random() < 0.5
    pattern = _one(rng, BEFORE if before else AFTER)
    described = pattern.format(kind=kind.query, attributes=", ".join(wanted) if before else _listed(wanted))
    text = f"{_one(rng, OPENERS)} {_with_article(kind.one, described)}"
    if kept:
        named = " and ".join(f"{name} {value}" for name, value in kept.items())
        text += _one(rng, CHOICES).format(values=", ".join(kept.values()), named=named)
    return {
        "instruction": text,
        "instruction_attributes": wanted,
        "instruction_options": list(kept.values()),
    }


def _with_article(one: str, described: str) -> str:
    article = "an" if one == "a" and described[0] in "aeiou" else one
    return f"{article} {described}".strip()


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _one(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _some(rng: np.random.Generator, values: Sequence[str], count: int) -> list[str]:
    return [values[int(i)] for i in rng.permutation(len(values))[:count]]
