"""What the views of a phase's steps are to be, out of what the recipe gives it.

The trained tokens are the agent's, but never the first token of a row: nothing predicts it. Of a side whose
turns have weights, those of the turns above 0 are trained: where a pair counts from a later turn, that turn
and those after it, which is also where its chosen side is imitated. A token whose weight is 0 for another
reason counts among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from coevo_jax.audit.order import Phase, learn_options
from coevo_jax.audit.pairs import derive
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.reinforced import Reinforced, own_weights
from coevo_jax.audit.rows import fit_rows, turns_of_tokens
from coevo_jax.audit.sides import Side, Turns, weights_of_turns
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import BatchConfig
from coevo_jax.config.recipe import KindWeights


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What a view is to be: its trained tokens' weights, some of which may be 0."""

    side: int
    weights: np.ndarray  # float64 [trained tokens]
    tokens: int  # its length: what losses divide by
    turns: Turns = None

    @property
    def total(self) -> float:
        return float(self.weights.sum())


def weigh(number: int, side: Side, discount: float, turns: Turns = None) -> Weighed:
    """A side whose turns have weights; and each turn counts `discount` of the one after it."""
    of_token = turns_of_tokens(side)
    turns = weights_of_turns(turns, side.turns)
    own = np.ones(len(of_token)) if turns is None else np.array(turns)[of_token]
    credit = float(discount) ** (side.turns - 1 - of_token).astype(np.float64)
    return Weighed(side=number, weights=own * credit, tokens=int(np.count_nonzero(own)), turns=turns)


def from_turn(side: Side, first: int, turns: Turns = None) -> Turns:
    """The weights of a side's turns, those before the first that counts 0."""
    weights = [1.0] * side.turns if turns is None else turns[: side.turns]
    return (*[0.0] * min(first, side.turns), *weights[first:])


def shortened(one: Weighed, other: Weighed, alpha: float) -> Weighed:
    """LD-DPO: of what counts, tokens beyond the length of the pair's other side count `alpha`."""
    beyond = np.flatnonzero(one.weights)[np.count_nonzero(other.weights) :]
    weights = one.weights.copy()
    weights[beyond] *= alpha
    return replace(one, weights=weights)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A pair by the numbers of its sides."""

    kind: str
    chosen: int
    rejected: int
    first: tuple[int, int]  # the turns from which on the chosen and the rejected side count
    rejected_turns: Turns = None


@dataclass(frozen=True, kw_only=True, eq=False)
class StepPlan:
    """A phase's plan beside what it should be."""

    plan: dict[str, Any]
    sides: list[Side]  # after the cut to rows; by the plan's numbers
    links: list[Link]  # the pairs, by the lines of their file
    extras: dict[tuple[int, Turns], float]  # own weight of imitation by side and weights of its turns
    cut: int
    config: AgentConfig
    kinds: Mapping[str, KindWeights]  # of pairs, by their names
    batch: BatchConfig
    reinforced: Mapping[int, Reinforced]  # by side

    @cached_property
    def usable(self) -> list[bool]:
        return [side.length <= self.batch.row_length for side in self.sides]

    @cached_property
    def _seen(self) -> dict[tuple[int, Turns], Weighed]:
        return {}

    def weighed(self, side: int, turns: Turns = None) -> Weighed:
        """A side as imitation is to see it, by the weights of its turns; or as reinforcement is."""
        if side in self.reinforced:
            first, own = self.reinforced[side].first, turns_of_tokens(self.sides[side])
            weights = np.zeros(len(own))
            weights[own >= first] = own_weights(self.sides[side], self.config.surrogate.reduction, first)
            return Weighed(side=side, weights=weights, tokens=int(np.count_nonzero(own >= first)))
        if (side, turns) not in self._seen:
            self._seen[side, turns] = weigh(side, self.sides[side], self.config.turn_discount, turns)
        return self._seen[side, turns]

    def counted(self, pair: int) -> tuple[Weighed, Weighed]:
        """A pair's chosen and rejected side from the turns on that count; imitation sees the first one."""
        link = self.links[pair]
        weights = (None, link.rejected_turns)
        chosen, rejected = (
            self.weighed(side, from_turn(self.sides[side], first, turns))
            for side, first, turns in zip((link.chosen, link.rejected), link.first, weights, strict=True)
        )
        return chosen, rejected

    def views(self, pair: int) -> tuple[Weighed, Weighed]:
        """The chosen and the rejected side as the preference loss is to see them."""
        (chosen, rejected), alpha = self.counted(pair), self.config.ld_alpha
        return shortened(chosen, rejected, alpha), shortened(rejected, chosen, alpha)

    def kind(self, pair: int) -> KindWeights:
        return self.kinds[self.links[pair].kind]


@lru_cache(maxsize=1)  # the checks of a phase follow each other
def course_of(files: RunFiles, phase: Phase) -> StepPlan:
    """The plan of a learning phase with the sides and pairs that the recipe gives it."""
    lesson = derive(files, phase)
    sides, count = fit_rows(lesson.all_sides, files.config.batch)
    numbers = lesson.places
    extras: dict[tuple[int, Turns], float] = {}
    for (key, turns), weight in lesson.extras.items():
        number = numbers[key]
        left = weights_of_turns(turns, sides[number].turns)
        if left is None or any(left):  # what a cut left nothing of is not imitated
            extras[number, left] = extras.get((number, left), 0.0) + weight
    return StepPlan(
        plan=files.json(phase.plan),
        sides=sides,
        links=[
            Link(
                kind=p.kind,
                chosen=numbers[p.chosen.key],
                rejected=numbers[p.rejected.key],
                first=(p.chosen_from, p.rejected_from),
                rejected_turns=p.rejected_turns,
            )
            for p in lesson.pairs
        ],
        extras=extras,
        cut=count,
        config=learn_options(files.config, phase),
        kinds=phase.kinds,
        batch=files.config.batch,
        reinforced=dict(enumerate(lesson.reinforced, start=len(lesson.sides))),
    )
