"""The benchmark of an imported checkpoint writes, imports and steps on a real folder."""

import argparse

import pytest

from benchmarks import backbone


@pytest.mark.slow
def test_a_random_checkpoint_is_written_imported_and_stepped_on(tmp_path):
    backbone.write_checkpoint(tmp_path, "tiny", 500)
    args = argparse.Namespace(dtype="float32", remat="none", attention="auto", steps=1)
    found = backbone.measure(tmp_path, args)
    assert found["losses"][0] == pytest.approx(0.6931, abs=1e-3)
    assert found["stored_bytes"] > 2 * found["parameters"]
    row = backbone.row_of("tiny", backbone.config_of(tmp_path, {}), found)
    assert len(row) == len(backbone.COLUMNS) and float(row[5].replace(",", "")) > 0
