"""Adapters on a frozen base: the same model as their merged weights, and nothing of the base is trained."""

import re
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from coevo_jax.config.options import LoraConfig, MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.learning.logps import view_logps
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import make_learner
from coevo_jax.learning.train_step import jit_score, jit_step, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.lora import merge, model_variables, plain
from coevo_jax.models.transformer import Transformer
from coevo_jax.sharding import make_mesh
from tests.fresh import fresh_adapters, fresh_params
from tests.learning.packed import PAIR_KINDS, VOCAB, one_batch

LORA = LoraConfig(rank=3, alpha=6.0)
CONFIG = ModelConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    intermediate_size=64,
    lora=LORA,
)
SIGMOID = one_loss(PREFERENCE_LOSSES["sigmoid"], PAIR_KINDS)
PLAIN = optax.identity()
BETA, RATE = np.float32(0.1), np.float32(1e-2)


@pytest.fixture(scope="module")
def base(model):
    return fresh_params(plain(model))


@pytest.fixture(scope="module")
def fresh(model):
    return fresh_adapters(model)


def moved(tree, seed=1):
    """Adapters as training leaves them: no zeros."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return structure.unflatten([x + rng.normal(0, 0.1, x.shape).astype(np.float32) for x in leaves])


def hidden(model, variables, seed=0):
    tokens = np.random.default_rng(seed).integers(0, VOCAB, (2, 40)).astype(np.int32)
    positions = jnp.broadcast_to(jnp.arange(40), tokens.shape)
    return jax.jit(model.apply)(variables, tokens, positions, jnp.full_like(tokens, 40))


def test_fresh_adapters_change_nothing(model, base, fresh):
    """To the bit in the merged weights; the two forward passes are different programs, which round apart."""
    expected = hidden(plain(model), {"params": base})
    np.testing.assert_allclose(hidden(model, model_variables(fresh, base)), expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, merge(base, fresh, LORA), base)
    assert all(np.abs(layer["a"]).max() > 0 for layer in fresh["layers"].values())


@pytest.mark.parametrize("targets", [LORA.target_modules, ("query", "down")])
def test_adapters_compute_what_their_merged_weights_compute(base, targets):
    lora = LORA.model_copy(update={"target_modules": targets})
    model = Transformer(CONFIG.model_copy(update={"lora": lora}), VOCAB)
    adapters = moved(fresh_adapters(model))
    assert set(adapters["layers"]) == set(targets)
    found = hidden(model, model_variables(adapters, base))
    np.testing.assert_allclose(
        found, hidden(plain(model), {"params": merge(base, adapters, lora)}), atol=1e-5
    )
    assert np.abs(found - hidden(plain(model), {"params": base})).max() > 1e-2


def test_merged_weights_by_hand(base, fresh):
    adapters = moved(fresh)
    merged = merge(base, adapters, LORA)
    for layer in range(2):
        pair = jax.tree.map(lambda x, layer=layer: np.asarray(x[layer]), adapters["layers"])
        gate = pair["gate"]["a"] @ pair["gate"]["b"] * (6.0 / 3)
        expected = np.asarray(base["layers"]["gate"][layer]) + gate
        np.testing.assert_allclose(merged["layers"]["gate"][layer], expected, atol=1e-6)
        output = np.einsum("hdr,ro->hdo", pair["output"]["a"], pair["output"]["b"]) * 2
        expected = np.asarray(base["layers"]["output"][layer]) + output
        np.testing.assert_allclose(merged["layers"]["output"][layer], expected, atol=1e-6)
    np.testing.assert_array_equal(merged["embedding"], base["embedding"])


def test_gradients_are_those_through_the_merged_weights(model, base, fresh):
    adapters, batch = moved(fresh), one_batch()
    weights = np.random.default_rng(0).normal(size=batch.token_count.shape).astype(np.float32)

    def direct(adapters):
        return jnp.sum(weights * view_logps(model, adapters, base, batch)[0])

    def through_merged(adapters):
        merged = merge(base, adapters, LORA)
        return jnp.sum(weights * view_logps(plain(model), merged, {}, batch)[0])

    found, expected = jax.jit(jax.grad(direct))(adapters), jax.jit(jax.grad(through_merged))(adapters)
    scale = float(optax.tree.norm(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), found, expected)
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found)) > 1e-4 * scale


def computed(compiled, shape: str) -> Counter:
    """Which operations of a program give an array of that shape, save those that only pass one on."""
    operations = re.findall(rf"= f32\[{shape}\]\S* ([\w-]+)\(", compiled.as_text())
    return Counter(operations) - Counter({name: 99 for name in ("parameter", "get-tuple-element")})


@pytest.mark.slow
def test_no_gradient_of_the_head_or_of_a_frozen_weight_is_computed():
    """By reading the compiled step: full training computes arrays of these shapes, adapters never do."""
    vocab = 1009  # no other array has an axis of this size
    adapted = Transformer(CONFIG, vocab)
    steps, costs = {}, {}
    for name, model in (("adapters", adapted), ("all", plain(adapted))):
        learner, step, _ = learning(PLAIN, model=model)
        frozen = learner.init_frozen(0) if learner.frozen_shardings else {}
        lowered = step.whole.lower(learner.init(0), frozen, one_batch(), BETA, RATE)
        steps[name] = lowered.compile()
        costs[name] = steps[name].cost_analysis()["flops"]
    head, stacked = "1009,32", "2,64,32"  # embedding and head [V, D]; all layers of `down` [L, F, D]
    assert computed(steps["all"], head) and computed(steps["all"], stacked)
    assert not computed(steps["adapters"], head) and not computed(steps["adapters"], stacked)
    assert costs["adapters"] < 0.85 * costs["all"]


def learning(optimizer=PLAIN, *, model=None, **axes):
    model = model or Transformer(CONFIG, VOCAB)
    mesh = make_mesh(MeshConfig(**axes), model.config.num_kv_heads)
    learner = make_learner(model.clone(attention=choose_attention(model.config, mesh)), optimizer, mesh)
    step = jit_step(learner.model, optimizer, SIGMOID, mesh, learner.shardings, learner.frozen_shardings)
    score = jit_score(learner.model, mesh, learner.shardings, learner.frozen_shardings)
    return learner, step, score


def copied(tree):
    return jax.tree.map(np.array, tree)


@pytest.mark.slow
def test_two_agents_learn_apart_and_the_base_stays_bit_for_bit():
    learner, step, score = learning(make_optimizer(OptimizerConfig()))
    base, target, failure = learner.init_frozen(0), learner.init(0), learner.init(0)
    batch = one_batch()
    batch = replace(batch, reference_logps=np.asarray(score(target.params, base, batch)))
    before = copied(base)
    target, metrics = take_step(step, target, base, [batch], BETA, RATE)
    total, count = metrics["loss/pair"]
    assert abs(float(total) / float(count) - np.log(2)) < 1e-3  # fresh adapters are their own reference
    alone = copied(failure.params)
    for _ in range(2):
        target, _ = take_step(step, target, base, [batch], BETA, RATE)
    jax.tree.map(np.testing.assert_array_equal, copied(failure.params), alone)
    jax.tree.map(np.testing.assert_array_equal, copied(base), before)
    assert all(np.abs(factors["b"]).max() > 0 for factors in target.params["layers"].values())


def test_a_state_holds_the_adapters_and_their_moments_alone():
    learner, _, _ = learning(make_optimizer(OptimizerConfig()))
    state = learner.abstract()
    D, H, F, L, r = 32, 4 * 8, 64, 2, 3
    adapters = L * r * (4 * (D + H) + 3 * (D + F))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == adapters
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 3 * adapters + 2  # moments and two counters
    sharded, _, _ = learning(make_optimizer(OptimizerConfig()), data=2, fsdp=2, tensor=2)
    down = sharded.shardings.params["layers"]["down"]
    [a, b] = (down[name].spec for name in "ab")
    assert (a, b) == (PartitionSpec(None, "tensor"), PartitionSpec(None, None, "fsdp"))


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param(axes, marks=pytest.mark.slow)
        for axes in ({"data": 2, "fsdp": 2, "tensor": 2}, {"data": 8}, {"fsdp": 8}, {"fsdp": 2, "tensor": 4})
    ],
)
def test_every_mesh_gives_the_single_devices_numbers(axes):
    batch = one_batch(5)

    def run(**axes):
        learner, step, _ = learning(**axes)
        base = learner.init_frozen(0)
        state = replace(
            learner.init(0),
            params=jax.device_put(moved(copied(learner.init(0).params)), learner.shardings.params),
        )
        for _ in range(5):
            state, metrics = take_step(step, state, base, [batch], BETA, np.float32(0.1))
        return (
            jax.device_get(state.params),
            float(metrics["loss"][0]),
            copied(merge(base, state.params, LORA)),
        )

    (expected, expected_loss, expected_merged), (found, loss, merged) = run(), run(**axes)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), merged, expected_merged)


def test_bfloat16_computes_close_to_float32_and_adapters_stay_float32(model, base, fresh):
    """Shapes of the gradient only: XLA's CPU backend has no such product of bfloat16."""
    half, adapters = Transformer(CONFIG.model_copy(update={"dtype": "bfloat16"}), VOCAB), moved(fresh)
    found = hidden(half, model_variables(adapters, base))
    np.testing.assert_allclose(found, hidden(model, model_variables(adapters, base)), atol=0.15)

    def loss(adapters):
        return jnp.sum(view_logps(half, adapters, base, one_batch())[0])

    gradient = jax.eval_shape(jax.grad(loss), adapters)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "feed_forward", "full"])
def test_remat_policies_change_no_gradient(base, fresh, remat):
    batch, adapters, found = one_batch(), moved(fresh), []
    for policy in ("none", remat):
        model = Transformer(CONFIG.model_copy(update={"remat": policy}), VOCAB)

        def loss(adapters, model=model):
            return jnp.sum(view_logps(model, adapters, base, batch)[0])

        found.append(jax.jit(jax.grad(loss))(adapters))
    scale = float(optax.tree.norm(found[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), *found)
