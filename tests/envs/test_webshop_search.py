"""WebShop's search: terms, scores and order as Pyserini's, on small texts with the values it gave.

`python -m tests.real.webshop_search` asks Pyserini itself, on a whole catalogue.
"""

import math

import bm25s
import numpy as np
import pytest

from coevo_jax.envs.webshop.analysis import analyze, stem
from coevo_jax.envs.webshop.search import build_index, scores, search, stored_length


def named(texts: list[str]) -> dict[str, str]:
    """Texts with ids in the order of the list."""
    return {f"B{number:03}": text for number, text in enumerate(texts)}


def test_analysis_by_hand():
    assert analyze("The Women's RUNNING shoes, 2.5 lbs. of U.S. cotton and e-book's!") == (
        ["women", "run", "shoe", "2.5", "lb", "u.", "cotton", "e", "book"]
    )


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("assembly", "assembl"),
        ("assemblies", "assembl"),
        ("assemble", "assembl"),
        ("possibly", "possibl"),
        ("incredibly", "incred"),
        ("probably", "probabl"),
        ("usably", "usabl"),
        ("bly", "bly"),
        ("psychology", "psycholog"),
        ("technologies", "technolog"),
        ("geology", "geologi"),  # "geo" has no syllable before a consonant
        ("biology", "biologi"),
        ("trekking", "trek"),
        ("trekked", "trek"),
        ("embedding", "embed"),
        ("fully", "fulli"),
        ("rolling", "roll"),
        ("us", "us"),  # two letters are left alone
        ("ds", "ds"),
    ],
)
def test_words_are_stemmed_as_lucene_stems_them(word, expected):
    assert stem(word) == expected


def test_a_text_is_found_by_another_form_of_its_word():
    index = build_index({"B1": "easy assembly", "B2": "easy technology"})
    assert search(index, "assemble", 5) == (0,)
    assert search(index, "technologies", 5) == (1,)


def test_words_longer_than_lucenes_terms_are_cut_in_pieces():
    assert analyze("x" * 600) == ["x" * 255, "x" * 255, "x" * 90]


def test_bm25_by_hand():
    index = build_index(named(["red shoe shoe", "blue shoe", "green hat"]))
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = 7 / 3
    first = idf * 2 / (2 + 0.9 * (0.6 + 0.4 * 3 / mean))
    second = idf * 1 / (1 + 0.9 * (0.6 + 0.4 * 2 / mean))
    assert scores(index, "shoes").tolist() == pytest.approx([first, second, 0.0])
    assert scores(index, "shoes shoe").tolist() == pytest.approx([2 * first, 2 * second, 0.0])
    assert search(index, "shoe", 5) == (0, 1)
    assert search(index, "unknown of the", 5) == ()


def test_texts_without_a_term_do_not_count():
    texts = ["red shoe shoe", "blue shoe", "green hat"]
    full = scores(build_index(named(texts)), "shoe")
    assert scores(build_index(named([*texts, "", "of the"])), "shoe").tolist() == [*full.tolist(), 0.0, 0.0]


def test_lengths_are_stored_as_lucene_stores_them():
    # Exact below 24 and up to 24 + 15, then steps of 2, 4, 8 ... above 24.
    lengths = np.array([0, 1, 23, 24, 39, 40, 41, 42, 55, 56, 59, 60, 87, 88, 1000])
    stored = [0, 1, 23, 24, 39, 40, 40, 42, 54, 56, 56, 60, 84, 88, 984]
    assert stored_length(lengths).tolist() == stored


def test_equal_scores_are_ordered_by_the_id_as_text():
    index = build_index(
        {"b": "red shoe", "B9": "red shoe", "B10": "shoe shoe", "B1": "red shoe", "É": "a shoe"}
    )
    # "shoe shoe" and the shorter "a shoe" score higher; then B1 < B9 < b.
    assert search(index, "shoe", 5) == (2, 4, 3, 1, 0)
    assert search(index, "red shoe", 5) == (3, 1, 0, 2, 4)


def test_equal_scores_at_the_cut_are_those_of_the_smallest_ids():
    ids = [f"B{number}" for number in range(61)]  # as text B1, B10, B11, ..., B19, B2, B20 ...
    texts = dict.fromkeys(reversed(ids), "red shoe") | {"B60": "shoe shoe"}
    places = list(texts)
    found = [places[hit] for hit in search(build_index(texts), "shoe", 50)]
    assert found == ["B60", *sorted(ids[:60])[:49]]
    assert "B6" in ids and "B6" not in found and "B52" in found


def test_scores_agree_with_bm25s():
    rng = np.random.default_rng(0)
    words = [f"w{number}x" for number in range(60)]
    texts = [" ".join(rng.choice(words, rng.integers(1, 23))) for _ in range(300)]
    ours = build_index(named(texts))
    theirs = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    theirs.index([analyze(text) for text in texts], show_progress=False)
    for _ in range(50):
        query = list(rng.choice(words, 4, replace=False))
        expected = theirs.get_scores(analyze(" ".join(query)))
        np.testing.assert_allclose(scores(ours, " ".join(query)), expected, rtol=1e-5, atol=1e-6)
