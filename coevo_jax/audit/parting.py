"""From which turn on a pair counts whose sides begin alike, derived again.

A trajectory is a row of texts: the task, what the agent wrote, the answer, what it wrote, and so on. Two of
them part in the turn of the first text in which they differ: an answer belongs to the turn that follows it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from coevo_jax.audit.sides import Pair, Side, cut


def at_parting(pairs: Sequence[Pair], is_error: Callable[[str], bool], behind: int | None) -> Iterator[Pair]:
    """The pairs from the turns where they part; those that do not part in both sides are none.

    Args:
      behind: turns that the rejected side keeps behind its first error from there on; None keeps all.
    """
    for pair in pairs:
        turn = parting(texts(pair.chosen), texts(pair.rejected))
        if turn is not None:
            errors = [] if behind is None else errors_of(pair.rejected, is_error)
            ends = [error + 1 + behind for error in errors if behind is not None and error >= turn]
            rejected = cut(pair.rejected, min(ends)) if ends else pair.rejected
            yield replace(pair, rejected=rejected, chosen_from=turn, rejected_from=turn)


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
    """The turns that were answered by an error."""
    return [number for number, turn in enumerate(side.episode.turns) if is_error(turn["observation"])]
