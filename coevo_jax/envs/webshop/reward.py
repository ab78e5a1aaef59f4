"""WebShop's reward of a purchase: type, attributes, options and price against the goal."""

from collections.abc import Iterable

from rapidfuzz import fuzz, utils

from coevo_jax.envs.webshop.catalogue import Product
from coevo_jax.envs.webshop.goals import Goal
from coevo_jax.envs.webshop.nouns import NounTagger

FUZZY_MATCH = 85  # a larger token-set ratio is a match
# Only the first of these that occurs in a colour counts; the order is alphabetical.
_COLORS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown "
    "burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac "
    "copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite "
    "grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light "
    "lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural navy "
    "nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell "
    "silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut "
    "wheat white wine yellow"
)
COLORS = tuple(_COLORS.split())
_LATIN_1 = dict.fromkeys(range(128, 256))


def webshop_reward(
    product: Product, price: float, chosen: Iterable[str], goal: Goal, nouns: NounTagger
) -> float:
    """Reward in [0, 1] of buying a product at a price (dollars) with the chosen option values.

    r_type * (attributes matched + options matched + [price within the limit]) / (all of them).
    Source: WebShop (arXiv 2207.01206), section 3.3, with the constants of its goal module.
    """
    matched = attributes_matched(product, goal.attributes) + options_matched(chosen, goal)
    share = (matched + (price <= goal.price_upper)) / (len(goal.attributes) + len(goal.options) + 1)
    return type_factor(product, goal, nouns) * share


def type_factor(product: Product, goal: Goal, nouns: NounTagger) -> float:
    """1 for the goal's kind of product, 0.5 for a doubtful one, 0.1 or 0 where the titles share no noun."""
    wanted, bought = nouns(goal.name), set(nouns(product.name))
    # Repeated nouns count in the denominator only, as upstream has it.
    title = len(bought & set(wanted)) / len(wanted) if wanted else 0.2
    if title == 0.0:
        return 0.0
    if title < 0.1:
        return 0.1
    same = len(_categories(product.product_category) & _categories(goal.product_category)) >= 2
    return 1.0 if product.query == goal.query or same or title > 0.2 else 0.5


def attributes_matched(product: Product, attributes: Iterable[str]) -> int:
    """How many of the goal's attributes the product has, or names in title, features or description."""
    texts = (product.name.lower(), " ".join(product.bullets).lower(), product.description.lower())
    return sum(
        any(similar(own, wanted) for own in product.attributes) or any(wanted in text for text in texts)
        for wanted in attributes
    )


def options_matched(chosen: Iterable[str], goal: Goal) -> int:
    """How many of the goal's options one of the chosen values is close to."""
    values = tuple(chosen)
    return sum(
        any(option_matches(value, option, name) for value in values) for name, option in goal.named_options
    )


def option_matches(value: str, option: str, name: str | None) -> bool:
    """Whether a chosen value is close to an option of a goal, which has a name in synthetic goals only."""
    # Upstream compares a synthetic option together with its name, and its colour rule leaves it alone.
    return similar(normal_color(value), normal_color(option) if name is None else f"{name} {option}")


def normal_color(value: str) -> str:
    """The first known colour word within a value, else the value."""
    return next((color for color in COLORS if color in value), value)


def similar(first: str, second: str) -> bool:
    """Whether the token-set ratio, rounded as thefuzz does, passes the threshold."""
    return round(fuzz.token_set_ratio(_plain(first), _plain(second))) > FUZZY_MATCH


def _plain(text: str) -> str:
    return utils.default_process(text.translate(_LATIN_1))


def _categories(path: str) -> set[str]:
    return {part.strip() for part in path.split("›")}
