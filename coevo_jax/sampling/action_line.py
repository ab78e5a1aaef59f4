"""A stop at the end of the action line, as a table that the device follows token by token.

A turn is "Thought: ..." and "Action: ..."; where an environment's actions are single lines, whatever follows
the action's line is read by nobody. The text so far is in one of a few states, and each token of the
vocabulary leads from one to another. Building the table needs only the text of every token.
"""

from collections.abc import Sequence

import numpy as np

MARKER = "Action:"
_MARKED = len(MARKER)  # the marker stands complete, only spaces after it so far
_ACTING = _MARKED + 1  # inside the action
STATES = _ACTING + 1
"""States of the table; this number itself, led to by a line's end in the action, ends the turn."""


def _after(state: int, character: str) -> int:
    """The state after one more character. Within the marker, a state is the number of its characters read."""
    if state == STATES:
        return STATES
    if state >= _MARKED:
        if character in "\r\n":
            return STATES if state == _ACTING else _MARKED
        return state if character.isspace() else _ACTING
    if character == MARKER[state]:
        return state + 1
    return int(character == MARKER[0])  # no part of the marker but its first letter begins it again


def stop_table(texts: Sequence[str]) -> np.ndarray:
    """Where each token leads from each state: int8 [states, vocabulary]; `STATES` ends the turn."""
    table = np.zeros((STATES, len(texts)), np.int8)
    for token, text in enumerate(texts):
        for start in range(STATES):
            state = start
            for character in text:
                state = _after(state, character)
            table[start, token] = state
    return table


def never_stop() -> np.ndarray:
    """The table of a decoder that stops at end tokens alone."""
    return np.zeros((1, 1), np.int8)
