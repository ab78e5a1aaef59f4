"""A config that was cut off, as by a full disk or a broken copy: its keys are not blamed alone."""

import random

import pytest

from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from tests.tiny import CONFIG


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 400), marks=pytest.mark.slow)])
def test_a_cut_config_is_read_or_the_cut_is_named(tmp_path, seeds):
    path = tmp_path / "run.yaml"
    ends = {random.Random(seed).randrange(60, len(CONFIG)) for seed in seeds}
    refused = 0
    for end in sorted(ends):
        path.write_text(CONFIG[:end])
        try:
            load_config(path)
        except ConfigError as error:
            refused += 1
            told = str(error)
            last = CONFIG[:end].count("\n") + 1
            whole = CONFIG[end - 1] == "\n"
            assert str(path) in told and (whole or "was it cut off there?" in told or "line " in told), last
    assert refused


def test_a_whole_file_says_nothing_of_a_cut(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: x\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "cut off" not in str(caught.value)
