"""MySQL's default way to compare texts: case, accents and trailing blanks do not count."""

import functools
import sqlite3
import unicodedata

from coevo_jax.envs.intercode_sql.mysql.schema import COLLATION


@functools.lru_cache(maxsize=100_000)
def collation_key(text: str) -> str:
    """Two texts are equal under utf8mb4_general_ci where their keys are; keys sort as the texts do."""
    text = text.rstrip(" ")
    if not text.isascii():
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
        return "".join(letter.upper() if len(letter.upper()) == 1 else "S" for letter in text)
    return text.upper()


def _compare(left: str, right: str) -> int:
    left, right = collation_key(left), collation_key(right)
    return (left > right) - (left < right)


def add_collation(connection: sqlite3.Connection) -> None:
    """Make the collation known to a connection: its files cannot be read without."""
    connection.create_collation(COLLATION, _compare)
