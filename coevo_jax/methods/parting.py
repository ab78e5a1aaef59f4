"""Pairs that count from the turn where their sides part: what both share is only their prompt.

Ours, from what was measured of expert-over-failure pairs: two sides that go wrong late share most of their
turns, where a pair pulls both ways at once, and a failure's turns behind its first error are pushed down as a
whole, good recoveries too. So a pair counts from the first turn in which its sides differ, and the rejected
side may end soon after its first error, or weigh less and less there. All options are our choices.
"""

from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import Field

from coevo_jax.methods.better_over_worse import better_over_worse
from coevo_jax.methods.expert_over import expert_over
from coevo_jax.methods.material import Material, Preference, cut_turns
from coevo_jax.trajectory import Trajectory

Turns = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


def expert_over_at_parting(
    material: Material,
    *,
    max_extra_turns: Turns | None = 5,
    cut_after_error: Turns | None = None,
    error_discount: Share = 1.0,
) -> Iterator[Preference]:
    """The pairs of `expert_over`, from the turn on in which expert and agent part.

    A pair whose sides never differ while both go on is left out.

    Args:
      max_extra_turns: rejected trajectories are cut to the expert's turns plus this many; null never cuts.
      cut_after_error: the rejected side keeps this many turns behind its first error from the parting turn
        on; null never cuts. An error is an answer to an invalid action, or one that the environment calls so.
      error_discount: each turn of the rejected side behind that error weighs this factor of the one before.
    """
    for preference in expert_over(material, max_extra_turns=max_extra_turns):
        yield from at_parting(preference, material.is_error, cut_after_error, error_discount)


def success_over_failure_at_parting(
    material: Material, *, cut_after_error: Turns | None = None, error_discount: Share = 1.0
) -> Iterator[Preference]:
    """Pairs of a success and a failure of one task, both played by agents, from the turn where they part on.

    A pair whose sides never differ while both go on is left out.

    Args:
      cut_after_error: the failure keeps this many turns behind its first error from the parting turn on;
        null never cuts. An error is an answer to an invalid action, or one that the environment calls so.
      error_discount: each turn of the failure behind that error weighs this factor of the one before.
    """
    for preference in better_over_worse(material, only="all"):
        if preference.chosen.success and preference.rejected.failure:
            yield from at_parting(preference, material.is_error, cut_after_error, error_discount)


def at_parting(
    preference: Preference,
    is_error: Callable[[str], bool],
    cut_after_error: int | None,
    error_discount: float,
) -> Iterator[Preference]:
    """The preference from the turn where its sides part; nothing where they do not."""
    turn = parting_turn(preference.chosen, preference.rejected)
    if turn is None:
        return
    rejected = preference.rejected
    error = first_error(rejected, turn, is_error)
    if error is not None and cut_after_error is not None:
        rejected = cut_turns(rejected, error + 1 + cut_after_error)
    weights = None
    if error is not None and error_discount < 1:
        weights = tuple(error_discount ** max(number - error, 0) for number in range(len(rejected.turns)))
    yield Preference(preference.chosen, rejected, turn, turn, weights)


def parting_turn(one: Trajectory, other: Trajectory) -> int | None:
    """The first turn, from 0, in which two trajectories of a task differ, by their texts.

    They differ in what the agent saw before it wrote, or in what it wrote. None where one ends before that.
    """
    seen = one.prompt, other.prompt
    for number, (ours, theirs) in enumerate(zip(one.turns, other.turns, strict=False)):
        if seen[0] != seen[1] or ours.response != theirs.response:
            return number
        seen = ours.observation, theirs.observation
    return None


def first_error(trajectory: Trajectory, first_turn: int, is_error: Callable[[str], bool]) -> int | None:
    """The first turn from `first_turn` on that was answered by an error; None where there is none."""
    answers = enumerate(turn.observation for turn in trajectory.turns)
    return next((number for number, answer in answers if number >= first_turn and is_error(answer)), None)
