"""How unlikely tokens were, as the page shades them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from coevo_jax.report.browser import browser_payload
from coevo_jax.report.cast import cast_of
from coevo_jax.report.shading import decoder_of, level, turn_shades
from coevo_jax.run_folder.results import load_results
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.report.made_run import make_run


def letters(tokens):
    return "".join(map(chr, tokens))


def written(*turns: str, logps) -> Trajectory:
    """An episode whose tokens are letters: each turn, its end token "$", and an observation of two tokens."""
    text = "?".join(["p", *(f"{turn}$" for turn in turns)])
    mask = np.concatenate([[False], *([False] + [True] * (len(turn) + 1) for turn in turns)])
    values = np.zeros(len(text), np.float32)
    values[mask] = logps
    return Trajectory(
        task_id="a",
        agent="target",
        sample=0,
        prompt="p",
        turns=tuple(Turn(response=turn, action=turn, observation="o") for turn in turns),
        reward=0.0,
        ending=Ending.FAILED,
        tokens=np.array([ord(c) for c in text], np.int32),
        agent_mask=mask,
        logps=values,
    )


def test_a_shade_is_a_fifth_of_doubt_and_certain_tokens_have_none():
    probabilities = {1.0: 0, 0.96: 0, 0.9: 1, 0.79: 2, 0.59: 3, 0.39: 4, 0.19: 5, 1e-9: 5}
    assert {p: level(math.log(p)) for p in probabilities} == probabilities


def test_runs_of_characters_have_one_shade_each_and_the_end_token_none():
    sure, unsure = 0.0, math.log(0.5)
    one = written("abc", "de", logps=[sure, unsure, unsure, unsure, sure, sure, unsure])
    assert turn_shades(one, letters) == [[1, 0, 2, 3], [2, 0]]


def test_nothing_is_shaded_that_is_not_known():
    one = written("abc", logps=[0.0, -1.0, 0.0, 0.0])
    assert turn_shades(one, letters) == [[1, 0, 1, 4, 1, 0]]
    assert turn_shades(replace(one, logps=np.zeros_like(one.logps)), letters) is None  # an expert's
    assert turn_shades(replace(one, turns=one.turns * 2), letters) is None
    other = (replace(one.turns[0], response="xyz"),)
    assert turn_shades(replace(one, turns=other), letters) is None


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", rounds=1, tasks=5)


def test_a_run_without_a_whole_tokenizer_has_no_shades(folder):
    assert decoder_of(folder) is None
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    assert decoder_of(folder) is None
    payload = browser_payload(folder, cast_of(load_results(folder)), 0.6)
    assert {t["shades"] for t in payload["trajectories"]} == {None}


def test_a_run_s_own_tokenizer_is_read(folder):
    (folder / "tokenizer").mkdir()
    tokenizer = Tokenizer(models.BPE(vocab={"ab": 0, "c": 1, "a": 2, "b": 3}, merges=[("a", "b")]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    decode = decoder_of(folder)
    assert decode is not None and decode([0, 1]) == "abc"
