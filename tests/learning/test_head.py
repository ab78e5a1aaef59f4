"""The log-probability head: equal to the full softmax in value and gradient, without ever holding it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.options import MeshConfig
from coevo_jax.learning import head
from coevo_jax.learning.head import collisions, scored_logps
from coevo_jax.sharding import make_mesh

B, K, D, V = 3, 40, 16, 90


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    head_VD = rng.normal(size=(V, D)).astype(np.float32)
    hidden_BKD = rng.normal(size=(B, K, D)).astype(np.float32)
    target_BK = rng.integers(0, V, (B, K)).astype(np.int32)
    return head_VD, hidden_BKD, target_BK, np.array([40, 0, 17], np.int32)


def plain(head_VD, hidden_BKD, target_BK, scored_B):
    logps_BKV = jax.nn.log_softmax(hidden_BKD @ head_VD.T, axis=-1)
    picked_BK = jnp.take_along_axis(logps_BKV, target_BK[..., None], axis=-1)[..., 0]
    return jnp.where(jnp.arange(K) < scored_B[:, None], picked_BK, 0.0)


@pytest.mark.parametrize("chunk_tokens", [1, 21, 64, 10_000])
def test_value_and_gradient_are_those_of_the_full_softmax(inputs, chunk_tokens, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_TOKENS", chunk_tokens)
    target = np.random.default_rng(1).normal(size=(B, K)).astype(np.float32)

    def value_and_gradient(function):
        def total(head_VD, hidden_BKD):
            out = function(head_VD, hidden_BKD, *inputs[2:])
            return jnp.sum(out * target), out

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(*inputs[:2])

    (_, found), found_gradient = value_and_gradient(scored_logps)
    (_, expected), expected_gradient = value_and_gradient(plain)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(found_gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_ids_of_another_integer_type_change_nothing(inputs):
    head_VD, hidden_BKD, target_BK, scored_B = inputs
    for dtype in (np.uint16, np.int16):
        found = scored_logps(head_VD, hidden_BKD, target_BK.astype(dtype), scored_B)
        np.testing.assert_array_equal(found, scored_logps(*inputs))


def test_collisions_by_hand(inputs):
    head_VD, hidden_BKD, _, scored_B = inputs
    probabilities = jax.nn.softmax(hidden_BKD @ head_VD.T, axis=-1)
    expected = np.log(np.square(np.asarray(probabilities)).sum(-1))
    real = np.arange(K) < scored_B[:, None]
    np.testing.assert_allclose(
        collisions(head_VD, hidden_BKD, scored_B), np.where(real, expected, 0), atol=1e-5
    )
    gradient = jax.grad(lambda h: collisions(h, hidden_BKD, scored_B).sum())(head_VD)
    assert not np.asarray(gradient).any()


def test_bfloat16_states_give_float32_log_probabilities(inputs):
    head_VD, hidden_BKD, target_BK, scored_B = inputs
    found = scored_logps(head_VD, jnp.asarray(hidden_BKD, jnp.bfloat16), target_BK, scored_B)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, scored_logps(*inputs), atol=0.15)


def largest_array(program) -> int:
    """Elements of the largest array of a compiled program."""
    import re

    shapes = re.findall(r"(?:f32|bf16)\[([\d,]+)\]", program.as_text())
    return max(int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes)


def test_no_array_of_all_logits_exists_forward_or_backward():
    head_VD, hidden = jnp.zeros((1000, 8)), jnp.zeros((2, 512, 8))
    target, scored = jnp.zeros((2, 512), jnp.int32), jnp.full(2, 512)

    def gradient(function):
        total = jax.grad(lambda h, x: function(h, x, target, scored).sum(), argnums=(0, 1))
        return jax.jit(total).lower(head_VD, hidden).compile()

    everything = 2 * 512 * 1000
    assert largest_array(gradient(scored_logps)) <= everything // 2
    full = gradient(lambda h, x, t, s: jnp.take_along_axis(jax.nn.log_softmax(x @ h.T), t[..., None], -1))
    assert largest_array(full) >= everything


def test_a_split_vocabulary_is_never_gathered(inputs):
    """Value and gradient on 4 devices that each hold a quarter of the head; none holds all."""
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = make_mesh(MeshConfig(tensor=4))
    rng = np.random.default_rng(0)
    head_VD = rng.normal(size=(96, D)).astype(np.float32)

    def total(head_VD, hidden_BKD):
        return jnp.sum(scored_logps(head_VD, hidden_BKD, *inputs[2:]))

    split, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec("tensor"), PartitionSpec()))
    gradient = jax.jit(
        jax.value_and_grad(total, argnums=(0, 1)),
        in_shardings=(split, everywhere),
        out_shardings=(everywhere, (split, everywhere)),
    )
    found = gradient(head_VD, inputs[1])
    expected = jax.value_and_grad(total, argnums=(0, 1))(head_VD, inputs[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)
    text = gradient.lower(head_VD, inputs[1]).compile().as_text()
    assert "all-reduce" in text
    assert "[96," not in text.replace("[96,16]{1,0} parameter", "")
