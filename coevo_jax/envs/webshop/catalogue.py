"""WebShop's catalogue files, official or generated: read, checked and turned into products."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.config import ConfigError
from coevo_jax.strict import nearest

SMALL = 1000  # the official small catalogue has this many products, and its own files
LONGEST_ASIN = 10
NO_ATTRIBUTES = ("DUMMY_ATTR",)
NO_PRICE = 100.0  # dollars, of a product without a price
HUMAN_FILE = "items_human_ins.json"
PRICE = re.compile(r"\$\s*(\d[\d,]*(?:\.\d+)?)")
PRODUCT_KEYS = ("asin", "name", "category", "query", "product_category")


@dataclass(frozen=True, kw_only=True, slots=True)
class HumanInstruction:
    """What a person wrote about a product, and what of it the reward checks."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """One product as the shop shows and scores it."""

    asin: str
    name: str
    category: str
    query: str
    product_category: str  # "A › B › C"
    description: str
    bullets: tuple[str, ...]
    price_tag: str  # as shown, e.g. "$10.0 to $12.5"
    low: float  # dollars
    high: float
    options: Mapping[str, tuple[str, ...]]  # values by option name, lower case
    attributes: tuple[str, ...]  # hidden
    instruction: str | None  # of synthetic goals
    instruction_attributes: tuple[str, ...]
    human: tuple[HumanInstruction, ...]


@dataclass(frozen=True, kw_only=True)
class RawCatalogue:
    """The three files as parsed JSON, with the names that messages give them."""

    products: Any
    attributes: Any
    human: Any
    products_name: str
    attributes_name: str
    human_name: str


def catalogue_files(folder: Path, count: int | None) -> tuple[Path, Path, Path]:
    """Paths of products, attributes and human instructions; raises ConfigError where one is missing.

    1000 products are read from the files with _1000 in their name where both exist.
    """
    if not folder.is_dir():
        raise ConfigError(f"env.options.data_path: found {str(folder)!r}, expected a folder")
    small = [folder / f"{stem}_{SMALL}.json" for stem in ("items_shuffle", "items_ins_v2")]
    whole = [folder / f"{stem}.json" for stem in ("items_shuffle", "items_ins_v2")]
    only_small = not any(path.is_file() for path in whole)
    use_small = count is not None and count <= SMALL and (only_small or all(path.is_file() for path in small))
    paths = [*(small if use_small else whole), folder / HUMAN_FILE]
    present = [path.name for path in sorted(folder.glob("*.json"))]
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"env.options.data_path: {path}: not found, expected WebShop's files "
                f"{', '.join(one.name for one in paths)}{nearest(path.name, present)}"
            )
    return paths[0], paths[1], paths[2]


def load_raw(folder: Path, count: int | None) -> RawCatalogue:
    """Parse the files of a folder; raises ConfigError with file and line where one is no JSON."""
    paths = catalogue_files(folder, count)
    parsed = [_parse(path) for path in paths]
    return RawCatalogue(
        products=parsed[0],
        attributes=parsed[1],
        human=parsed[2],
        products_name=str(paths[0]),
        attributes_name=str(paths[1]),
        human_name=str(paths[2]),
    )


def read_products(raw: RawCatalogue, count: int | None) -> tuple[Product, ...]:
    """The first `count` rows as products; raises ConfigError that names file, row and key.

    Rows without a proper asin and repeated ones are left out, as upstream does.
    """
    rows = _list(raw.products, raw.products_name, "a list of products")
    attributes = _mapping(raw.attributes, raw.attributes_name, "a mapping of asin to attributes")
    human = _mapping(raw.human, raw.human_name, "a mapping of asin to instructions")
    products: dict[str, Product] = {}
    for position, row in enumerate(rows[:count]):
        where = f"{raw.products_name}: row {position}"
        asin = _text(_mapping(row, where, "a product"), "asin", where)
        if asin == "nan" or len(asin) > LONGEST_ASIN or asin in products:
            continue
        where = f"{where} (asin {asin})"
        products[asin] = _product(
            row,
            where,
            _mapping(attributes.get(asin, {}), f"{raw.attributes_name}: {asin}", "attributes of a product"),
            f"{raw.attributes_name}: {asin}",
            _list(human.get(asin, []), f"{raw.human_name}: {asin}", "a list of instructions"),
            f"{raw.human_name}: {asin}",
        )
    if not products:
        raise ConfigError(f"{raw.products_name}: found no product, expected at least one")
    return tuple(products.values())


def search_text(product: Product) -> str:
    """What the search engine indexes: title, description, first feature and options, in lower case."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first = product.bullets[0] if product.bullets else ""
    return " ".join([product.name, product.description, first, options]).lower()


def _product(
    row: Mapping, where: str, extra: Mapping, extra_where: str, human: list, human_where: str
) -> Product:
    texts = {key: _text(row, key, where) for key in PRODUCT_KEYS}
    low, high, tag = _price(row.get("pricing"), where)
    instruction = extra.get("instruction")
    if instruction is not None:
        instruction = _text(extra, "instruction", extra_where)
    wanted = extra.get("instruction_attributes") or ()
    return Product(
        asin=texts["asin"],
        name=texts["name"],
        category=texts["category"],
        query=texts["query"].lower().strip(),
        product_category=texts["product_category"],
        description=_text(row, "full_description", where) if row.get("full_description") else "",
        bullets=_bullets(row, where),
        price_tag=tag,
        low=low,
        high=high,
        options=_options(row.get("customization_options"), where),
        attributes=_texts(extra, "attributes", extra_where) if "attributes" in extra else NO_ATTRIBUTES,
        instruction=instruction,
        instruction_attributes=_texts(extra, "instruction_attributes", extra_where) if wanted else (),
        human=tuple(_human(one, f"{human_where}[{number}]") for number, one in enumerate(human)),
    )


def _human(row: Any, where: str) -> HumanInstruction:
    row = _mapping(row, where, "an instruction")
    return HumanInstruction(
        text=_text(row, "instruction", where),
        attributes=_texts(row, "instruction_attributes", where),
        options=_texts(row, "instruction_options", where),
    )


def _bullets(row: Mapping, where: str) -> tuple[str, ...]:
    found = row.get("small_description")
    if not found:
        return ()
    return (found,) if isinstance(found, str) else _texts(row, "small_description", where)


def _price(found: Any, where: str) -> tuple[float, float, str]:
    """Lowest and highest price, and the tag the pages show."""
    if not found:
        return NO_PRICE, NO_PRICE, f"${NO_PRICE}"
    expected = 'a price like "$9.99" or "$9.99 - $19.99"'
    if not isinstance(found, str):
        raise ConfigError(f"{where}: pricing: found {_show(found)}, expected {expected}")
    prices = [float(number.replace(",", "")) for number in PRICE.findall(found)]
    if not prices:
        raise ConfigError(f"{where}: pricing: found {_show(found)}, expected {expected}")
    if len(prices) == 1:
        return prices[0], prices[0], f"${prices[0]}"
    return prices[0], prices[1], f"${prices[0]} to ${prices[1]}"


def _options(found: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not found:
        return {}
    expected = "a mapping of option names to lists of {value: text}"
    options = {}
    for name, contents in _mapping(found, f"{where}: customization_options", expected).items():
        if contents is None:
            continue
        place = f"{where}: customization_options.{name}"
        values = [
            _text(_mapping(one, f"{place}[{number}]", "{value: text}"), "value", f"{place}[{number}]")
            for number, one in enumerate(_list(contents, place, "a list of {value: text}"))
        ]
        options[name.lower()] = tuple(value.strip().replace("/", " | ").lower() for value in values)
    return options


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: found no readable text ({error}), expected JSON") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: found no valid JSON: {error}") from error


def _text(row: Mapping, key: str, where: str) -> str:
    if key not in row:
        raise ConfigError(f"{where}: {key}: missing, expected text{nearest(key, [str(one) for one in row])}")
    if not isinstance(row[key], str):
        raise ConfigError(f"{where}: {key}: found {_show(row[key])}, expected text")
    return row[key]


def _texts(row: Mapping, key: str, where: str) -> tuple[str, ...]:
    found = row.get(key)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{where}: {key}: found {_show(found)}, expected a list of texts")
    return tuple(found)


def _mapping(found: Any, where: str, expected: str) -> Mapping:
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: found {_show(found)}, expected {expected}")
    return found


def _list(found: Any, where: str, expected: str) -> list:
    if not isinstance(found, list):
        raise ConfigError(f"{where}: found {_show(found)}, expected {expected}")
    return found


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
