"""The texts that slots hold, from which a new prompt can take its first tokens instead of computing them."""

from collections.abc import Container, Iterable

import numpy as np

WORTH_WAITING = 16  # tokens: a prompt that could take so many more from one under way waits for it


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """Number of tokens that two texts begin with alike."""
    shortest = min(len(one), len(other))
    differs = one[:shortest] != other[:shortest]
    return int(differs.argmax()) if differs.any() else shortest


class Held:
    """The tokens of each slot whose keys and values are in the cache, and which parameters computed them."""

    def __init__(self, slots: int, longest: int) -> None:
        self._tokens = np.zeros((slots, longest), np.int32)
        self.lengths = np.zeros(slots, np.int64)
        self.agents = np.zeros(slots, np.int32)

    def clear(self) -> None:
        self.lengths[:] = 0

    def begin(self, slot: int, agent: int, source: int, length: int) -> None:
        """A slot starts an episode with the first tokens of another's (or its own) text."""
        self._tokens[slot, :length] = self._tokens[source, :length]
        self.lengths[slot], self.agents[slot] = length, agent

    def append(self, slot: int, tokens: np.ndarray) -> None:
        start = int(self.lengths[slot])
        self._tokens[slot, start : start + len(tokens)] = tokens
        self.lengths[slot] += len(tokens)

    def longest_prefix(self, text: np.ndarray, agent: int, without: Container[int] = ()) -> tuple[int, int]:
        """The slot that holds most of a text's beginning, under the same parameters, and how much (or 0, 0).

        At least one token is left to compute: its scores are needed.
        """
        best, source = 0, 0
        for slot in np.flatnonzero(self.agents == agent).tolist():
            if slot in without:
                continue
            length = common_length(self._tokens[slot, : self.lengths[slot]], text[:-1])
            if length > best:
                best, source = length, slot
        return source, best


def worth_waiting(text: np.ndarray, under_way: Iterable[np.ndarray], held: int) -> bool:
    """Whether a prompt under way will hold clearly more of a text's beginning than any slot does now."""
    most = max((common_length(other, text[:-1]) for other in under_way), default=0)
    return most >= held + WORTH_WAITING
