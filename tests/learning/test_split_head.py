"""The log-probability head over a mesh: the same numbers, and no word between devices inside the chunks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from coevo_jax.config.options import MeshConfig
from coevo_jax.learning import head
from coevo_jax.learning.head import collisions, scored_logps
from coevo_jax.sharding import HEAD, ROWS, make_mesh, on_mesh

B, K, D, V = 4, 24, 16, 96
COLLECTIVE = re.compile(r"= \S+ (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)")


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    head_VD = rng.normal(size=(V, D)).astype(np.float32)
    hidden_BKD = rng.normal(size=(B, K, D)).astype(np.float32)
    target_BK = rng.integers(0, V, (B, K)).astype(np.int32)
    return head_VD, hidden_BKD, target_BK, np.array([24, 0, 17, 1], np.int32)


def gradient_over(mesh, cotangent, everything):
    """Value and gradient of a weighted sum, compiled for the mesh's shardings."""

    def total(head_VD, hidden_BKD, target_BK, scored_B):
        out = scored_logps(head_VD, hidden_BKD, target_BK, scored_B, mesh)
        return jnp.sum(out * cotangent), out

    rows, weights = (NamedSharding(mesh, spec) for spec in (ROWS, on_mesh(mesh, HEAD)))
    program = jax.jit(
        jax.value_and_grad(total, argnums=(0, 1), has_aux=True), in_shardings=(weights, rows, rows, rows)
    )
    return program.lower(*everything).compile()


@pytest.mark.parametrize(
    ("axes", "kv_heads"), [((2, 2, 2), 2), ((1, 1, 4), 4), ((1, 2, 4), 2), ((1, 4, 1), 2)]
)
def test_a_split_head_equals_the_whole_one_and_is_silent_inside_the_chunks(
    inputs, axes, kv_heads, monkeypatch
):
    monkeypatch.setattr(head, "CHUNK_TOKENS", 10)
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), axes, strict=True))), kv_heads)
    cotangent = np.random.default_rng(1).normal(size=(B, K)).astype(np.float32)
    program = gradient_over(mesh, cotangent, inputs)
    shardings = program.input_shardings[0]
    found = program(*(jax.device_put(x, s) for x, s in zip(inputs, shardings, strict=True)))
    alone = make_mesh(MeshConfig())
    expected = gradient_over(alone, cotangent, inputs)(*inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)
    text = program.as_text()
    bodies = {name: computation(text, name) for name in re.findall(r"body=%?([\w.-]+)", text)}
    assert len(bodies) >= 2 and COLLECTIVE.search(text)
    assert {name: COLLECTIVE.findall(body) for name, body in bodies.items() if COLLECTIVE.search(body)} == {}


def computation(text: str, name: str) -> str:
    """The instructions of one computation of a program."""
    return re.search(rf"^%?{re.escape(name)} .*?^}}", text, re.MULTILINE | re.DOTALL)[0]


def test_collisions_of_a_split_head_equal_those_of_the_whole_one(inputs):
    head_VD, hidden_BKD, _, scored_B = inputs
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    found = jax.jit(lambda *arrays: collisions(*arrays, mesh))(head_VD, hidden_BKD, scored_B)
    np.testing.assert_allclose(found, collisions(head_VD, hidden_BKD, scored_B), atol=2e-5)
