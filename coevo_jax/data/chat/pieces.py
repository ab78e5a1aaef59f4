"""The text that each token of a turn adds to it."""

from collections.abc import Callable, Sequence
from itertools import takewhile

Decode = Callable[[list[int]], str]

_BROKEN = "\N{REPLACEMENT CHARACTER}"


def token_texts(tokens: Sequence[int], decode: Decode) -> list[str]:
    """The text that each token adds to a turn.

    A character that several tokens spell stands with the last of them; one that breaks off at the end adds
    nothing. Otherwise the texts, joined, are the decoded tokens.

    Args:
      decode: gives the text of a list of tokens.
    """
    tokens = list(tokens)
    texts = _in_windows(tokens, decode)
    return texts if "".join(texts) == decode(tokens) else _from_the_start(tokens, decode)


def _in_windows(tokens: list[int], decode: Decode) -> list[str]:
    """Each token decoded behind the few before it: as long as the text, not as its square."""
    texts, start, read = [], 0, 0
    for end in range(1, len(tokens) + 1):
        before, whole = decode(tokens[start:read]), decode(tokens[start:end])
        if whole.endswith(_BROKEN) or not whole.startswith(before):
            texts.append("")
            continue
        texts.append(whole[len(before) :])
        start, read = read, end
    return texts


def _from_the_start(tokens: list[int], decode: Decode) -> list[str]:
    """Every beginning decoded anew.

    What a token ends with may be taken back by the next one, as tokenizers do that mark where a word goes on.
    """
    texts: list[str] = []
    before = ""
    for end in range(1, len(tokens) + 1):
        whole = decode(tokens[:end])
        whole = whole if not whole.endswith(_BROKEN) else before
        pairs = zip(before, whole, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        surplus = len(before) - common
        for place in reversed(range(len(texts))):
            kept = max(len(texts[place]) - surplus, 0)
            surplus -= len(texts[place]) - kept
            texts[place] = texts[place][:kept]
        texts.append(whole[common:])
        before = whole
    return texts
