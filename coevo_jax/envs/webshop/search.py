"""Product search: BM25 with Lucene's analysis, lengths, formula and order of ties.

Source: Lucene's BM25Similarity and EnglishAnalyzer at Pyserini's defaults (k1 0.9, b 0.4), which WebShop
uses. bm25s gives the same scores for texts below 24 terms; longer ones Lucene rounds down, and so do we.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import Stemmer

K1, B = 0.9, 0.4
EXACT_LENGTHS = 24  # Lucene stores shorter lengths as they are, longer ones with four significant bits
_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there "
    "these they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
# Unicode's word boundaries for Latin text: marks within letters (rock'n'roll, u.s.) and numbers (2.5) bind.
WORD = re.compile(r"\w+(?:(?:(?<=[^\W\d_])['’.:](?=[^\W\d_])|(?<=\d)[.,;'’](?=\d))\w+)*")


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchIndex:
    """Postings of all terms, one after the other; shared between threads, never written to."""

    size: int  # number of documents N
    terms: dict[str, int]
    starts: np.ndarray  # int64 [terms + 1]: where the postings of a term begin
    documents: np.ndarray  # int32 [postings]
    impacts: np.ndarray  # float32 [postings]: what one occurrence in the query adds to the score

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.starts.nbytes + self.documents.nbytes + self.impacts.nbytes


def analyze(text: str, stem: "Stemmer.Stemmer | None" = None) -> list[str]:
    """The search terms of a text: words, no possessive, lower case, no stop words, Porter stems."""
    # A stemmer keeps state while it works, so threads must not share one.
    stemmer = stem or Stemmer.Stemmer("porter")
    words = (match.group().lower() for match in WORD.finditer(text))
    kept = [word for word in map(_strip_possessive, words) if word not in STOP_WORDS]
    return stemmer.stemWords(kept)


def _strip_possessive(word: str) -> str:
    return word[:-2] if word.endswith(("'s", "’s")) else word


def build_index(texts: Iterable[str]) -> SearchIndex:
    """Index texts by their position."""
    stemmer = Stemmer.Stemmer("porter")
    terms: dict[str, int] = {}
    term_of, document_of, count_of, lengths = array("i"), array("i"), array("i"), array("i")
    for position, text in enumerate(texts):
        words = analyze(text, stemmer)
        lengths.append(len(words))
        for word, count in Counter(words).items():
            term_of.append(terms.setdefault(word, len(terms)))
            document_of.append(position)
            count_of.append(count)
    term = np.array(term_of, np.int32)
    order = np.argsort(term, kind="stable")  # documents stay in order within a term
    documents = np.array(document_of, np.int32)[order]
    counts = np.array(count_of, np.float64)[order]
    frequency = np.bincount(term, minlength=len(terms))
    length = np.array(lengths, np.int64)
    mean_length = max(length.mean(), 1.0) if len(length) else 1.0
    norm = K1 * (1 - B + B * stored_length(length) / mean_length)
    idf = np.log1p((len(length) - frequency + 0.5) / (frequency + 0.5))
    impacts = np.repeat(idf, frequency) * counts / (counts + norm[documents])
    return SearchIndex(
        size=len(length),
        terms=terms,
        starts=np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64),
        documents=documents,
        impacts=impacts.astype(np.float32),
    )


def stored_length(lengths: np.ndarray) -> np.ndarray:
    """Lengths [N] as Lucene's one-byte norms keep them: exact below 24, then four significant bits."""
    rest = np.maximum(lengths - EXACT_LENGTHS, 0)
    bits = np.frexp(rest.astype(np.float64))[1]  # bit length of each integer
    shift = np.maximum(bits - 4, 0)
    return np.where(lengths < EXACT_LENGTHS, lengths, EXACT_LENGTHS + ((rest >> shift) << shift))


def scores(index: SearchIndex, query: str) -> np.ndarray:
    """BM25 scores float32 [N] of a query; a term counts as often as the query has it."""
    total = np.zeros(index.size, np.float32)
    for word, count in Counter(analyze(query)).items():
        term = index.terms.get(word)
        if term is not None:
            postings = slice(index.starts[term], index.starts[term + 1])
            total[index.documents[postings]] += count * index.impacts[postings]
    return total


def search(index: SearchIndex, query: str, limit: int) -> tuple[int, ...]:
    """Positions of the best `limit` texts, best first, the earlier one first among equals."""
    total = scores(index, query)
    found = np.flatnonzero(total)
    if len(found) > limit:
        least = np.partition(total[found], -limit)[-limit]
        found = found[total[found] >= least]
    order = np.lexsort((found, -total[found]))[:limit]
    return tuple(found[order].tolist())
