"""What a learning phase learns from, as the audit derives it."""

from dataclasses import dataclass, field
from functools import cached_property

from coevo_jax.audit.reinforced import Reinforced
from coevo_jax.audit.sides import Key, Pair, Side, Turns


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What a phase learns from: pairs, and sides with a weight of imitation of their own."""

    pairs: list[Pair] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)  # each once, in the order in which they come up
    # The weights of what is imitated without a pair, by side and weights of turns, in order.
    extras: dict[tuple[Key, Turns], float] = field(default_factory=dict)
    reinforced: list[Reinforced] = field(default_factory=list)  # each with a place behind all sides

    @property
    def all_sides(self) -> list[Side]:
        """The sides in the order of their numbers in a plan."""
        return [*self.sides, *(one.side for one in self.reinforced)]

    @cached_property
    def places(self) -> dict[Key, int]:
        return {side.key: place for place, side in enumerate(self.sides)}
