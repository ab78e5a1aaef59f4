"""The head of two models: equal to whole mixed logits in value and gradient, without ever holding them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from coevo_jax.config.options import MeshConfig
from coevo_jax.learning import head
from coevo_jax.learning.head import scored_logps
from coevo_jax.learning.mixed_head import BRANCH, Branch, entropies, mixed_logps
from coevo_jax.sharding import HEAD, ROWS, make_mesh, on_mesh
from tests.learning.test_head import largest_array
from tests.learning.test_split_head import COLLECTIVE, computation

B, K, D, V = 4, 40, 16, 96
MIX = 0.48


def branch(seed):
    rng = np.random.default_rng(seed)
    return Branch(
        head=rng.normal(size=(V, D)).astype(np.float32), hidden=rng.normal(size=(B, K, D)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(2)
    target_BK = rng.integers(0, V, (B, K)).astype(np.int32)
    return branch(0), branch(1), target_BK, np.array([40, 0, 17, 1], np.int32)


def whole(strong, weak, target_BK, scored_B, mix=MIX):
    """All logits of both models at once: log-probabilities of the mixture, [B, K]."""
    logits_BKV = mix * strong.hidden @ strong.head.T + (1 - mix) * weak.hidden @ weak.head.T
    logps_BKV = jax.nn.log_softmax(logits_BKV, axis=-1)
    picked_BK = jnp.take_along_axis(logps_BKV, target_BK[..., None], axis=-1)[..., 0]
    return jnp.where(jnp.arange(K) < scored_B[:, None], picked_BK, 0.0)


def gradients(function, inputs, weights_BK):
    def total(strong, weak):
        return jnp.sum(function(strong, weak, *inputs[2:]) * weights_BK)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(*inputs[:2])


def chunked(train_weak, mesh=None):
    def mixed(*inputs):
        return mixed_logps(*inputs, mix=MIX, train_weak=train_weak, mesh=mesh).mixed

    return mixed


def assert_near(found, expected, atol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, expected)


def test_a_mixture_of_two_words_by_hand():
    """Logits (2, 0) and (0, 4), mixed half and half: (1, 2), of which the first has 1 / (1 + e)."""
    one = Branch(head=np.eye(2, dtype=np.float32), hidden=np.array([[[2.0, 0.0]]], np.float32))
    other = Branch(head=np.eye(2, dtype=np.float32), hidden=np.array([[[0.0, 4.0]]], np.float32))
    found = mixed_logps(one, other, np.zeros((1, 1), np.int32), np.ones(1, np.int32), mix=0.5)
    by_hand = [-np.log1p(np.exp(1)), -np.log1p(np.exp(-2)), -np.log1p(np.exp(4))]
    np.testing.assert_allclose([float(x[0, 0]) for x in found], by_hand, rtol=1e-6)


@pytest.mark.parametrize("chunk_tokens", [1, 21, 10_000])
def test_value_and_gradients_are_those_of_whole_logits(inputs, chunk_tokens, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_TOKENS", chunk_tokens)
    weights = np.random.default_rng(3).normal(size=(B, K)).astype(np.float32)
    expected, (strong, weak) = gradients(whole, inputs, weights)
    value, found = gradients(chunked(train_weak=True), inputs, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_near(found, (strong, weak))
    value, found = gradients(chunked(train_weak=False), inputs, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_near(found, (strong, jax.tree.map(np.zeros_like, weak)))


def test_both_models_alone_stand_beside_the_mixture(inputs):
    strong, weak, *rest = inputs
    found = mixed_logps(strong, weak, *rest, mix=MIX)
    np.testing.assert_allclose(found.strong, scored_logps(*strong, *rest), atol=1e-5)
    np.testing.assert_allclose(found.weak, scored_logps(*weak, *rest), atol=1e-5)


def test_a_model_mixed_with_itself_is_itself_with_its_share_of_the_gradient(inputs):
    strong, _, *rest = inputs
    found = mixed_logps(strong, strong, *rest, mix=MIX)
    np.testing.assert_allclose(found.mixed, scored_logps(*strong, *rest), atol=1e-5)
    own = jax.grad(lambda one: jnp.sum(mixed_logps(one, strong, *rest, mix=MIX).mixed))(strong)
    alone = jax.grad(lambda one: jnp.sum(scored_logps(*one, *rest)))(strong)
    assert_near(own, jax.tree.map(lambda leaf: MIX * leaf, alone))


def test_entropies_by_hand(inputs):
    (head_VD, hidden_BKD), _, _, scored_B = inputs
    logps = np.asarray(jax.nn.log_softmax(hidden_BKD @ head_VD.T, axis=-1), np.float64)
    expected = np.where(np.arange(K) < scored_B[:, None], -(np.exp(logps) * logps).sum(-1), 0)
    np.testing.assert_allclose(entropies(head_VD, hidden_BKD, scored_B), expected, atol=1e-5)
    even = entropies(np.zeros((V, D), np.float32), hidden_BKD, np.full(B, K))
    np.testing.assert_allclose(even, np.log(V), rtol=1e-6)


@pytest.mark.parametrize("train_weak", [False, True])
def test_no_array_of_all_logits_exists_forward_or_backward(train_weak):
    wide = Branch(head=jnp.zeros((1000, 8)), hidden=jnp.zeros((2, 512, 8)))
    target, scored = jnp.zeros((2, 512), jnp.int32), jnp.full(2, 512)

    def total(strong, weak):
        return mixed_logps(strong, weak, target, scored, mix=MIX, train_weak=train_weak).mixed.sum()

    program = jax.jit(jax.grad(total, argnums=(0, 1))).lower(wide, wide).compile()
    assert largest_array(program) <= 2 * 512 * 1000 // 2
    program = jax.jit(lambda one: entropies(*one, scored)).lower(wide).compile()
    assert largest_array(program) <= 2 * 512 * 1000 // 2


def test_a_frozen_branch_costs_no_backward_pass():
    """Its head and its states have no products in the loop that goes backward."""
    wide = Branch(head=jnp.zeros((1000, 8)), hidden=jnp.zeros((2, 512, 8)))
    target, scored = jnp.zeros((2, 512), jnp.int32), jnp.full(2, 512)

    def products(train_weak):
        def total(strong, weak):
            return mixed_logps(strong, weak, target, scored, mix=MIX, train_weak=train_weak).mixed.sum()

        text = str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(wide, wide))
        return len(re.findall(r"dot_general", text))

    assert products(True) == products(False) + 2


@pytest.mark.parametrize(("axes", "kv_heads"), [((2, 2, 2), 2), ((1, 1, 4), 4), ((1, 2, 4), 2)])
@pytest.mark.parametrize("train_weak", [False, True])
def test_split_heads_equal_whole_ones_and_are_silent_inside_the_chunks(
    inputs, axes, kv_heads, train_weak, monkeypatch
):
    monkeypatch.setattr(head, "CHUNK_TOKENS", 10)
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), axes, strict=True))), kv_heads)
    weights = np.random.default_rng(3).normal(size=(B, K)).astype(np.float32)

    def total(strong, weak, target_BK, scored_B):
        return jnp.sum(chunked(train_weak, mesh)(strong, weak, target_BK, scored_B) * weights)

    place = functools.partial(jax.tree.map, lambda spec: NamedSharding(mesh, on_mesh(mesh, spec)))
    places = place((BRANCH, BRANCH, ROWS, ROWS), is_leaf=lambda x: x in (HEAD, ROWS))
    program = jax.jit(jax.value_and_grad(total, argnums=(0, 1)), in_shardings=places).lower(*inputs).compile()
    found = program(*jax.device_put(inputs, places))
    expected = gradients(chunked(train_weak), inputs, weights)
    assert_near(found, expected)
    text = program.as_text()
    bodies = {name: computation(text, name) for name in re.findall(r"body=%?([\w.-]+)", text)}
    assert len(bodies) >= 2 and COLLECTIVE.search(text)
    assert not any(COLLECTIVE.search(body) for body in bodies.values())


def test_entropies_of_a_split_head_equal_those_of_the_whole_one(inputs):
    (head_VD, hidden_BKD), _, _, scored_B = inputs
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    found = jax.jit(lambda *arrays: entropies(*arrays, mesh))(head_VD, hidden_BKD, scored_B)
    np.testing.assert_allclose(found, entropies(head_VD, hidden_BKD, scored_B), atol=2e-5)
