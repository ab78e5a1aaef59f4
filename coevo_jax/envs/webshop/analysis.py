"""The terms of a text as Lucene's EnglishAnalyzer has them, which Pyserini and so WebShop search by.

PyStemmer's Porter stemmer is Porter's paper of 1980; Lucene's is the author's later program. `stem` mends
what differs: of 228,622 words, most of them made up with all suffixes, 21,761 in PyStemmer.
"""

import functools
import re
import threading

import Stemmer

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there "
    "these they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
LONGEST_TERM = 255  # of a longer word every piece of this length is a term
# Unicode's word boundaries for Latin text: marks within letters (rock'n'roll, u.s.) and numbers (2.5) bind.
WORD = re.compile(r"\w+(?:(?:(?<=[^\W\d_])['’.:](?=[^\W\d_])|(?<=\d)[.,;'’](?=\d))\w+)*")

_VOWEL = re.compile(r"[aeiou]|[^aeiou]y")
_SYLLABLE = re.compile(r"[aeiou][^aeiou]|[^aeiou]y[^aeiou]")  # a vowel and a consonant: Porter's m > 0
_DOUBLED = re.compile(r"([^aeioubdfglmnprstyz])\1(?:ed|ing)s?$")  # the paper halves bb to tt only
_BLY = re.compile(r"(?<!a)bl(?:[yi](?:ed|ing)?s?|ies)$")
_LOGY = re.compile(r"log(?:[yi](?:ed|ing)?s?|ies)$")
_PORTER = Stemmer.Stemmer("porter")
_LOCK = threading.Lock()  # a stemmer keeps state while it works


def analyze(text: str) -> list[str]:
    """The search terms of a text: words, no possessive, lower case, no stop words, Porter stems."""
    words = (match.group().lower() for match in WORD.finditer(text))
    kept = (word for word in map(_strip_possessive, words) if word not in STOP_WORDS)
    return [stem(word) for long in kept for word in _pieces(long)]


@functools.lru_cache(maxsize=1 << 15)
def stem(word: str) -> str:
    """The stem of a word in lower case, as Lucene's PorterStemmer gives it."""
    if len(word) < 3:
        return word
    with _LOCK:
        doubled = _DOUBLED.search(word)
        if doubled and _VOWEL.search(word, 0, doubled.start()):  # "trekking": trek
            return _PORTER.stemWord(word[: doubled.start() + 1])
        found = _PORTER.stemWord(word)
        if found.endswith("bli") and _BLY.search(word) and _SYLLABLE.search(found[:-3]):
            return _PORTER.stemWord(found[:-1] + "e")  # "assembly" as "assemble"
        if found.endswith("logi") and _LOGY.search(word) and _SYLLABLE.search(found[:-4]):
            return found[:-1]  # "technology", but not "biology", whose rest "bio" has no such syllable
        return found


def _strip_possessive(word: str) -> str:
    return word[:-2] if word.endswith(("'s", "’s")) else word


def _pieces(word: str) -> list[str]:
    if len(word) <= LONGEST_TERM:
        return [word]
    return [word[start : start + LONGEST_TERM] for start in range(0, len(word), LONGEST_TERM)]
