"""The clipped surrogate: values by hand, gradients of a naive implementation, and what changes nothing."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coevo_jax.batch import PreferenceBatch, Reinforcement, TokenBatch
from coevo_jax.config.options import BatchConfig, MeshConfig, ModelConfig
from coevo_jax.data.packing.plan import pack, with_token_reference
from coevo_jax.data.pairing import PairSet
from coevo_jax.data.reinforced import Credit
from coevo_jax.learning.logps import score
from coevo_jax.learning.objective import AgentLoss, objective
from coevo_jax.learning.surrogate import Surrogate, clipped_surrogate, k3, reinforce
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import jit_step, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.sharding import make_mesh
from tests.fresh import fresh_params
from tests.learning.packed import VOCAB, random_pairs

CONFIG = ModelConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, intermediate_size=64
)
SURROGATE = Surrogate(clip_low=0.2, clip_high=0.3, kl=0.05)
LOSS = AgentLoss(kinds=(), by_kind=(), surrogate=SURROGATE)
SHAPE = {"rows": 8, "row_length": 96, "views_per_row": 6, "pairs": 4}


def test_a_ratio_is_clipped_only_where_it_has_gone_as_far_as_its_sign_wants():
    ratio = jnp.array([1.0, 1.25, 1.5, 0.5, 1.5, 0.5])
    advantage = jnp.array([2.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    found = clipped_surrogate(ratio, advantage, clip_low=0.2, clip_high=0.3)
    np.testing.assert_allclose(found, [-2.0, -1.25, -1.3, -0.5, 1.5, 0.8], rtol=1e-6)
    total = lambda r: jnp.sum(clipped_surrogate(r, advantage, clip_low=0.2, clip_high=0.3))  # noqa: E731
    np.testing.assert_allclose(jax.grad(total)(ratio)[1:], [-1.0, 0.0, -1.0, 1.0, 0.0], rtol=1e-6)


def test_k3_is_never_negative_and_0_at_the_reference():
    logps = jnp.array([-1.0, -2.0, -2.0])
    reference = jnp.array([-1.0, -1.0, -3.0])
    np.testing.assert_allclose(k3(logps, reference), [0.0, np.e - 2, np.exp(-1.0)], rtol=1e-6)
    assert float(jax.grad(lambda x: k3(x, jnp.float32(-1.0)))(jnp.float32(-1.0))) == 0


def by_hand() -> PreferenceBatch:
    """One row of three scored tokens; two views share the first, a third view is not reinforced."""
    nothing: Any = None
    view_weight = np.float32([[[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]]])
    given = Reinforcement(
        weight=np.float32([0.5, 0.25, 0]),
        advantage=np.float32([[[2, 2, 0, 0], [-4, 0, -4, 0], [0, 0, 0, 0]]]),
        old_logps=np.float32([[[-1, -2, 0, 0], [-1, 0, -3, 0], [0, 0, 0, 0]]]),
        reference_logps=np.float32([[-1, -2, -2, 0]]),
    )
    return PreferenceBatch(
        tokens=TokenBatch(nothing, nothing, nothing, nothing, nothing, np.int32([3])),
        view_weight=view_weight,
        reference_logps=np.zeros(3, np.float32),
        sft_weight=np.zeros(3, np.float32),
        reward=np.zeros(3, np.float32),
        token_count=np.int32([2, 2, 3]),
        chosen=np.zeros(1, np.int32),
        rejected=np.zeros(1, np.int32),
        weight=np.zeros(1, np.float32),
        kind=np.zeros(1, np.int32),
        step_share=np.float32(1),
        reinforcement=given,
    )


LOGPS = jnp.array([[-1 + np.log(1.5), -2 + np.log(1.1), -3 + np.log(0.5), 7.0]], jnp.float32)


def test_the_term_and_its_metrics_by_hand():
    """Ratios 1.5, 1.1 and 0.5: clipped at 1.3 where it is pushed up, not where down; and at 0.8."""
    loss, metrics = reinforce(LOGPS, by_hand(), Surrogate(clip_low=0.2, clip_high=0.3))
    first, second = 0.5 * (-2 * 1.3 - 2 * 1.1), 0.25 * (4 * 1.5 + 4 * 0.8)
    assert float(loss) == pytest.approx(first + second, rel=1e-5)
    means = {name: float(n) / float(d) for name, (n, d) in metrics.items()}
    assert means["loss/surrogate"] == pytest.approx(first + second, rel=1e-5)
    assert means["ratio"] == pytest.approx((1.5 + 1.1 + 1.5 + 0.5) / 4, rel=1e-5)
    assert (means["clip_ratio/low_mean"], means["clip_ratio/high_mean"]) == (0.25, 0.25)
    assert means["clip_ratio/region_mean"] == 0.5
    assert means["advantages"] == -1.0
    tied, more = reinforce(LOGPS, by_hand(), Surrogate(clip_low=0.2, clip_high=0.3, kl=2.0))
    each = [np.exp(d) - d - 1 for d in (-np.log(1.5), -np.log(1.1), 1 - np.log(0.5))]
    expected = 2.0 * (0.75 * each[0] + 0.5 * each[1] + 0.25 * each[2])
    assert float(tied - loss) == pytest.approx(expected, rel=1e-4)
    assert float(more["loss/kl"][0]) == pytest.approx(expected, rel=1e-4)
    assert float(more["kl"][0] / more["kl"][1]) == pytest.approx(
        (2 * each[0] + each[1] + each[2]) / 4, rel=1e-4
    )


def test_a_shared_token_has_the_gradient_of_all_its_views():
    grad = jax.grad(lambda x: reinforce(x, by_hand(), Surrogate(clip_low=0.2, clip_high=0.3))[0])(LOGPS)
    # The first is clipped in one view, not in the other; the third is clipped; the last is no token.
    np.testing.assert_allclose(grad, [[0.25 * 4 * 1.5, -0.5 * 2 * 1.1, 0.0, 0.0]], rtol=1e-5)


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_whatever_stands_where_no_token_is_makes_no_gradient_nan(kl):
    batch = by_hand()
    assert batch.reinforcement is not None
    wild = replace(
        batch.reinforcement,
        old_logps=np.where(batch.view_weight > 0, batch.reinforcement.old_logps, -np.float32(3e38)),
        reference_logps=np.float32([[-1, -2, -2, 3e38]]),
    )
    surrogate = Surrogate(clip_low=0.2, clip_high=0.2, kl=kl)
    value = jax.value_and_grad(lambda x, b: reinforce(x, b, surrogate)[0])
    found, expected = value(LOGPS, replace(batch, reinforcement=wild)), value(LOGPS, batch)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_token_that_was_all_but_impossible_has_a_finite_gradient():
    batch = by_hand()
    assert batch.reinforcement is not None
    rare = replace(batch.reinforcement, old_logps=batch.reinforcement.old_logps - 200)
    surrogate = Surrogate(clip_low=0.2, clip_high=0.2)
    loss, grad = jax.value_and_grad(lambda x: reinforce(x, replace(batch, reinforcement=rare), surrogate)[0])(
        LOGPS
    )
    assert np.isfinite(loss) and np.isfinite(grad).all()


def groups(seed: int, *, tasks: int = 3) -> tuple[PairSet, dict[int, Credit]]:
    """Random trajectories with shared beginnings, one twice, and made-up records and advantages."""
    rng = np.random.default_rng(seed)
    found = [
        replace(
            one, logps=np.where(one.agent_mask, rng.uniform(-5, -3.5, len(one.tokens)), 0).astype(np.float32)
        )
        for one in random_pairs(seed, tasks=tasks).trajectories
    ]
    found.append(replace(found[0], sample=9, logps=found[0].logps - np.float32(0.125) * found[0].agent_mask))
    turns = [int(np.sum(np.diff(one.agent_mask.astype(int), prepend=0) == 1)) for one in found]
    credits = {
        index: Credit(advantages=tuple(float(x) for x in rng.normal(size=count)), weight=1.0 + index % 2)
        for index, count in enumerate(turns)
    }
    return PairSet(trajectories=tuple(found), pairs=()), credits


def planned(pair_set, credits, *, reduction="token", **shape):
    return pack(
        pair_set,
        batch=BatchConfig(**(SHAPE | shape)),
        kinds={},
        order=(),
        sft_extra={},
        sft_reduction="mean",
        pad_id=0,
        seed=0,
        reinforced=credits,
        reduction=reduction,
    )


REFERENCE = 0.3  # by how many nats the made-up reference is above an old log-probability


def tied(batch: PreferenceBatch) -> PreferenceBatch:
    """With a made-up reference that depends on the token alone."""
    target = np.asarray(batch.tokens.target)
    return with_token_reference(batch, -4 + REFERENCE * np.sin(target).astype(np.float32))


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def params(model):
    return fresh_params(model, 1)


@partial(jax.jit, static_argnums=0)
def value(model, params, batch):
    def total(params):
        scores = score(model, params, {}, batch)
        found = objective(
            scores.views, None, batch, beta=jnp.float32(0.1), loss=LOSS, token_logps=scores.tokens
        )
        return found[0]

    return jax.value_and_grad(total)(params)


def words_of(pair_set, credits, reduction):
    """Of every agent token, [n, L]: its advantage, and its weight by the reductions' own words."""
    longest = max(len(one.tokens) for one in pair_set.trajectories)
    advantage, weight = (np.zeros((len(pair_set.trajectories), longest)) for _ in range(2))
    turns: list[tuple[int, list[int]]] = []
    for index, one in enumerate(pair_set.trajectories):
        for t in np.flatnonzero(one.agent_mask):
            if not one.agent_mask[t - 1]:
                turns.append((index, []))
            turns[-1][1].append(int(t))
    for index, credit in credits.items():
        own = [places for number, places in turns if number == index]
        for places, value in zip(own, credit.advantages, strict=True):
            advantage[index, places] = value
            every, written = sum(len(places) for _, places in turns), sum(map(len, own))
            share = {"token": every, "turn": len(turns) * len(places), "trajectory": len(credits) * written}
            weight[index, places] = credit.weight / share[reduction]
    return advantage, weight


@partial(jax.jit, static_argnums=0)
def naive(model, params, tokens, old, advantage, weight):
    """Every trajectory in a row of its own, with its full softmax."""

    def total(params):
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = model.apply({"params": params}, tokens, places, jnp.full(tokens.shape, tokens.shape[1]))
        every = jax.nn.log_softmax(output_logits(params, hidden), axis=-1)[:, :-1]
        logps = jnp.take_along_axis(every, tokens[:, 1:, None], axis=-1)[..., 0]
        ratio, a = jnp.exp(logps - old[:, 1:]), advantage[:, 1:]
        gain = jnp.minimum(ratio * a, jnp.clip(ratio, 0.8, 1.3) * a)
        d = -4 + REFERENCE * jnp.sin(tokens[:, 1:]) - logps
        return jnp.sum(weight[:, 1:] * (SURROGATE.kl * (jnp.exp(d) - d - 1) - gain))

    return jax.value_and_grad(total)(params)


def assert_same(found, expected, tolerance=1e-5):
    (loss, gradient), (other_loss, other_gradient) = found, expected
    np.testing.assert_allclose(loss, other_loss, rtol=tolerance, atol=tolerance)
    scale = float(optax.tree.norm(other_gradient))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * scale), gradient, other_gradient
    )


@pytest.mark.parametrize("reduction", ["token", "turn", "trajectory"])
def test_the_packed_gradient_is_that_of_a_naive_implementation(model, params, reduction):
    pair_set, credits = groups(1, tasks=1)
    (batch,) = planned(pair_set, credits, reduction=reduction).batches
    found = value(model, params, tied(batch))
    ratios = reinforce(score(model, params, {}, batch).tokens, batch, Surrogate(clip_low=0.2, clip_high=0.3))[
        1
    ]
    clipped = {name: float(n / d) for name, (n, d) in ratios.items() if name.startswith("clip_ratio/")}
    assert all(0.05 < share < 0.9 for share in clipped.values()), clipped  # both bounds are tried
    advantage, weight = words_of(pair_set, credits, reduction)
    tokens, old = (
        np.stack(
            [
                np.pad(getattr(one, name), (0, advantage.shape[1] - len(one.tokens)))
                for one in pair_set.trajectories
            ]
        )
        for name in ("tokens", "logps")
    )
    assert_same(found, naive(model, params, tokens, old, advantage, weight))


def together(model, params, plan):
    parts = [value(model, params, tied(batch)) for batch in plan.batches]
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["token", "trajectory"])
def test_sharing_prefixes_and_microbatches_change_nothing(model, params, reduction):
    pair_set, credits = groups(2)
    count = len(credits)
    whole = planned(pair_set, credits, reduction=reduction)
    assert len(whole.batches) == 1 and whole.shared > 0.1
    expected = together(model, params, whole)
    for shape in ({"share_prefixes": False}, {"rows": 1, "step_episodes": count}):
        plan = planned(pair_set, credits, reduction=reduction, **shape)
        assert len(plan.steps) == 1 and (len(plan.batches) > 1) == ("rows" in shape)
        assert_same(together(model, params, plan), expected)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{}, {"data": 4}, {"fsdp": 2, "tensor": 2}])
def test_a_step_is_the_same_on_every_mesh_in_one_microbatch_or_several(model, params, axes):
    pair_set, credits = groups(3, tasks=2)
    mesh, optimizer = make_mesh(MeshConfig(**axes), CONFIG.num_kv_heads), optax.identity()
    own = Transformer(CONFIG, VOCAB, choose_attention(CONFIG, mesh))
    shardings = state_shardings(own, optimizer, mesh)
    programs = jit_step(own, optimizer, LOSS, mesh, shardings, {})
    start = partial(init_state, own, optimizer, shardings, 3)
    loss, gradient = together(own, jax.device_get(start().params), planned(pair_set, credits))
    for shape in ({}, {"rows": 4, "row_length": 48, "step_episodes": len(credits)}):
        plan = planned(pair_set, credits, **shape)
        batches = [tied(batch) for batch in plan.batches]
        assert (len(batches) > 1) == bool(shape)
        state, metrics = take_step(programs, start(), {}, batches, np.float32(0.1), np.float32(1))
        found = jax.tree.map(lambda a, b: a - np.asarray(b), jax.device_get(start().params), state.params)
        total, share = metrics["loss"]
        assert_same((total / share, found), (loss, gradient))
        assert float(metrics["clip_ratio/region_mean"][1]) == sum(
            int(one.agent_mask.sum()) for one in pair_set.trajectories
        )
        if not shape:
            # A step whose gradient is not finite leaves the state as it came: this one's is given on.
            given, before = batches[0].reinforcement, jax.device_get(state)
            far = np.where(given.advantage != 0, np.float32(np.inf), np.float32(0))
            broken = [replace(batches[0], reinforcement=replace(given, advantage=far))]
            state, metrics = take_step(programs, state, {}, broken, np.float32(0.1), np.float32(1))
            assert not np.isfinite(metrics["grad_norm"][0])
            jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state))
