"""A discriminator of steps: its loss by hand and by another library, and the state that it reads."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coevo_jax.batch import PreferenceBatch, Steps, TokenBatch
from coevo_jax.config.options import BatchConfig, LoraConfig, MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.data.packing.judged import pack_judged
from coevo_jax.learning.judge import judge_gradients, judge_objective, make_judging, step_logits
from coevo_jax.learning.mixed_step import NO_PAIRS
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.learning.train_step import jit_step, take_step
from coevo_jax.methods.judging import JudgedStep
from coevo_jax.methods.turns import turn_starts
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer
from coevo_jax.sharding import make_mesh
from tests.fresh import fresh_params
from tests.learning.packed import VOCAB, random_pairs

CONFIG = ModelConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, intermediate_size=64
)
SHAPE = {"rows": 8, "row_length": 96, "views_per_row": 8}
EPISODES = random_pairs(3, tasks=3).trajectories
STEPS = [
    JudgedStep(trajectory=index, turn=turn, by_expert=one.agent == "expert")
    for index, one in enumerate(EPISODES)
    for turn in range(len(turn_starts(one)))
]


def planned(**shape):
    return pack_judged(EPISODES, STEPS, batch=BatchConfig(**(SHAPE | shape)), pad_id=0, seed=0)


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def params(model):
    head = {"kernel": jax.random.normal(jax.random.key(5), (32,)) / 6, "bias": jnp.float32(0.25)}
    return {"backbone": fresh_params(model, 1), "head": head}


def by_hand() -> PreferenceBatch:
    """Two steps of experts, one own, one place that is no step."""
    nothing: Any = None
    empty = np.zeros(4, np.float32)
    return PreferenceBatch(
        tokens=TokenBatch(nothing, nothing, nothing, nothing, nothing, nothing),
        view_weight=nothing,
        reference_logps=empty,
        sft_weight=empty,
        reward=empty,
        token_count=np.int32([1, 1, 1, 0]),
        chosen=np.zeros(1, np.int32),
        rejected=np.zeros(1, np.int32),
        weight=np.zeros(1, np.float32),
        kind=np.zeros(1, np.int32),
        step_share=np.float32(1),
        steps=Steps(
            place=nothing,
            expert=np.float32([0.25, 0.25, 0, 0]),
            own=np.float32([0, 0, 0.5, 0]),
        ),
    )


LOGITS = jnp.array([2.0, -1.0, 0.5, 77.0])


def test_the_cross_entropy_and_its_metrics_by_hand():
    loss, metrics = judge_objective(LOGITS, by_hand())
    d = 1 / (1 + np.exp(-np.array([2.0, -1.0, 0.5])))
    expected = (-np.log(d[0]) - np.log(d[1])) / 4 - np.log(1 - d[2]) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    means = {name: float(top) / float(below) for name, (top, below) in metrics.items()}
    assert means["probability/expert"] == pytest.approx((d[0] + d[1]) / 2, rel=1e-6)
    assert means["probability/own"] == pytest.approx(d[2], rel=1e-6)
    assert (means["accuracy/expert"], means["accuracy/own"]) == (0.5, 0.0)
    grad = jax.grad(lambda x: judge_objective(x, by_hand())[0])(LOGITS)
    np.testing.assert_allclose(grad, [(d[0] - 1) / 4, (d[1] - 1) / 4, d[2] / 2, 0], rtol=1e-6)


def test_it_is_the_cross_entropy_of_another_library():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=12).astype(np.float32) * 4, np.arange(12) % 3 == 0
    weight = np.where(label, 0.5 / label.sum(), 0.5 / (~label).sum()).astype(np.float32)
    nothing: Any = None
    given = Steps(place=nothing, expert=weight * label, own=weight * ~label)
    batch = replace(by_hand(), steps=given)

    def theirs(x):
        return jnp.sum(weight * optax.losses.sigmoid_binary_cross_entropy(x, label.astype(np.float32)))

    ours = jax.value_and_grad(lambda x: judge_objective(x, batch)[0])(jnp.asarray(logits))
    np.testing.assert_allclose(ours[0], theirs(logits), rtol=1e-6)
    np.testing.assert_allclose(ours[1], jax.grad(theirs)(jnp.asarray(logits)), rtol=1e-5, atol=1e-8)


def test_a_discriminator_that_is_sure_and_wrong_has_a_finite_loss_and_gradient():
    wrong = jnp.array([-300.0, -300.0, 300.0, 0.0])
    loss, grad = jax.value_and_grad(lambda x: judge_objective(x, by_hand())[0])(wrong)
    assert float(loss) == 300.0
    np.testing.assert_allclose(grad, [-0.25, -0.25, 0.5, 0.0])


@pytest.mark.slow
@pytest.mark.parametrize("read", ["end", "mean"])
def test_the_logit_is_read_at_the_last_token_of_the_turn_or_at_all_of_them(read, model, params):
    """Of every packed step: the head on the states of the episode, cut behind the turn, by itself."""
    planned_steps = planned()
    (batch,) = planned_steps.plan.batches
    found = step_logits(model, params, {}, batch, read=read)
    states: Any = jax.jit(lambda *arrays: model.apply({"params": params["backbone"]}, *arrays))
    length = max(len(one.tokens) for one in EPISODES)
    for step, place in zip(STEPS, planned_steps.places, strict=True):
        assert place is not None
        mask = EPISODES[step.trajectory].agent_mask
        end = int(np.flatnonzero(mask & ~np.append(mask[1:], False))[step.turn])
        start = int(turn_starts(EPISODES[step.trajectory])[step.turn])
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : end + 1] = EPISODES[step.trajectory].tokens[: end + 1]
        hidden = states(tokens, np.arange(length)[None], np.full_like(tokens, length))
        state = hidden[0, end] if read == "end" else hidden[0, start : end + 1].mean(axis=0)
        wanted = state @ params["head"]["kernel"] + params["head"]["bias"]
        np.testing.assert_allclose(found[place[1]], wanted, atol=2e-5)


def test_a_new_discriminator_is_undecided_and_learns_its_head_first(model, params):
    (batch,) = planned().plan.batches
    new = {"backbone": params["backbone"], "head": jax.tree.map(jnp.zeros_like, params["head"])}
    grads, metrics = judge_gradients(model, new, {}, batch)
    loss, share = metrics["loss"]
    assert float(loss) == pytest.approx(np.log(2), rel=1e-6) and float(share) == 1
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads["backbone"]))
    assert np.any(grads["head"]["kernel"])


@pytest.mark.slow
def test_microbatches_of_a_step_have_the_gradient_of_one(model, params):
    gradients = partial(judge_gradients, model, params, {})
    (batch,) = planned(step_episodes=99).plan.batches
    parts = planned(rows=2, step_episodes=99)
    assert len(parts.plan.steps) == 1 and len(parts.plan.batches) > 1
    whole, metrics = gradients(batch)
    found = [gradients(one) for one in parts.plan.batches]
    summed = jax.tree.map(lambda *all_of_them: sum(all_of_them), *(grads for grads, _ in found))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), summed, whole)
    for name, (top, below) in metrics.items():
        tops, belows = zip(*(own[name] for _, own in found), strict=True)
        assert float(sum(tops) / sum(belows)) == pytest.approx(float(top / below), abs=1e-5), name


# Adam divides what is rounding alone by itself: momentum shows a difference as large as it is.
MOMENTUM = optax.trace(decay=0.9)


def judging(lora: LoraConfig | None = None, optimizer=MOMENTUM, **axes):
    config = CONFIG.model_copy(update={"lora": lora})
    mesh = make_mesh(MeshConfig(**axes), config.num_kv_heads)
    model = Transformer(config, VOCAB, choose_attention(config, mesh))
    learner = make_learner(model, optimizer, mesh)
    alone = jit_step(model, optimizer, NO_PAIRS, mesh, learner.shardings, learner.frozen_shardings)
    return learner, make_judging(learner, alone, mesh)


def two_steps(learner, found, batches):
    """The state and metrics after two steps, of which the second one moves the backbone, too; and logits."""
    frozen = learner.init_frozen(0) if learner.frozen_shardings else {}
    state = found.learner.around(learner.init(0).params, 7)
    for _ in range(2):
        state, metrics = take_step(found.programs, state, frozen, batches, np.float32(0), np.float32(0.5))
    return jax.device_get((state, metrics, found.logits(state.params, frozen, batches[0])))


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 4}], ids=str)
@pytest.mark.parametrize("rows", [8, 4], ids=["one microbatch", "several"])
def test_a_sharded_discriminator_takes_the_step_of_one_device(axes, rows):
    batches = planned(rows=rows, step_episodes=99).plan.batches
    learner, alone = judging()
    state, metrics, logits = two_steps(learner, alone, batches)
    other, others, sharded = two_steps(*judging(**axes), batches)
    assert int(state.step) == int(other.step) == 9
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, other)
    np.testing.assert_allclose(logits, sharded, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"][0], others["loss"][0], atol=1e-5)
    before = jax.device_get(learner.init(0).params)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.params["backbone"])
    assert max(jax.tree.leaves(moved)) > 1e-3 and np.any(state.params["head"]["kernel"])
    assert float(metrics["loss"][0]) < np.log(2)


@pytest.mark.slow
def test_adapters_have_the_head_beside_them():
    learner, found = judging(LoraConfig(rank=2))
    batches = planned().plan.batches
    base = jax.device_get(learner.init_frozen(0))
    state, metrics, _ = two_steps(learner, found, batches)
    assert set(state.params) == {"backbone", "head"} and np.any(state.params["head"]["kernel"])
    leaves = jax.tree_util.tree_leaves_with_path(state.params["backbone"])
    assert leaves and all(path[-1].key in ("a", "b") for path, _ in leaves)
    assert np.isfinite(metrics["loss"][0])
    jax.tree.map(np.testing.assert_array_equal, base, jax.device_get(learner.init_frozen(0)))


@pytest.mark.slow
def test_the_backbone_is_a_copy_the_bias_does_not_decay_and_what_is_not_finite_changes_nothing():
    learner, found = judging(optimizer=make_optimizer(OptimizerConfig(weight_decay=0.5)))
    agent = learner.init(0)
    before = jax.device_get(agent.params)
    state = found.learner.around(agent.params, 3)
    state = state.replace(params=state.params | {"head": {**state.params["head"], "bias": jnp.float32(1)}})
    (batch,) = planned().plan.batches
    nothing = replace(batch.steps, expert=np.zeros(64, np.float32), own=np.zeros(64, np.float32))
    idle = replace(batch, steps=nothing)
    state, _ = take_step(found.programs, state, {}, [idle], np.float32(0), np.float32(0.1))
    assert float(state.params["head"]["bias"]) == 1.0
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(agent.params))
    # A step whose gradient is not finite leaves the backbone, the head, the moments and the count.
    before, worst = jax.device_get(state), np.float32([np.inf, *[0] * 63])
    broken = replace(batch, steps=replace(batch.steps, expert=worst))
    state, metrics = take_step(found.programs, state, {}, [broken], np.float32(0), np.float32(0.1))
    assert not np.isfinite(metrics["grad_norm"][0])
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state))
