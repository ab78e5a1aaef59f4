"""The TPU kernels of attention: equal to the plain formula when interpreted, and compiled for TPUs.

The compiler comes with libtpu, which `./launch/test.sh --real "TPU compiler"` installs for these slow tests,
or LIBTPU=/path/to/the/folder/around/it names. `pytest -s` prints memory and collectives per chip.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.models import flash_attention as module
from coevo_jax.models.flash_attention import block_pairs, flash_attention
from tests.models.rows import (
    assert_bfloat16_is_close,
    assert_what_no_query_sees_is_not_read,
    plain_attention,
    random_arrays,
    random_trees,
    value_and_gradient,
)
from tests.peers import libtpu_folder

MIB = 2**20


def assert_equals_the_plain_formula(*shape):
    arrays, visible, cotangent = random_arrays(*shape)
    found, found_gradient = value_and_gradient(flash_attention, arrays, visible, cotangent)
    expected, expected_gradient = value_and_gradient(plain_attention, arrays, visible, cotangent)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(found_gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def test_kernels_equal_the_plain_formula_with_its_gradient():
    assert_equals_the_plain_formula(2, 300, 4, 2, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [(3, 1100, 8, 2, 32), (2, 700, 4, 4, 64), (1, 1024, 6, 1, 128), (1, 640, 2, 2, 256), (1, 40, 3, 1, 130)],
)
def test_kernels_equal_the_plain_formula_in_other_shapes(shape):
    assert_equals_the_plain_formula(*shape)


def test_bfloat16_inputs_give_bfloat16_close_to_float32():
    assert_bfloat16_is_close(flash_attention, plain_attention, 1, 200, 2, 1, 16)


def test_only_pairs_of_blocks_with_something_to_see_are_listed():
    """Each in both orders: a query block's keys end with itself, a key block's queries begin with it."""
    visible = random_trees(np.random.default_rng(9), 3, 64)
    by_query, by_key, count = block_pairs(jnp.asarray(visible), 8)
    place = np.arange(64)
    seen = (place[:, None] >= place) & (place[:, None] < visible[:, None, :])
    expected = np.argwhere(seen.reshape(3, 8, 8, 8, 8).any(axis=(2, 4)))
    pairs = expected[:, :1] * 8 + expected[:, 1:]
    assert int(count) == len(pairs) and by_query.shape == (2, 3 * 36 + 1)
    np.testing.assert_array_equal(by_query[:, : len(pairs)].T, pairs)
    np.testing.assert_array_equal(by_key[:, : len(pairs)].T, pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))])
    assert not np.asarray(by_query[:, len(pairs) :]).any() and not np.asarray(by_key[:, len(pairs) :]).any()


def test_what_no_query_sees_is_not_read():
    assert_what_no_query_sees_is_not_read(flash_attention, 128)


@pytest.mark.parametrize(
    ("length", "group_width", "expected"),
    [(300, 128, 128), (512, 2048, 256), (512, 4096, 128), (16_384, 1024, 512), (16_384, 2048, 256)],
)
def test_blocks_are_longer_for_long_rows_and_shorter_for_wide_groups(length, group_width, expected):
    assert module._block_length(length, group_width) == expected


@pytest.fixture(scope="module")
def libtpu() -> Path:
    return libtpu_folder()


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x2"])
def test_kernels_and_a_whole_dpo_step_compile_for_tpus(topology, libtpu, tmp_path):
    script = Path(__file__).parent / "tpu_compile.py"
    environment = {**os.environ, "PYTHONPATH": str(libtpu), "XLA_FLAGS": ""}
    command = [sys.executable, script, tmp_path / "out.json", topology, "2", "2", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads((tmp_path / "out.json").read_text())
    for case in results["kernels"]:
        assert len(case["kernels"]) == 3  # forward, d queries, d keys
        assert case["collectives"] == []
    step = results["step"]
    names = sorted(origin.split("/")[-2] for origin in step["kernels"])
    forward, backward = ["tree_attention_forward"] * 2, ["tree_attention_d_keys", "tree_attention_d_queries"]
    assert names == sorted(forward + backward)  # the forward pass is computed twice: remat "full"
    arguments, temporary = step["argument_bytes"] / MIB, step["temporary_bytes"] / MIB
    print(f"\n{results['device']}: arguments {arguments:.0f} MiB, temporaries {temporary:.0f} MiB a chip")
    # 596 million parameters with two moments in float32, over 2 x 2 (fsdp x tensor) chips: 1,705 MiB.
    assert 1700 < arguments < 1720
    # 4 rows of 2,048 tokens in each of 28 layers, 448 MiB; the head's gradient and its gathered weights, 450.
    assert temporary < 3000
    in_loops = [c for c in step["collectives"] if "while/body" in c["origin"]]
    assert in_loops and all("Transformer" in c["origin"] for c in in_loops)  # the head's chunks have none
