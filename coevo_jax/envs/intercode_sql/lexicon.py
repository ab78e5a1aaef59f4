"""The words of the generated databases: few, short and shared, so that a small model can learn them.

A concept has the word a question uses (the first one) and the names a column or table may carry. Which name a
database uses shows only in its schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A theme with one parent table and the tables whose rows belong to a row of the parent."""

    name: str
    parent: tuple[str, str]
    children: tuple[tuple[str, str], tuple[str, str]]  # the second one stands in half of the databases


DOMAINS: tuple[Domain, ...] = (
    Domain(name="music", parent=("singer", "artist"), children=(("concert", "show"), ("album", "record"))),
    Domain(name="school", parent=("teacher", "tutor"), children=(("course", "class"), ("student", "pupil"))),
    Domain(name="sea", parent=("harbor", "port"), children=(("ship", "boat"), ("crane", "lift"))),
    Domain(name="zoo", parent=("keeper", "ranger"), children=(("animal", "beast"), ("cage", "pen"))),
    Domain(name="shop", parent=("maker", "brand"), children=(("product", "item"), ("store", "outlet"))),
    Domain(name="sport", parent=("team", "club"), children=(("player", "member"), ("coach", "trainer"))),
)

TEXT_CONCEPTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("country", "nation"): ("France", "Japan", "Peru", "Kenya", "Spain", "Egypt", "India", "Chile"),
    ("city", "town"): ("Rome", "Paris", "Lima", "Oslo", "Cairo", "Delhi", "Kyoto", "Quito"),
    ("color", "shade"): ("red", "blue", "green", "black", "white", "pink", "gold", "gray"),
    ("level", "rank"): ("low", "mid", "high", "top", "basic", "pro", "star", "elite"),
}
"""Names of a text concept and the values its columns draw from."""

INTEGER_CONCEPTS: tuple[tuple[str, str], ...] = (
    ("age", "years"),
    ("score", "points"),
    ("price", "cost"),
    ("weight", "mass"),
    ("length", "size"),
    ("speed", "pace"),
)
"""Names of an integer concept; its values are two digits."""

INTEGER_RANGE = (10, 100)
"""Half-open range of all integer values but identifiers."""

NAME_WORDS = (
    "Ada Abel Amos Anna Aria Beck Ben Bell Bo Cara Carl Cleo Cora Dana Dean Dora Earl Eden Ella Emma "
    "Eva Ezra Faye Finn Gail Gene Gus Hana Hugo Ian Ida Iris Ivan Jack Jade Jean Joy Juan Kara Kent "
    "Kim Kurt Lara Leo Lily Lola Luke Mae Mark Max Mia Mona Nick Nina Noah Nora Olga Omar Otto Paul "
    "Pia Ray Rita Rosa"
)
NAMES: tuple[str, ...] = tuple(NAME_WORDS.split())
"""Values of the `name` columns, each at most once in a table."""
