"""The shop's pages: what they show, what can be clicked, and where an action leads.

A page is a value and `follow` a function, so that an expert can walk the shop beside a running episode.
Texts, order and buttons are those of WebShop's text mode; strings are joined by " [SEP] ".
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from coevo_jax.envs.webshop.catalogue import Product

SEPARATOR = " [SEP] "
BACK, NEXT, PREVIOUS, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")
FIXED_BUTTONS = (BACK, NEXT, PREVIOUS, BUY, *SUB_PAGES)
ASIN = re.compile(r"[A-Z0-9]{10}")
ACTION = re.compile(r"\s*(search|click)\s*\[(.+)\]", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class PageView:
    """The page an agent sees, and what the pages before it left behind."""

    page: Literal["search", "results", "item", "sub", "done"] = "search"
    hits: tuple[int, ...] = ()  # products of the last search, best first
    number: int = 1  # page of the results
    product: int | None = None  # position in the catalogue
    chosen: Mapping[str, str] = field(default_factory=dict)  # option values by name
    sub: str = ""  # one of SUB_PAGES


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What the pages are drawn from."""

    products: tuple[Product, ...]
    search: Callable[[str], tuple[int, ...]]
    per_page: int  # products on a page of results


def parse_action(action: str) -> tuple[str, str] | None:
    """("search" or "click", argument in lower case), or None; words after the last bracket are ignored."""
    found = ACTION.match(action)
    if not found or not found[2].strip():
        return None
    return found[1].lower(), found[2].strip().lower()


def follow(shop: Shop, view: PageView, action: str) -> PageView | None:
    """The page an action leads to; None where it is malformed or names nothing on the page."""
    parsed = parse_action(action)
    if parsed is None:
        return None
    kind, argument = parsed
    if kind == "search":  # as upstream, from every page
        return PageView(page="results", hits=shop.search(argument))
    target = clickables(shop, view).get(argument)
    return target() if target else None


def clickables(shop: Shop, view: PageView) -> dict[str, Callable[[], PageView]]:
    """What can be clicked, in lower case, with the page it leads to."""
    if view.page in ("search", "done"):
        return {}
    targets: dict[str, Callable[[], PageView]] = {}
    if view.page == "results":
        for hit in _shown(shop, view):
            targets[shop.products[hit].asin.lower()] = _to(view, page="item", product=hit)
        if view.number > 1:
            targets[PREVIOUS.lower()] = _to(view, number=view.number - 1)
        if view.number * shop.per_page < len(view.hits):
            targets[NEXT.lower()] = _to(view, number=view.number + 1)
    elif view.page == "item" and view.product is not None:
        # Of equal values of two options the later option gets the click; buttons come before options.
        for name, values in shop.products[view.product].options.items():
            for value in values:
                targets[value] = _to(view, chosen={**view.chosen, name: value})
        targets[PREVIOUS.lower()] = _to(view, page="results", product=None, chosen={})
        targets |= {sub.lower(): _to(view, page="sub", sub=sub) for sub in SUB_PAGES}
        targets[BUY.lower()] = _to(view, page="done")
    else:
        targets[PREVIOUS.lower()] = _to(view, page="item", sub="")
    targets[BACK.lower()] = PageView
    return targets


def render(shop: Shop, view: PageView, instruction: str) -> str:
    """The text of every page but the last."""
    if view.page == "search":
        return SEPARATOR.join(["WebShop", "Instruction:", instruction, "Search"])
    parts = ["Instruction:", instruction, BACK]
    if view.page == "results":
        parts += _results(shop, view)
    elif view.product is not None:
        product = shop.products[view.product]
        parts.append(PREVIOUS)
        parts += SUB_TEXTS[view.sub](product) if view.page == "sub" else _item(product)
    return SEPARATOR.join(part for part in parts if part)


def buttons(text: str) -> list[str]:
    """What can be clicked on a page of results or of an item, read off its text; none on others.

    An item's options stand there as names and values, which nothing tells apart: names are taken for buttons.
    """
    head, *parts = text.split(SEPARATOR)
    if head != "Instruction:" or BACK not in parts:
        return []
    shown = parts[parts.index(BACK) :]
    known = [part for part in shown if part in FIXED_BUTTONS or ASIN.fullmatch(part)]
    if BUY not in shown:
        return known
    price = next((at for at, part in enumerate(shown) if part.startswith("Price: ")), 0)
    options = shown[shown.index(PREVIOUS) + 1 : max(price - 1, 0)]  # the product's name is the last
    return [*known, *options]


def render_done(reward: float) -> str:
    """The page after the purchase."""
    return SEPARATOR.join(["Thank you for shopping with us!", "Your score (min 0.0, max 1.0)", str(reward)])


def _to(view: PageView, **changes: Any) -> Callable[[], PageView]:
    return lambda: replace(view, **changes)


def _shown(shop: Shop, view: PageView) -> tuple[int, ...]:
    return view.hits[(view.number - 1) * shop.per_page : view.number * shop.per_page]


def _results(shop: Shop, view: PageView) -> list[str]:
    parts = [f"Page {view.number} (Total results: {len(view.hits)})"]
    parts += [PREVIOUS] * (view.number > 1)
    parts += [NEXT] * (view.number * shop.per_page < len(view.hits))
    for hit in _shown(shop, view):
        product = shop.products[hit]
        parts += [product.asin, product.name, product.price_tag]
    return parts


def _item(product: Product) -> list[str]:
    parts = []
    for name, values in product.options.items():
        parts += [name, *values]
    return [*parts, product.name, f"Price: {product.price_tag}", "Rating: N.A.", *SUB_PAGES, BUY]


SUB_TEXTS: dict[str, Callable[[Product], list[str]]] = {
    "Description": lambda product: [product.description],
    "Features": lambda product: list(product.bullets),
    "Reviews": lambda product: ["No reviews found"],
}
