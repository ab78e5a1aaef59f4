"""Distorted actions: what an expert did, spoilt a little, for a corrector to make good.

Adversarial imitation with data augmentation and correction (CAT and DAugGI, arXiv 2103.13887) adds noise to
an expert's continuous actions. Here actions are texts, and noise is an operation on words; all of it is
inferred. Draws are hashes of a name, so that the same turn of the same sample is always distorted alike.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from coevo_jax.trajectory import Trajectory

Operation = Literal["drop_word", "swap_words", "replace_word", "other_action", "other_choice"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
Draw = Callable[[int], int]
"""Draws a number from 0 up to below its argument."""
_WORD = re.compile(r"\w+")
_BITS = 64


class Suggestion(NamedTuple):
    """An action that is suggested to an agent, and the operation that distorted it ("" for none)."""

    action: str
    operation: str = ""


class Context(NamedTuple):
    """What an action is distorted with."""

    told: Sequence[str]  # the task and the answers before the action, the latest last
    others: Sequence[str] = ()  # the expert's actions at other turns
    offered: Sequence[str] = ()  # other actions that the latest answer lists


def hash_draws(name: str) -> Iterator[int]:
    """The numbers of a name, each the first 64 bits of the SHA-256 of "name/0", "name/1" and so on."""
    number = 0
    while True:
        yield int.from_bytes(sha256(f"{name}/{number}".encode()).digest()[: _BITS // 8])
        number += 1


def distort(action: str, context: Context, operations: Sequence[Operation], draw: Draw) -> Suggestion:
    """The action as one of the operations leaves it; as it is where none of them can change it.

    Operations are tried in a drawn order until one can.
    """
    left = list(operations)
    while left:
        operation = left.pop(draw(len(left)))
        found = _distorted[operation](action, context, draw)
        if found is not None:
            return Suggestion(found, operation)
    return Suggestion(action)


def suggestions(
    expert: Trajectory,
    *,
    share: float,
    operations: Sequence[Operation],
    seed: int,
    phase: str,
    sample: int,
    offered: Callable[[str], Sequence[str]] = lambda observation: (),
) -> tuple[Suggestion, ...]:
    """What is suggested at each turn of an expert: its action, distorted with the probability `share`.

    Args:
      seed, phase, sample: of the run, of its phase by name, and of the task: with the task and the turn they
        name the draws.
      offered: reads the actions that an answer lists.
    """
    actions = [turn.action for turn in expert.turns]
    told = [expert.prompt, *(turn.observation for turn in expert.turns)]
    made: list[Suggestion] = []
    for turn, action in enumerate(actions):
        numbers = hash_draws(f"distortion/{seed}/{phase}/{expert.task_id}/{sample}/{turn}")
        if next(numbers) >= share * 2**_BITS:
            made.append(Suggestion(action))
            continue
        context = Context(
            told=told[: turn + 1],
            others=_but(action, actions),
            offered=_but(action, offered(told[turn])),
        )
        made.append(distort(action, context, operations, lambda count, own=numbers: next(own) % count))
    return tuple(made)


def _but(action: str, others: Sequence[str]) -> list[str]:
    """The others that are not the action, each once."""
    return [one for one in dict.fromkeys(others) if one.strip().lower() != action.strip().lower()]


def _drop_word(action: str, context: Context, draw: Draw) -> str | None:
    """Leave out a word behind the first one, which says what kind of action it is."""
    words = list(_WORD.finditer(action))[1:]
    if not words:
        return None
    word = words[draw(len(words))]
    before, after = action[: word.start()], action[word.end() :]
    return before + after[1:] if after[:1] == " " else before.removesuffix(" ") + after


def _swap_words(action: str, context: Context, draw: Draw) -> str | None:
    """Let two different neighbours behind the first word change places."""
    words = list(_WORD.finditer(action))[1:]
    couples = [both for both in pairwise(words) if both[0][0] != both[1][0]]
    if not couples:
        return None
    one, other = couples[draw(len(couples))]
    between = action[one.end() : other.start()]
    return action[: one.start()] + other[0] + between + one[0] + action[other.end() :]


def _replace_word(action: str, context: Context, draw: Draw) -> str | None:
    """Put another word of the latest text that has it in place of a word: a column, an object, a button.

    A word that nothing told has no place to be replaced from: it is left alone.
    """
    able = [(word, others) for word in _WORD.finditer(action) if (others := _beside(word[0], context.told))]
    if not able:
        return None
    word, others = able[draw(len(able))]
    return action[: word.start()] + others[draw(len(others))] + action[word.end() :]


def _beside(word: str, told: Sequence[str]) -> list[str]:
    """The other words of the latest text that has a word; upper and lower case are one."""
    for text in reversed(told):
        words = dict.fromkeys(_WORD.findall(text))
        if word in words:
            return [other for other in words if other.lower() != word.lower()]
    return []


def _other_action(action: str, context: Context, draw: Draw) -> str | None:
    """Take what the expert did at another turn."""
    return context.others[draw(len(context.others))] if context.others else None


def _other_choice(action: str, context: Context, draw: Draw) -> str | None:
    """Take another of the actions that the latest answer lists."""
    return context.offered[draw(len(context.offered))] if context.offered else None


_distorted: dict[str, Callable[[str, Context, Draw], str | None]] = {
    "drop_word": _drop_word,
    "swap_words": _swap_words,
    "replace_word": _replace_word,
    "other_action": _other_action,
    "other_choice": _other_choice,
}
