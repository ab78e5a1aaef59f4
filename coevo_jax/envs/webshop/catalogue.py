"""WebShop's catalogue files, official or generated: read, checked and turned into products.

A row that cannot be read is left out and counted, with what is wrong with it; only a whole file is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError, nearest

SMALL = 1000  # the official small catalogue has this many products, and its own files
LONGEST_ASIN = 10
NO_ATTRIBUTES = ("DUMMY_ATTR",)
NO_PRICE = 100.0  # dollars, of a product without a price
HUMAN_FILE = "items_human_ins.json"
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair
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
    human: tuple[HumanInstruction | None, ...]  # None where the row cannot be read


@dataclass(frozen=True, kw_only=True)
class RawCatalogue:
    """The three files as parsed JSON, with the names that messages give them."""

    products: Any
    attributes: Any
    human: Any
    products_name: str
    attributes_name: str
    human_name: str


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The products that can be read, and by file what is wrong with each row left out of it."""

    products: tuple[Product, ...]
    left_out: Mapping[str, tuple[str, ...]]


def catalogue_files(folder: Path, count: int | None) -> tuple[Path, Path, Path]:
    """Paths of products, attributes and human instructions.

    1000 products are read from the files with _1000 in their name where both exist.

    Raises:
      ConfigError: one of the files is missing.
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
    """Parse the files of a folder.

    Raises:
      ConfigError: a file is no JSON; the message names file and line.
    """
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


def read_products(raw: RawCatalogue, count: int | None) -> Catalogue:
    """The first `count` rows as products. As upstream, rows without a proper asin and repeated ones are none.

    Raises:
      ConfigError: the file is no table of rows, or no product can be read.
    """
    rows = _list(raw.products, raw.products_name, "a list of products")
    attributes = _mapping(raw.attributes, raw.attributes_name, "a mapping of asin to attributes")
    human = _mapping(raw.human, raw.human_name, "a mapping of asin to instructions")
    products: dict[str, Product] = {}
    seen: set[str] = set()
    broken: dict[str, list[str]] = {raw.products_name: [], raw.attributes_name: [], raw.human_name: []}
    for position, row in enumerate(rows[:count]):
        try:
            where = f"{raw.products_name}: row {position}"
            asin = _text(_mapping(row, where, "a product"), "asin", where)
            if asin == "nan" or len(asin) > LONGEST_ASIN or asin in seen:
                continue
            seen.add(asin)
            fields = _product_fields(row, f"{where} (asin {asin})")
        except ConfigError as error:
            broken[raw.products_name].append(str(error))
            continue
        hidden = _hidden_fields(attributes, asin, raw.attributes_name, broken[raw.attributes_name])
        told = _instructions(human, asin, raw.human_name, broken[raw.human_name])
        products[asin] = Product(**fields, **hidden, human=told)
    if not products:
        first = next((f"; the first row: {message}" for message in broken[raw.products_name]), "")
        raise ConfigError(f"{raw.products_name}: found no product, expected at least one{first}")
    return Catalogue(
        products=tuple(products.values()),
        left_out={name: tuple(messages) for name, messages in broken.items() if messages},
    )


def search_text(product: Product) -> str:
    """What the search engine indexes: title, description, first feature and options, in lower case."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first = product.bullets[0] if product.bullets else ""
    return " ".join([product.name, product.description, first, options]).lower()


def _product_fields(row: Mapping, where: str) -> dict[str, Any]:
    """What a row of the products tells of its Product.

    Raises:
      ConfigError: the row cannot be read.
    """
    texts = {key: _text(row, key, where) for key in PRODUCT_KEYS}
    low, high, tag = _price(row.get("pricing"), where)
    return {
        **texts,
        "query": texts["query"].lower().strip(),
        "description": _text(row, "full_description", where) if row.get("full_description") else "",
        "bullets": _bullets(row, where),
        "price_tag": tag,
        "low": low,
        "high": high,
        "options": _options(row.get("customization_options"), where),
    }


def _hidden_fields(rows: Mapping, asin: str, file: str, broken: list[str]) -> dict[str, Any]:
    """What the attributes' file tells of a product; a row that cannot be read tells as much as none."""
    where = f"{file}: {asin}"
    try:
        row = _mapping(rows.get(asin, {}), where, "attributes of a product")
        instruction = row.get("instruction")
        wanted = row.get("instruction_attributes") or ()
        return {
            "attributes": _texts(row, "attributes", where) if "attributes" in row else NO_ATTRIBUTES,
            "instruction": None if instruction is None else _text(row, "instruction", where),
            "instruction_attributes": _texts(row, "instruction_attributes", where) if wanted else (),
        }
    except ConfigError as error:
        broken.append(str(error))
        return {"attributes": NO_ATTRIBUTES, "instruction": None, "instruction_attributes": ()}


def _instructions(
    rows: Mapping, asin: str, file: str, broken: list[str]
) -> tuple[HumanInstruction | None, ...]:
    """A product's human instructions by their place, None for one that cannot be read."""
    found: list[HumanInstruction | None] = []
    try:
        listed = _list(rows.get(asin, []), f"{file}: {asin}", "a list of instructions")
    except ConfigError as error:
        broken.append(str(error))
        return ()
    for number, row in enumerate(listed):
        try:
            found.append(_human(row, f"{file}: {asin}[{number}]"))
        except ConfigError as error:
            broken.append(str(error))
            found.append(None)
    return tuple(found)


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
    one = isinstance(found, str)
    return (_text(row, "small_description", where),) if one else _texts(row, "small_description", where)


def _price(found: Any, where: str) -> tuple[float, float, str]:
    """Lowest and highest price, and the tag the pages show.

    As upstream: what follows a dollar sign is a price, and of it only digits and points count, so that "$.99"
    is 0.99 and "$1,299.00" 1299.0. A number without a dollar sign is none.
    """
    if not found:
        return NO_PRICE, NO_PRICE, f"${NO_PRICE}"
    prices = [_dollars(part) for part in found.split("$")[1:]] if isinstance(found, str) else []
    if not prices or not all(map(math.isfinite, prices)):
        raise ConfigError(
            f'{where}: pricing: found {_show(found)}, expected a price like "$9.99" or "$9.99 - $19.99"'
        )
    if len(prices) == 1:
        return prices[0], prices[0], f"${prices[0]}"
    return prices[0], prices[1], f"${prices[0]} to ${prices[1]}"


def _dollars(text: str) -> float:
    """The number that the digits and points of a text make; NaN where they make none."""
    try:
        return float("".join(letter for letter in text if letter.isdecimal() or letter == "."))
    except ValueError:
        return math.nan


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
    if not _is_text(row[key]):
        raise ConfigError(f"{where}: {key}: found {_show(row[key])}, expected text")
    return row[key]


def _texts(row: Mapping, key: str, where: str) -> tuple[str, ...]:
    found = row.get(key)
    if not isinstance(found, list) or not all(map(_is_text, found)):
        raise ConfigError(f"{where}: {key}: found {_show(found)}, expected a list of texts")
    return tuple(found)


def _is_text(found: Any) -> bool:
    """Whether it is text that UTF-8 can write: JSON also allows halves of surrogate pairs."""
    return isinstance(found, str) and not HALF.search(found)


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
    text = HALF.sub("\ufffd", text)
    return text if len(text) <= 60 else text[:57] + "..."
