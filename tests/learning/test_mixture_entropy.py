"""The entropy of a policy mixed with its own choice: by hand, against whole logits, split over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding

from coevo_jax.config.options import MeshConfig
from coevo_jax.learning import head
from coevo_jax.learning.head import scored_logps
from coevo_jax.learning.mixed_head import entropies
from coevo_jax.learning.mixture_entropy import Choices, choices, mixture_entropy
from coevo_jax.sharding import HEAD, ROWS, make_mesh, on_mesh
from tests.learning.test_head import largest_array

B, K, D, V = 4, 40, 16, 96


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(2)
    head_VD, hidden_BKD = (rng.normal(size=size).astype(np.float32) for size in ((V, D), (B, K, D)))
    return (
        head_VD,
        hidden_BKD,
        rng.integers(0, V, (B, K)).astype(np.int32),
        np.array([40, 0, 17, 1], np.int32),
    )


def whole(head_VD, hidden_BKD, target_BK, scored_B, mixing):
    """All logits at once, the mixture written out: its entropy, [B, K]."""
    p_BKV = jax.nn.softmax(hidden_BKD @ head_VD.T, axis=-1)
    q_BKV = mixing * jax.nn.one_hot(target_BK, V) + (1 - mixing) * p_BKV
    return jnp.where(jnp.arange(K) < scored_B[:, None], -jnp.sum(q_BKV * jnp.log(q_BKV), axis=-1), 0.0)


def mixed(head_VD, hidden_BKD, target_BK, scored_B, mixing, mesh=None):
    found = mixture_entropy(choices(head_VD, hidden_BKD, target_BK, scored_B, mesh), mixing)
    return jnp.where(jnp.arange(K) < scored_B[:, None], found, 0.0)


def gradients(function, inputs, weights_BK, **options):
    def total(head_VD, hidden_BKD):
        return jnp.sum(function(head_VD, hidden_BKD, *inputs[2:], **options) * weights_BK)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(*inputs[:2])


def test_two_candidates_by_hand():
    """p = (3/4, 1/4), the first taken, lambda 1/2: q = (7/8, 1/8)."""
    rows = np.array([[np.log(3.0)], [0.0]], np.float32)
    found = choices(rows, np.ones((1, 1, 1), np.float32), np.zeros((1, 1), np.int32), np.ones(1, np.int32))
    np.testing.assert_allclose(found.logps, [[np.log(0.75)]], rtol=1e-6)
    by_hand = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    np.testing.assert_allclose(found.entropies, [[by_hand]], rtol=1e-6)
    by_hand = -7 / 8 * np.log(7 / 8) - 1 / 8 * np.log(1 / 8)
    np.testing.assert_allclose(mixture_entropy(found, 0.5), [[by_hand]], rtol=1e-6)


@pytest.mark.parametrize("mixing", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("chunk_tokens", [21, 10_000])
def test_value_and_gradients_are_those_of_whole_logits(inputs, mixing, chunk_tokens, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_TOKENS", chunk_tokens)
    weights = np.random.default_rng(3).normal(size=(B, K)).astype(np.float32)
    expected, wanted = gradients(whole, inputs, weights, mixing=mixing)
    value, found = gradients(mixed, inputs, weights, mixing=mixing)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted)


def test_choices_are_what_the_other_heads_say(inputs):
    found = choices(*inputs)
    np.testing.assert_allclose(found.logps, scored_logps(*inputs), atol=1e-5)
    head_VD, hidden_BKD, _, scored_B = inputs
    np.testing.assert_allclose(found.entropies, entropies(head_VD, hidden_BKD, scored_B), atol=1e-5)


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=9),
    st.integers(0, 8),
    st.floats(0, 0.96875, width=32),
)
def test_an_entropy_lies_between_nothing_and_that_of_even_chances(logits, taken, mixing):
    """And mixing nothing in gives the policy's own."""
    logps = jax.nn.log_softmax(np.array(logits, np.float32))
    own = float(-jnp.sum(jnp.exp(logps) * logps))
    one = Choices(logps=logps[taken % len(logits)], entropies=jnp.float32(own))
    np.testing.assert_allclose(mixture_entropy(one, 0.0), own, atol=1e-5)
    q = mixing * np.eye(len(logits))[taken % len(logits)] + (1 - mixing) * np.exp(np.asarray(logps, float))
    found = float(mixture_entropy(one, np.float32(mixing)))
    np.testing.assert_allclose(found, -(q * np.log(q)).sum(), atol=2e-5)
    assert -1e-5 <= found <= np.log(len(logits)) + 1e-5


def test_no_array_of_all_logits_exists_forward_or_backward():
    wide = jnp.zeros((1000, 8)), jnp.zeros((2, 512, 8))
    target, scored = jnp.zeros((2, 512), jnp.int32), jnp.full(2, 512)

    def total(head_VD, hidden_BKD):
        return mixture_entropy(choices(head_VD, hidden_BKD, target, scored), 0.5).sum()

    program = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*wide).compile()
    assert largest_array(program) <= 2 * 512 * 1000 // 2


@pytest.mark.parametrize(("axes", "kv_heads"), [((2, 2, 2), 2), ((1, 1, 4), 4)])
def test_a_split_head_equals_a_whole_one(inputs, axes, kv_heads, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_TOKENS", 10)
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), axes, strict=True))), kv_heads)
    weights = np.random.default_rng(3).normal(size=(B, K)).astype(np.float32)
    places = [NamedSharding(mesh, on_mesh(mesh, spec)) for spec in (HEAD, ROWS, ROWS, ROWS)]
    split = [jax.device_put(one, place) for one, place in zip(inputs, places, strict=True)]
    expected, wanted = gradients(mixed, inputs, weights, mixing=0.5)
    value, found = gradients(mixed, split, weights, mixing=0.5, mesh=mesh)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted)
