"""From which turn on a pair counts whose sides begin alike, derived again.

A trajectory is a row of texts: the task, what the agent wrote, the answer, what it wrote, and so on. Two of
them part in the turn of the first text in which they differ: an answer belongs to the turn that follows it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from coevo_jax.audit.sides import Pair, Side, cut, weights_of_turns


def at_parting(
    pairs: Sequence[Pair], is_error: Callable[[str], bool], options: Mapping[str, Any]
) -> Iterator[Pair]:
    """The pairs from the turns where they part; those that do not part in both sides are none.

    Of turns behind the rejected side's first error from there on, `cut_after_error` are kept, all where it is
    not said, and the n-th weighs `error_discount` to the n.
    """
    for pair in pairs:
        turn = parting(texts(pair.chosen), texts(pair.rejected))
        if turn is None:
            continue
        pair = replace(pair, chosen_from=turn, rejected_from=turn)
        errors = [error for error in errors_of(pair.rejected, is_error) if error >= turn]
        yield shortened(pair, min(errors), options) if errors else pair


def shortened(pair: Pair, error: int, options: Mapping[str, Any]) -> Pair:
    """The pair without what the rejected side did too long after an error, and less of the rest."""
    kept, factor = options.get("cut_after_error"), options.get("error_discount", 1.0)
    rejected = pair.rejected if kept is None else cut(pair.rejected, error + 1 + kept)
    behind = rejected.turns - 1 - error
    weights = [1.0] * (error + 1) + [factor**n for n in range(1, behind + 1)]
    return replace(pair, rejected=rejected, rejected_turns=weights_of_turns(tuple(weights), rejected.turns))


def texts(side: Side) -> list[str]:
    """Task, response, answer, response, … of what a side has left."""
    turns = side.episode.turns[: side.turns]
    return [side.episode.prompt, *chain(*((turn["response"], turn["observation"]) for turn in turns))]


def parting(one: Sequence[str], other: Sequence[str]) -> int | None:
    """The turn of the first text in which two rows differ; None where one row has no such turn."""
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    last = (min(len(one), len(other)) - 1) // 2 - 1  # turn that both have
    return None if same is None or same // 2 > last else same // 2


def errors_of(side: Side, is_error: Callable[[str], bool]) -> list[int]:
    """The turns of what a side has left that were answered by an error."""
    answers = [turn["observation"] for turn in side.episode.turns[: side.turns]]
    return [number for number, answer in enumerate(answers) if is_error(answer)]
