"""The train step on packed batches: ln 2 at first, what must change nothing, meshes, compile counts."""

from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coevo_jax.config.options import BatchConfig, MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.learning import head
from coevo_jax.learning.logps import view_logps
from coevo_jax.learning.objective import AgentLoss, objective, one_loss
from coevo_jax.learning.optimizer import constant_rate, cosine_rate, make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import jit_score, jit_step, join_batches, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.sharding import make_mesh
from tests.fresh import fresh_params
from tests.learning.packed import PAIR_KINDS, VOCAB, one_batch, packed, random_pairs

CONFIG = ModelConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, intermediate_size=64
)
OPTIMIZER = make_optimizer(OptimizerConfig())
PLAIN = optax.identity()  # Adam's quotient of tiny numbers turns 1e-9 of noise into 1e-4
SIGMOID = one_loss(PREFERENCE_LOSSES["sigmoid"], PAIR_KINDS)
BETA, RATE = np.float32(0.1), np.float32(1e-3)


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def params(model):
    return fresh_params(model, 1)


@cache
def compiled(optimizer, loss, **axes):
    mesh = make_mesh(MeshConfig(**axes), CONFIG.num_kv_heads)
    model = Transformer(CONFIG, VOCAB, choose_attention(CONFIG, mesh))
    shardings = state_shardings(model, optimizer, mesh)
    step = jit_step(model, optimizer, loss, mesh, shardings, {})
    score = jit_score(model, mesh, shardings, {})
    return step, score, partial(init_state, model, optimizer, shardings, 3)


def programs(optimizer=OPTIMIZER, loss=SIGMOID, **axes):
    """Compiled parts, scoring and a fresh state on a mesh."""
    step, score, new_state = compiled(optimizer, loss, **axes)
    return step, score, new_state()


@partial(jax.jit, static_argnums=0, static_argnames="confidence")
def logps_of(model, params, batch, confidence=False):
    return view_logps(model, params, {}, batch, confidence=confidence)


@partial(jax.jit, static_argnums=(0, 3, 4))
def one_gradient(model, params, batch, loss, _chunk_tokens):
    def total(params):
        logps, confidence = view_logps(model, params, {}, batch, confidence=loss.wpo)
        return objective(logps, confidence, batch, beta=jnp.float32(0.1), loss=loss)[0]

    return jax.value_and_grad(total)(params)


def loss_and_gradient(model, params, batches, loss=SIGMOID):
    """Of one step's microbatches together: losses and gradients add up."""
    parts = [one_gradient(model, params, batch, loss, head.CHUNK_TOKENS) for batch in batches]
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def assert_same(found, expected, tolerance=1e-5):
    (loss, gradient), (other_loss, other_gradient) = found, expected
    np.testing.assert_allclose(loss, other_loss, rtol=tolerance)
    scale = float(optax.tree.norm(other_gradient))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * scale), gradient, other_gradient
    )


def referenced(plan, seed=0):
    """The plan's microbatches with a made-up reference that depends on the trajectory alone."""
    batches = [replace(batch, reference_logps=batch.reference_logps.copy()) for batch in plan.batches]
    for index, places in enumerate(plan.locations):
        for number, n in places:
            batches[number].reference_logps[n] = -60 + np.random.default_rng([seed, index]).normal()
    return batches


def test_a_view_counts_its_own_agent_tokens_and_nothing_else(model, params):
    """Every trajectory's log-probability against the full softmax over its own tokens, one by one."""
    pair_set = random_pairs(0)
    plan = packed(pair_set)
    found = [np.asarray(logps_of(model, params, batch)[0]) for batch in plan.batches]
    longest = max(len(trajectory.tokens) for trajectory in pair_set.trajectories)

    @jax.jit
    def every_logp(ids):
        positions, visible = jnp.arange(longest)[None], jnp.full((1, longest), longest)
        hidden = model.apply({"params": params}, ids, positions, visible)
        return jax.nn.log_softmax(output_logits(params, hidden), axis=-1)[0]

    for trajectory, places in zip(pair_set.trajectories, plan.locations, strict=True):
        ids = np.pad(trajectory.tokens, (0, longest - len(trajectory.tokens)))[None]
        logps = np.asarray(every_logp(ids))
        trained = np.flatnonzero(trajectory.agent_mask)
        expected = sum(float(logps[t - 1, trajectory.tokens[t]]) for t in trained)
        for number, n in places:
            assert found[number][n] == pytest.approx(expected, abs=1e-4)


def test_credit_per_turn_weighs_the_tokens_of_a_view(model, params):
    pair_set = random_pairs(1, tasks=1)
    (plain,), (discounted,) = (packed(pair_set, turn_discount=d).batches for d in (1.0, 0.5))
    weights = np.asarray(discounted.view_weight)
    assert set(np.unique(weights)) >= {0.0, 0.25, 0.5, 1.0}
    np.testing.assert_array_equal(weights > 0, np.asarray(plain.view_weight) > 0)
    assert not np.allclose(logps_of(model, params, plain)[0], logps_of(model, params, discounted)[0])


def test_the_first_step_of_dpo_is_ln_2():
    step, score, state = programs()
    batch = one_batch()
    batch = replace(batch, reference_logps=np.asarray(score(state.params, {}, batch)))
    _, metrics = take_step(step, state, {}, [batch], BETA, RATE)
    total, count = metrics["loss/pair"]
    assert abs(float(total) / float(count) - np.log(2)) < 1e-3
    assert float(count) == len(random_pairs(0).pairs)  # padding pairs do not count
    total, count = metrics["rewards/margins/expert_failure"]
    assert float(count) == 8 and abs(float(total)) < 1e-3


def test_equal_arrays_give_exactly_ln_2():
    batch = one_batch()
    one_pair = replace(batch, weight=np.where(np.arange(len(batch.weight)) == 0, batch.weight, 0))
    _, metrics = objective(jnp.asarray(batch.reference_logps), None, one_pair, beta=BETA, loss=SIGMOID)
    assert [float(x) for x in metrics["loss/pair"]] == [np.float32(np.log(2)), 1]


def test_swapping_the_sides_negates_every_margin(model, params):
    batch = one_batch(1)
    logps, _ = logps_of(model, params, batch)
    swapped = replace(batch, chosen=batch.rejected, rejected=batch.chosen)
    margins = [
        objective(logps, None, one, beta=BETA, loss=SIGMOID)[1]["rewards/margins"][0]
        for one in (batch, swapped)
    ]
    assert float(margins[0]) == -float(margins[1]) != 0


def test_padding_garbage_and_the_order_of_pairs_change_nothing(model, params):
    batch = one_batch(2)
    expected = loss_and_gradient(model, params, [batch])
    tokens = batch.tokens
    place = np.arange(tokens.tokens.shape[1])
    padding = (tokens.visible_until == place + 1) & (tokens.positions == 0)
    garbage = replace(tokens, tokens=np.where(padding, 13, tokens.tokens))
    unused = place >= tokens.scored[:, None]
    garbage = replace(
        garbage, target=np.where(unused, 17, tokens.target), source=np.where(unused, 3, tokens.source)
    )
    assert padding.any() and unused.any()
    assert_same(loss_and_gradient(model, params, [replace(batch, tokens=garbage)]), expected)
    order = np.random.default_rng(0).permutation(len(batch.weight))
    fields = {name: getattr(batch, name)[order] for name in ("chosen", "rejected", "weight", "kind")}
    assert_same(loss_and_gradient(model, params, [replace(batch, **fields)]), expected)


@pytest.mark.slow
def test_the_type_of_ids_changes_nothing(model, params):
    batch = one_batch(2)
    narrow = jax.tree.map(lambda x: x.astype(np.uint8) if x.max() < 256 else x, batch.tokens)
    narrow = replace(batch, tokens=replace(batch.tokens, tokens=narrow.tokens, target=narrow.target))
    assert narrow.tokens.tokens.dtype == np.uint8
    assert_same(loss_and_gradient(model, params, [narrow]), loss_and_gradient(model, params, [batch]), 1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_shared_prefixes_change_neither_loss_nor_gradient(model, params, reduction):
    pair_set = random_pairs(3)
    shared, whole = (packed(pair_set, share_prefixes=share, reduction=reduction) for share in (True, False))
    assert shared.shared > 0.3 and whole.shared == 0
    assert len(shared.batches) == len(whole.batches) == 1
    assert_same(
        loss_and_gradient(model, params, referenced(shared)),
        loss_and_gradient(model, params, referenced(whole)),
    )


@pytest.mark.slow
def test_shapes_and_accumulation_change_neither_loss_nor_gradient(model, params):
    """The same pairs as one step: in one microbatch, in several smaller ones, in other rows."""
    pair_set = random_pairs(4, tasks=6)
    count = len(pair_set.pairs)
    expected = loss_and_gradient(model, params, referenced(packed(pair_set, rows=16, pairs=count)))
    for shape in (
        {"rows": 2},
        {"rows": 1, "row_length": 200},
        {"rows": 3, "row_length": 130, "views_per_row": 3},
    ):
        plan = packed(pair_set, step_pairs=count, pairs=8, **shape)
        assert plan.steps == (tuple(range(len(plan.batches))),) and len(plan.batches) > 1
        assert_same(loss_and_gradient(model, params, referenced(plan)), expected)


@pytest.mark.parametrize("chunk", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_the_size_of_a_chunk_changes_nothing(model, params, chunk, monkeypatch):
    batch = one_batch(5)
    expected = loss_and_gradient(model, params, [batch])
    monkeypatch.setattr(head, "CHUNK_TOKENS", chunk)
    assert_same(loss_and_gradient(model, params, [batch]), expected)


def step_over(plan, batches, optimizer=PLAIN, loss=SIGMOID, rate=0.1):
    step, _, state = programs(optimizer, loss)
    for numbers in plan.steps:
        own = [batches[number] for number in numbers]
        state, metrics = take_step(step, state, {}, own, BETA, np.float32(rate))
    return jax.device_get(state.params), {k: float(a) / max(float(b), 1e-9) for k, (a, b) in metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sigmoid", *(pytest.param(n, marks=pytest.mark.slow) for n in ("aot", "kto"))]
)
def test_a_step_of_several_microbatches_equals_one(name):
    """Uncoupled losses add gradients up; coupled ones take two passes. Parameters and metrics agree."""
    loss = one_loss(PREFERENCE_LOSSES[name], PAIR_KINDS)
    assert loss.coupled == (name != "sigmoid")
    pair_set = random_pairs(6)
    count = len(pair_set.pairs)
    one, several = packed(pair_set), packed(pair_set, rows=2, pairs=8, step_pairs=count)
    assert len(one.steps[0]) == 1 < len(several.steps[0])
    expected, expected_metrics = step_over(one, referenced(one), loss=loss)
    found, metrics = step_over(several, referenced(several), loss=loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-5)
    assert (
        metrics["pairs"] == expected_metrics["pairs"] == count
    )  # to the last bit, however many microbatches
    assert metrics["tokens"] == int(metrics["tokens"])


def test_wpo_weighs_pairs_by_the_policys_confidence(model, params):
    """By hand: the mean over scored tokens of log p - log sum p^2, both sides, exponentiated, at most 1."""
    batch = one_batch(7)
    loss = AgentLoss(kinds=PAIR_KINDS, by_kind=SIGMOID.by_kind, wpo=True)
    logps, confidence = logps_of(model, params, batch, confidence=True)
    _, metrics = objective(logps, confidence, batch, beta=BETA, loss=loss)
    margin = (logps - batch.reference_logps)[batch.chosen] - (logps - batch.reference_logps)[batch.rejected]
    weight = np.minimum(
        1, np.exp(np.asarray(confidence)[batch.chosen] + np.asarray(confidence)[batch.rejected])
    )
    expected = np.sum((weight * -np.asarray(jax.nn.log_sigmoid(BETA * margin)))[batch.weight > 0])
    assert float(metrics["loss/pair"][0]) == pytest.approx(float(expected), rel=1e-5)
    assert not np.allclose(weight, 1)


def test_confidence_is_a_mean_over_the_tokens_that_weigh_something(model, params):
    """Tokens that LD-DPO's alpha 0 leaves out of the sum are neither in the mean nor in its divisor."""
    made = one_batch()
    weights = np.array(made.view_weight)
    n = int(made.chosen[0])
    row, view = divmod(n, weights.shape[1])
    weights[row, view, np.flatnonzero(weights[row, view])[2:]] = 0
    cut, fewer = replace(made, view_weight=weights), np.array(made.token_count)
    assert fewer[n] > 2
    fewer[n] = 2
    found = [
        logps_of(model, params, one, confidence=True)[1][n] for one in (cut, replace(cut, token_count=fewer))
    ]
    assert found[0] == found[1] != 0


def test_every_kind_of_pair_has_a_loss_of_its_own(model, params):
    batch = one_batch(8)
    logps, _ = logps_of(model, params, batch)
    names = ("sigmoid", "ipo", "hinge")
    mixed = AgentLoss(kinds=PAIR_KINDS, by_kind=tuple(PREFERENCE_LOSSES[name] for name in names))
    _, metrics = objective(logps, None, batch, beta=BETA, loss=mixed)
    for name, kind in zip(names, ("expert_target", "expert_failure", "failure_failure"), strict=True):
        _, alone = objective(
            logps, None, batch, beta=BETA, loss=one_loss(PREFERENCE_LOSSES[name], PAIR_KINDS)
        )
        assert float(metrics[f"loss/pair/{kind}"][0]) == pytest.approx(float(alone[f"loss/pair/{kind}"][0]))


def test_the_joined_batch_of_a_step_names_the_same_views():
    plan = packed(random_pairs(9), rows=2, pairs=8, step_pairs=100)
    batches = referenced(plan)
    joined = join_batches(batches)
    at = 0
    for batch in batches:
        count = len(batch.weight)
        for side in ("chosen", "rejected"):
            found = joined.reference_logps[getattr(joined, side)[at : at + count]]
            np.testing.assert_array_equal(found, batch.reference_logps[getattr(batch, side)])
        at += count
    assert float(joined.step_share) == 1


def test_sft_is_a_batch_without_pairs_and_learns_it():
    step, _, state = programs()
    shape = BatchConfig(rows=8, row_length=96, views_per_row=6, pairs=24)
    plan = pack_sft(random_pairs(10).trajectories, batch=shape, pad_id=0, seed=0)
    losses = []
    for _ in range(30):
        state, metrics = take_step(step, state, {}, plan.batches[:1], np.float32(1), np.float32(3e-3))
        losses.append(float(metrics["loss"][0]))
    assert losses[0] == pytest.approx(np.log(VOCAB), rel=0.3)
    assert losses[-1] < 0.6 * losses[0]
    assert float(metrics["pairs"][0]) == 0
    take_step(step, state, {}, [one_batch()], BETA, RATE)
    assert step.whole._cache_size() == 1  # SFT, DPO and every learning rate share one program


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("sft", marks=pytest.mark.slow), "dpo"])
@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 8}, marks=pytest.mark.slow),
        {"data": 2, "fsdp": 2, "tensor": 2},
        pytest.param({"fsdp": 2, "tensor": 4}, marks=pytest.mark.slow),
    ],
)
def test_every_mesh_gives_the_single_devices_numbers(axes, kind):
    batch = one_batch(5)
    if kind == "sft":
        shape = BatchConfig(rows=8, row_length=batch.tokens.tokens.shape[1], views_per_row=4)
        batch = pack_sft(random_pairs(10).trajectories, batch=shape, pad_id=0, seed=0).batches[0]

    def run(optimizer, rate, **axes):
        step, _, state = programs(optimizer, **axes)
        for _ in range(5):
            state, metrics = take_step(step, state, {}, [batch], BETA, np.float32(rate))
        return jax.device_get(state.params), float(metrics["loss"][0])

    (expected, expected_loss), (found, loss) = run(PLAIN, 0.1), run(PLAIN, 0.1, **axes)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_a_mesh_that_needs_more_devices_is_refused():
    with pytest.raises(ConfigError, match="needs 16 devices, found 8"):
        make_mesh(MeshConfig(data=16))


def test_learning_rates_by_hand():
    assert [constant_rate(step, 10, 1.0, 0.2) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    rates = [cosine_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[9:])) and rates[-1] < 1e-3
