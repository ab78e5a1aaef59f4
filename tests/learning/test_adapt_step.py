"""A step after an episode: whom it believes, which way it goes, and that its optimizer is a fresh AdamW."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from coevo_jax.config.options import BatchConfig, MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.learning.adapt_step import (
    ADAM_EPS,
    Adapted,
    AdaptRates,
    adapt_step,
    fresh_adamw,
    init_adapted,
    jit_adapt_step,
)
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.sharding import make_mesh, replicated
from coevo_jax.trajectory import Ending, Trajectory
from tests.fresh import fresh_params

VOCAB, WIDTH = 24, 16
CONFIG = ModelConfig(
    hidden_size=WIDTH, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=8, intermediate_size=32
)
TOKENS = np.array([3, 5, 7, 2, 9, 1, 4, 8, 6, 2], np.int32)
WROTE = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1, 0], bool)
RATES = AdaptRates(
    mixing=np.float32(0.5),
    head_weight=np.float32(0.25),
    query_above=np.float32(0.1),
    learning_rate_queried=np.float32(1e-3),
    learning_rate_predicted=np.float32(1e-4),
    weight_decay=np.float32(0.0),
)
YES, NO = np.float32(1), np.float32(0)
NEVER = replace(RATES, query_above=np.float32(100))


def rows(count=1, length=16):
    episode = Trajectory(
        task_id="t",
        agent="target",
        sample=0,
        prompt="",
        turns=(),
        reward=1.0,
        ending=Ending.SOLVED,
        tokens=TOKENS,
        agent_mask=WROTE,
        logps=np.zeros(len(TOKENS), np.float32),
    )
    shape = BatchConfig(rows=count, row_length=length, views_per_row=1, pairs=1)
    [batch] = pack_sft([episode], batch=shape, pad_id=0, seed=0).batches
    return batch.tokens


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def step(model):
    return jax.jit(partial(adapt_step, model))


@pytest.fixture(scope="module")
def state(model):
    begun = init_adapted(fresh_params(model, 1), WIDTH)
    kernel = np.random.default_rng(0).normal(size=WIDTH).astype(np.float32)
    return replace(begun, head={"kernel": jnp.asarray(kernel), "bias": jnp.float32(0.3)})


@partial(jax.jit, static_argnums=(0, 2), static_argnames=("mixing", "head_weight"))
def dense(model, state, success=None, mixing=0.5, head_weight=0.25):
    """The loss with all logits at once, in plain words: (loss, (mean H(p), mean H(q), logit))."""
    places = jnp.arange(len(TOKENS))[None]
    until = jnp.full((1, len(TOKENS)), len(TOKENS))
    hidden_TD = model.apply({"params": state.params}, TOKENS[None], places, until)[0]
    before = np.flatnonzero(WROTE) - 1
    p = jax.nn.softmax(output_logits(state.params, hidden_TD[before]), axis=-1)
    q = mixing * jax.nn.one_hot(TOKENS[WROTE], VOCAB) + (1 - mixing) * p
    sure, mixed = (-jnp.mean(jnp.sum(one * jnp.log(one), axis=-1)) for one in (p, q))
    logit = hidden_TD[before].mean(0) @ state.head["kernel"] + state.head["bias"]
    if success is None:
        return 0.0, (sure, mixed, logit)
    chance = jax.nn.sigmoid(logit)
    judged = -jnp.log(chance if success else 1 - chance)
    return (mixed if success else -mixed) + head_weight * judged, (sure, mixed, logit)


def assert_near(found, wanted, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, wanted)


@pytest.mark.parametrize("success", [YES, NO])
def test_loss_and_gradient_are_those_of_whole_logits(model, step, state, success):
    wanted = jax.grad(lambda state: dense(model, state, bool(success))[0])(state)
    loss, (sure, mixed, logit) = dense(model, state, bool(success))
    # A rate of 1 and a huge eps would show the gradient; the norm and the direction do it, too.
    found, seen = step(state, {}, rows(), success, RATES)
    told = seen.uncertainty, seen.mixture_entropy, seen.prediction, seen.loss
    np.testing.assert_allclose(told, (sure, mixed, logit, loss), rtol=2e-5)
    np.testing.assert_allclose(seen.grad_norm, optax.tree.norm(wanted), rtol=1e-4)
    assert (seen.queried, seen.success, seen.learning_rate) == (1, success, np.float32(1e-3))
    clear = jax.tree.map(lambda g: np.abs(g) > 1e-5, wanted)  # below, the sign of a difference is noise
    moved = jax.tree.map(lambda new, old: np.asarray(new - old) / -1e-3, found, state)
    jax.tree.map(
        lambda m, g, c: np.testing.assert_allclose(m[c], np.sign(np.asarray(g))[c], atol=5e-3),
        moved,
        wanted,
        clear,
    )


def test_the_true_success_is_asked_for_above_the_bound_alone(model, step, state):
    _, (sure, _, logit) = dense(model, state)
    assert logit != 0
    for bound, asked in ((float(sure) - 1e-3, True), (float(sure) + 1e-3, False)):
        rates = replace(RATES, query_above=np.float32(bound))
        for success in (YES, NO):
            _, seen = step(state, {}, rows(), success, rates)
            believed = success if asked else float(logit > 0)
            assert (bool(seen.queried), seen.success) == (asked, believed)
            assert seen.learning_rate == np.float32(1e-3 if asked else 1e-4)


def test_a_fresh_head_predicts_failure(step, state):
    fresh = init_adapted(state.params, WIDTH)
    _, seen = step(fresh, {}, rows(), YES, NEVER)
    assert (seen.prediction, seen.success, seen.queried) == (0, 0, 0)
    np.testing.assert_allclose(seen.loss, -seen.mixture_entropy + 0.25 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("mixing", [0.0, 0.5])
@pytest.mark.parametrize("rate", [1e-4, 1e-3])
def test_success_sharpens_and_failure_flattens(model, step, state, mixing, rate):
    """The entropy of the policy itself, too; the head is left out, whose loss pulls elsewhere."""
    own = replace(
        RATES,
        mixing=np.float32(mixing),
        head_weight=np.float32(0),
        learning_rate_queried=np.float32(rate),
    )
    _, (sure, mixed, _) = dense(model, state, mixing=mixing)
    for success, sign in ((YES, -1), (NO, 1)):
        after, seen = step(state, {}, rows(), success, own)
        _, (sure_after, mixed_after, _) = dense(model, after, mixing=mixing)
        assert sign * (mixed_after - mixed) > 0
        assert sign * (sure_after - sure) > 0
        np.testing.assert_allclose(seen.loss, -sign * mixed, rtol=1e-5)


def test_the_head_learns_who_succeeded(model, step, state):
    for success, sign in ((YES, 1), (NO, -1)):
        after, seen = step(state, {}, rows(), success, RATES)
        feature = replace(state, head=after.head)  # the states as they were
        assert sign * (dense(model, feature)[1][2] - seen.prediction) > 0


def test_nothing_moves_at_a_rate_of_zero(step, state):
    still = replace(RATES, learning_rate_queried=np.float32(0), weight_decay=np.float32(0.1))
    found, _ = step(state, {}, rows(), YES, still)
    assert_near(found, state, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mixing", "head_weight"])
def test_a_step_that_is_not_finite_leaves_the_weights_and_the_head(step, state, name):
    """Weight decay, too, which needs no gradient."""
    rates = replace(RATES, weight_decay=np.float32(0.1), **{name: np.float32(np.nan)})
    found, seen = step(state, {}, rows(), YES, rates)
    assert not np.isfinite(seen.grad_norm) and not np.isfinite(seen.loss)
    assert_near(found, state, rtol=0, atol=0)


def weights_and_grads():
    rng = np.random.default_rng(4)
    weights = {"a": rng.normal(size=(3, 4)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)}
    grads = {name: rng.normal(size=one.shape).astype(np.float32) for name, one in weights.items()}
    grads["b"][:3] = [0.0, 1e-8, -1e-12]  # as small as eps, and smaller
    return weights, grads


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_the_optimizer_is_the_first_step_of_a_fresh_adamw(decay):
    weights, grads = weights_and_grads()
    found = fresh_adamw(weights, grads, np.float32(0.02), np.float32(decay))
    outside = optax.adamw(0.02, eps=ADAM_EPS, weight_decay=decay)
    updates, _ = outside.update(grads, outside.init(weights), weights)
    close = {"rtol": 1e-6, "atol": 0.02 * 1e-5}  # theirs divide by 1 - 0.999 in float32
    assert_near(found, optax.apply_updates(weights, updates), **close)
    leaves = {name: torch.nn.Parameter(torch.tensor(one)) for name, one in weights.items()}
    for name, one in leaves.items():
        one.grad = torch.tensor(grads[name])
    torch.optim.AdamW(leaves.values(), 0.02, weight_decay=decay).step()
    theirs = {name: one.detach().numpy() for name, one in leaves.items()}
    assert_near(found, theirs, **close)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(1, 1, 1), (2, 2, 2)])
def test_a_compiled_step_is_the_same_on_a_mesh(step, state, axes):
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), axes, strict=True))), 2)
    split = Transformer(CONFIG, VOCAB, choose_attention(CONFIG, mesh))
    learner = make_learner(split, make_optimizer(OptimizerConfig()), mesh)
    compiled = jit_adapt_step(learner, mesh)
    _, wanted = step(state, {}, rows(), NO, RATES)
    everywhere = jax.tree.map(lambda _: replicated(mesh), state.head)
    places = Adapted(params=learner.shardings.params, head=everywhere)
    own = jax.device_put(jax.tree.map(jnp.copy, state), places)
    after, seen = compiled(own, {}, rows(axes[0] * axes[1]), NO, RATES)
    assert_near(seen, wanted, rtol=2e-5)
    _, again = compiled(after, {}, rows(axes[0] * axes[1]), YES, NEVER)  # other numbers, the same program
    assert compiled._cache_size() == 1
    assert again.queried == 0
