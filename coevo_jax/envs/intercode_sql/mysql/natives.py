"""How a function of MySQL is described: what its arguments are read as, what it does, what type it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coevo_jax.envs.intercode_sql.mysql import moments, values
from coevo_jax.envs.intercode_sql.mysql.schema import SqlType

READERS: Mapping[str, Callable[[Any], Any] | None] = {
    "t": values.to_text,
    "n": values.to_number,
    "f": values.to_double,
    "i": values.to_integer,
    "m": moments.moment_of,
    "p": moments.parts_of,
    "c": moments.time_of,
    "r": None,
}
"""Text, number, double, integer, moment, parts of a date, clock time, as it is."""


@dataclass(frozen=True, kw_only=True)
class Native:
    """A function. NULL in gives NULL out, but where it is `aware` of NULL."""

    reads: str  # a letter of READERS for every argument
    function: Callable[..., Any]
    gives: SqlType
    optional: int = 0  # how many of the last arguments may be left out
    more: bool = False  # whether the last argument may be repeated
    aware: bool = False

    def accepts(self, count: int) -> bool:
        """Whether it takes so many arguments."""
        return count >= len(self.reads) - self.optional and (self.more or count <= len(self.reads))

    def reader(self, place: int) -> Callable[[Any], Any] | None:
        """How the argument at a place is read."""
        return READERS[self.reads[min(place, len(self.reads) - 1)]]


def native(reads: str, function: Callable[..., Any], gives: SqlType, **options: Any) -> Native:
    """A description in one line: `reads` may end in "?"s for arguments that may be left out, or in "+"."""
    more = reads.endswith("+")
    plain = reads.rstrip("+").replace("?", "")
    return Native(
        reads=plain, function=function, gives=gives, optional=reads.count("?"), more=more, **options
    )
