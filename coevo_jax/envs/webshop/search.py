"""Product search: BM25 with Lucene's analysis, lengths, formula and order of ties.

Source: Lucene's BM25Similarity at Pyserini's defaults (k1 0.9, b 0.4), which WebShop uses, in Lucene's order
of 32-bit operations: scores equal there are equal here. Pyserini orders equals by their id as text.
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coevo_jax.envs.webshop.analysis import analyze

K1, B = np.float32(0.9), np.float32(0.4)
EXACT_LENGTHS = 24  # Lucene stores shorter lengths as they are, longer ones with four significant bits


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchIndex:
    """Postings of all terms, one after the other; shared between threads, never written to.

    Documents are numbered in the order of their ids.
    """

    positions: np.ndarray  # int64 [documents N]: place of each in the mapping the index was built from
    terms: dict[str, int]
    starts: np.ndarray  # int64 [terms + 1]: where the postings of a term begin
    documents: np.ndarray  # int32 [postings]
    idf: np.ndarray  # float32 [terms]
    gains: np.ndarray  # float32 [postings]: occurrences, each worth less in a longer document
    impacts: np.ndarray  # float32 [postings]: what one occurrence in the query adds to the score

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        arrays = (self.positions, self.starts, self.documents, self.idf, self.gains, self.impacts)
        return sum(array.nbytes for array in arrays)


def build_index(texts: Mapping[str, str]) -> SearchIndex:
    """Index texts by id; `search` finds them by their position in the mapping."""
    ids = list(texts)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    terms: dict[str, int] = {}
    term_of, document_of, count_of, lengths = array("i"), array("i"), array("i"), array("i")
    for number, position in enumerate(order):
        words = analyze(texts[ids[position]])
        lengths.append(len(words))
        for word, count in Counter(words).items():
            term_of.append(terms.setdefault(word, len(terms)))
            document_of.append(number)
            count_of.append(count)
    term = np.array(term_of, np.int32)
    by_term = np.argsort(term, kind="stable")  # documents stay in order within a term
    documents = np.array(document_of, np.int32)[by_term]
    frequency = np.bincount(term, minlength=len(terms))
    length = np.array(lengths, np.int64)
    idf = _idf(frequency, int(np.count_nonzero(length)))
    gains = np.array(count_of, np.float32)[by_term] * _norm_inverse(length)[documents]
    return SearchIndex(
        positions=np.array(order, np.int64),
        terms=terms,
        starts=np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64),
        documents=documents,
        idf=idf,
        gains=gains,
        impacts=_impacts(np.repeat(idf, frequency), gains),
    )


def stored_length(lengths: np.ndarray) -> np.ndarray:
    """Lengths [N] as Lucene's one-byte norms keep them: exact below 24, then four significant bits."""
    rest = np.maximum(lengths - EXACT_LENGTHS, 0)
    bits = np.frexp(rest.astype(np.float64))[1]  # bit length of each integer
    shift = np.maximum(bits - 4, 0)
    return np.where(lengths < EXACT_LENGTHS, lengths, EXACT_LENGTHS + ((rest >> shift) << shift))


def _idf(frequency: np.ndarray, documents: int) -> np.ndarray:
    """Weight float32 [terms] of terms that so many of the documents have; empty documents do not count."""
    return np.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)


def _norm_inverse(length: np.ndarray) -> np.ndarray:
    """What one occurrence gains [N]: less in documents longer than the mean of those that are not empty."""
    mean = np.float32(length.sum() / max(np.count_nonzero(length), 1)) or np.float32(1.0)
    relative = B * stored_length(length).astype(np.float32) / mean
    return np.float32(1.0) / (K1 * ((np.float32(1.0) - B) + relative))


def _impacts(weight: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return weight - weight / (np.float32(1.0) + gains)


def scores(index: SearchIndex, query: str) -> np.ndarray:
    """BM25 scores float32 [N] of a query, in the order of ids; a term counts as often as the query has it."""
    total = np.zeros(len(index.positions))  # Lucene adds in 64 bits too
    for word, count in Counter(analyze(query)).items():
        term = index.terms.get(word)
        if term is not None:
            postings = slice(index.starts[term], index.starts[term + 1])
            added = (
                index.impacts[postings]
                if count == 1
                else _impacts(np.float32(count) * index.idf[term], index.gains[postings])
            )
            total[index.documents[postings]] += added
    return total.astype(np.float32)


def search(index: SearchIndex, query: str, limit: int) -> tuple[int, ...]:
    """Positions of the best `limit` texts, best first, the smaller id first among equals."""
    total = scores(index, query)
    found = np.flatnonzero(total)
    if len(found) > limit:
        least = np.partition(total[found], -limit)[-limit]
        found = found[total[found] >= least]
    order = np.argsort(-total[found], kind="stable")[:limit]
    return tuple(index.positions[found[order]].tolist())
