"""What was suggested to an agent, drawn again: an expert's actions, some of them distorted.

The draws of a turn are numbers of 64 bits: number n is the first 8 bytes of the SHA-256 of

    distortion/SEED/PHASE/TASK/SAMPLE/TURN/n

The first one below 2^64 times the share distorts the turn. Then the operations are tried, each drawn from
those that are left, until one can change the action; every draw of one of k takes a number modulo k:

    drop_word     a word behind the first, with one space behind it, or else before it
    swap_words    two different words that stand next to each other behind the first
    replace_word  a word that was told, by another of the latest text that has it
    other_action  another action of the same expert
    other_choice  another action that the latest text lists, as the environment reads it

Told are the task and the answers before the turn; a word is a run of letters, digits and underscores.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import count, pairwise

from coevo_jax.audit.reading import Episode

NAMES = ("drop_word", "swap_words", "replace_word", "other_action", "other_choice")
Pick = Callable[[int], int]
Offered = Callable[[str], Sequence[str]]
Made = tuple[str, str]  # what is suggested, and the operation that distorted it; "" for none


def suggested(
    expert: Episode,
    share: float,
    operations: Sequence[str],
    name: tuple[int, str, int],
    offered: Offered = lambda text: (),
) -> list[Made]:
    """The suggestion of every turn of an expert.

    Args:
      name: seed, phase and sample.
      offered: the environment's reading of what a text lists.
    """
    made = []
    seed, phase, sample = name
    for number, turn in enumerate(expert.turns):
        lots = _lots(f"distortion/{seed}/{phase}/{expert.task_id}/{sample}/{number}")
        action = turn["action"]
        if next(lots) < share * 2**64:
            told = [expert.prompt] + [one["observation"] for one in expert.turns[:number]]
            actions = [one["action"] for one in expert.turns]
            others = {"other_action": actions, "other_choice": offered(told[-1])}
            made.append(distorted(action, told, others, operations, lambda k, own=lots: next(own) % k))
        else:
            made.append((action, ""))
    return made


def distorted(
    action: str,
    told: Sequence[str],
    others: Mapping[str, Sequence[str]],
    operations: Sequence[str],
    pick: Pick,
) -> Made:
    """An action after the first of the drawn operations that can change it."""
    left = list(operations)
    while left:
        name = left[pick(len(left))]
        left.remove(name)
        outcomes = list(_outcomes(name, action, told, others.get(name, ())))
        # Words with several outcomes are drawn first, then one of their outcomes.
        if outcomes:
            own = outcomes[pick(len(outcomes))]
            return (own[pick(len(own))] if name == "replace_word" else own[0]), name
    return action, ""


def _lots(name: str) -> Iterator[int]:
    for number in count():
        yield int(sha256(f"{name}/{number}".encode()).hexdigest()[:16], 16)


def _outcomes(name: str, action: str, told: Sequence[str], others: Sequence[str]) -> Iterator[Sequence[str]]:
    """What an operation can make of an action, grouped by the place that it changes."""
    spans = [match.span() for match in re.finditer(r"\w+", action)]
    if name == "drop_word":
        for start, end in spans[1:]:
            if action[end : end + 1] == " ":
                yield [action[:start] + action[end + 1 :]]
            else:
                yield [action[: start - (action[start - 1] == " ")] + action[end:]]
    elif name == "swap_words":
        for (a, b), (c, d) in pairwise(spans[1:]):
            if action[a:b] != action[c:d]:
                yield [action[:a] + action[c:d] + action[b:c] + action[a:b] + action[d:]]
    elif name == "replace_word":
        for start, end in spans:
            other = _neighbours(action[start:end], told)
            if other:
                yield [action[:start] + one + action[end:] for one in other]
    else:
        for place, other in enumerate(others):
            if other.strip().lower() != action.strip().lower() and other not in others[:place]:
                yield [other]


def _neighbours(word: str, told: Sequence[str]) -> list[str]:
    having = [words for text in told if word in (words := re.findall(r"\w+", text))]
    return [one for one in dict.fromkeys(having[-1]) if one.lower() != word.lower()] if having else []
