"""Noun taggers: which words of a product title name what it is."""

import functools
import importlib
import re
import threading
from collections.abc import Callable

from coevo_jax.config.strict import ConfigError

NounTagger = Callable[[str], tuple[str, ...]]
SPACY_MODEL = "en_core_web_sm"
SPACY_NOUNS = frozenset({"NOUN", "PROPN"})
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Titles are noun phrases, in which taggers call nearly every content word a noun or a name.
_FUNCTION_WORDS = (
    "a about after all an and any are as at be before but by can each every for from has have if in "
    "inside into is it its more most no non not of off on onto or other our out over per so such than "
    "that the their these this those to under up upon very via was when which while with within without "
    "you your"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def nouns_by_words(title: str) -> tuple[str, ...]:
    """Every word of letters that is no function word, in lower case. Needs no model."""
    words = (match.group().lower() for match in WORD.finditer(title))
    return tuple(word for word in words if word not in FUNCTION_WORDS)


def _spacy_tagger() -> NounTagger:
    try:
        # Optional, and loaded by name: requirements.txt does not have it.
        spacy = importlib.import_module("spacy")
    except ImportError:
        raise ConfigError(
            "env.options.noun_tagger: found 'spacy', but spaCy is not installed: pip install spacy, and "
            f"python -m spacy download {SPACY_MODEL}; or set noun_tagger: words"
        ) from None
    try:
        model = spacy.load(SPACY_MODEL)
    except OSError:
        raise ConfigError(
            f"env.options.noun_tagger: found 'spacy', but its model {SPACY_MODEL} is not installed: "
            f"python -m spacy download {SPACY_MODEL}; or set noun_tagger: words"
        ) from None
    lock = threading.Lock()  # a pipeline is not made for several threads

    def tag(title: str) -> tuple[str, ...]:
        with lock:
            return tuple(token.text.lower() for token in model(title) if token.pos_ in SPACY_NOUNS)

    return tag


def _words_tagger() -> NounTagger:
    return nouns_by_words


NOUN_TAGGERS: dict[str, Callable[[], NounTagger]] = {"words": _words_tagger, "spacy": _spacy_tagger}


@functools.lru_cache(maxsize=2)
def noun_tagger(name: str) -> NounTagger:
    """The tagger of a name of NOUN_TAGGERS, loaded once and remembering titles.

    Raises:
      ConfigError: spaCy or its model is missing.
    """
    return functools.lru_cache(maxsize=65_536)(NOUN_TAGGERS[name]())
