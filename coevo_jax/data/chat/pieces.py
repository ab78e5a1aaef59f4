"""The text that each token of an agent's turn adds, as the tokens come."""

from collections.abc import Callable, Sequence
from itertools import takewhile

Decode = Callable[[list[int]], str]

WINDOW = 32  # tokens that are decoded again with each new one: more than any character or word is spelt with
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # stands for bytes that are no character yet


class Pieces:
    """The text of every token so far; joined, they are the text of all.

    A character that several tokens spell stands with the last of them. What a token ends with may be taken
    back by the next one, as tokenizers do that mark where a word goes on: the last piece is not final until
    there is another.
    """

    def __init__(self, decode: Decode) -> None:
        self.texts: list[str] = []
        self._decode = decode
        self._window: list[int] = []
        self._before = ""  # text of the window

    def add(self, token: int) -> None:
        """Take the next token."""
        if len(self._window) >= 2 * WINDOW:
            self._move()
        self._window.append(token)
        whole = self._decode(self._window)
        whole = self._before if whole.endswith(UNFINISHED) else whole
        pairs = zip(self._before, whole, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        surplus = len(self._before) - common
        for place in reversed(range(len(self.texts))):
            if surplus <= 0:
                break
            kept = max(len(self.texts[place]) - surplus, 0)
            surplus -= len(self.texts[place]) - kept
            self.texts[place] = self.texts[place][:kept]
        self.texts.append(whole[common:])
        self._before = whole

    def _move(self) -> None:
        """Forget the first tokens of the window, where it does not end within a character."""
        text = self._decode(self._window[-WINDOW:])
        if self._decode(self._window) == self._before and not text.endswith(UNFINISHED):
            self._window, self._before = self._window[-WINDOW:], text


def token_texts(tokens: Sequence[int], decode: Decode) -> list[str]:
    """The text that each token adds to a turn; one that breaks off within a character adds nothing.

    Args:
      decode: gives the text of a list of tokens.
    """
    pieces = Pieces(decode)
    for token in tokens:
        pieces.add(token)
    return pieces.texts
