"""A step on the mixed logits of two models: loss and gradient from whole logits, and what changes nothing."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coevo_jax.config.options import BatchConfig, MeshConfig, OptimizerConfig
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.learning.mixed_step import (
    NO_PAIRS,
    Beside,
    BothStates,
    Mixing,
    apply_both,
    jit_entropies,
    jit_mixed_step,
    mixed_gradients,
)
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import fresh_state, make_learner
from coevo_jax.learning.train_step import jit_step, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.sharding import make_mesh
from tests.fresh import fresh_params
from tests.learning.packed import VOCAB, random_pairs
from tests.learning.test_head import largest_array
from tests.learning.test_train_step import CONFIG, PLAIN

FROZEN, TRAINED = (Mixing(mix=0.42, train_weak=train_weak) for train_weak in (False, True))
BETA = np.float32(1)
SHAPE = BatchConfig(rows=8, row_length=96, views_per_row=6, pairs=24)


def demonstrations(**shape):
    plan = pack_sft(TRAJECTORIES, batch=SHAPE.model_copy(update=shape), pad_id=0, seed=0)
    assert len(plan.steps) == 1
    return [plan.batches[number] for number in plan.steps[0]]


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def both(model):
    return fresh_params(model, 1), fresh_params(model, 2)


TRAJECTORIES = random_pairs(0).trajectories
LONGEST = max(len(one.tokens) for one in TRAJECTORIES)
TOKENS = np.stack([np.pad(one.tokens, (0, LONGEST - len(one.tokens))) for one in TRAJECTORIES])
MASK = np.stack([np.pad(one.agent_mask, (0, LONGEST - len(one.tokens))) for one in TRAJECTORIES])


def all_logits(model, params):
    """The logits of every trajectory's tokens in a row of its own, each in the place of its parent."""
    places = np.broadcast_to(np.arange(LONGEST), TOKENS.shape)
    hidden = model.apply({"params": params}, TOKENS, places, np.full(TOKENS.shape, LONGEST))
    return output_logits(params, hidden)[:, :-1]


def whole_loss(model, strong, weak, mix):
    """The token mean of the mixture's cross-entropy with all logits in memory."""
    mixed = mix * all_logits(model, strong) + (1 - mix) * all_logits(model, weak)
    logps = jax.nn.log_softmax(mixed)
    own = jnp.take_along_axis(logps, TOKENS[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(own * MASK[:, 1:]) / MASK.sum()


@pytest.fixture(scope="module")
def whole(model):
    """Loss and gradient by the mix, compiled once."""
    return jax.jit(jax.value_and_grad(partial(whole_loss, model), argnums=(0, 1)))


def assert_near(found, expected, tolerance=1e-5):
    scale = float(optax.tree.norm(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * scale), found, expected)


@pytest.mark.parametrize(
    "mixing", [FROZEN, pytest.param(TRAINED, marks=pytest.mark.slow)], ids=["frozen", "trained"]
)
def test_loss_and_gradient_are_those_of_whole_mixed_logits(model, both, whole, mixing):
    (batch,) = demonstrations()
    trained = both if mixing.train_weak else both[0]
    beside = Beside(base={}, weak={} if mixing.train_weak else both[1])
    made = jax.jit(partial(mixed_gradients, model, mixing=mixing))
    found, metrics = made(trained, beside, batch, BETA)
    loss, (strong, weak) = whole(*both, mixing.mix)
    assert float(metrics["loss"][0]) == pytest.approx(float(loss), rel=1e-5)
    assert_near(found, (strong, weak) if mixing.train_weak else strong)
    for name, mix in (("strong", 1.0), ("weak", 0.0)):  # either alone, for the log
        total, count = metrics[f"beside/{name}_token_logp"]
        assert float(total / count) == pytest.approx(-float(whole(*both, mix)[0]), rel=1e-5)


@cache
def compiled(mixing, optimizer=PLAIN, clip_norm=1.0, **axes):
    mesh = make_mesh(MeshConfig(**axes), CONFIG.num_kv_heads)
    learner = make_learner(Transformer(CONFIG, VOCAB, choose_attention(CONFIG, mesh)), optimizer, mesh)
    alone = jit_step(learner.model, optimizer, NO_PAIRS, mesh, learner.shardings, {})
    return learner, jit_mixed_step(learner, alone, mixing, clip_norm, mesh), jit_entropies(learner, mesh)


def stepped(mixing, batches, rate=0.1, **options):
    """The trained parameters and the metrics after one step."""
    learner, step, _ = compiled(mixing, **options)
    strong, weak = learner.init(1), learner.init(2)
    state, beside = strong, Beside(base={}, weak=weak.params)
    if mixing.train_weak:
        state, beside = BothStates(strong=strong, weak=weak), Beside(base={}, weak={})
    state, metrics = take_step(step, state, beside, batches, BETA, np.float32(rate))
    assert int(state.step) == 1
    return jax.device_get(state.params), {k: float(a) / max(float(b), 1e-9) for k, (a, b) in metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize("mixing", [FROZEN, TRAINED])
def test_a_step_of_several_microbatches_equals_one(mixing):
    several = demonstrations(rows=2, step_demonstrations=100)
    assert len(several) > 1
    found, metrics = stepped(mixing, several)
    wanted, wanted_metrics = stepped(mixing, demonstrations())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)
    del metrics["tokens"], wanted_metrics["tokens"]  # what trajectories share stands in each microbatch
    assert metrics == pytest.approx(wanted_metrics, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mixing", [FROZEN, TRAINED], ids=["frozen", "trained"])
def test_a_mesh_gives_the_single_devices_numbers(mixing):
    axes = {"data": 2, "fsdp": 2, "tensor": 2}
    found, metrics = stepped(mixing, demonstrations(), **axes)
    wanted, wanted_metrics = stepped(mixing, demonstrations())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)
    assert metrics == pytest.approx(wanted_metrics, rel=1e-4, abs=1e-5)


def test_both_gradients_are_clipped_by_their_norm_together():
    """Gradients (3, 0) and (0, 4) have the norm 5: with a limit of 1 each becomes a fifth."""
    optimizer = make_optimizer(OptimizerConfig(adam_b1=0.0, adam_b2=0.0, clip_norm=1.0))
    clipped = optax.chain(optax.clip_by_global_norm(1.0))
    for chain, wanted in ((clipped, (-0.6, -0.8)), (optimizer, (-1.0, -1.0))):  # Adam divides by the size
        states = BothStates(
            strong=fresh_state({"w": jnp.zeros(2)}, chain), weak=fresh_state({"w": jnp.zeros(2)}, chain)
        )
        grads = {"w": jnp.array([3.0, 0.0])}, {"w": jnp.array([0.0, 4.0])}
        after, norm = apply_both(chain, 1.0, states, grads, jnp.float32(1))
        assert float(norm) == 5
        found = after.strong.params["w"][0], after.weak.params["w"][1]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert int(after.strong.step) == int(after.weak.step) == 1


@pytest.mark.parametrize("whose", [0, 1])
def test_where_one_models_gradient_is_not_finite_neither_takes_the_step(whose):
    optimizer = make_optimizer(OptimizerConfig())
    states = BothStates(
        strong=fresh_state({"w": jnp.ones(2)}, optimizer), weak=fresh_state({"w": jnp.ones(2)}, optimizer)
    )
    grads = [{"w": jnp.ones(2)}, {"w": jnp.ones(2)}]
    states, _ = apply_both(optimizer, 1.0, states, (grads[0], grads[1]), jnp.float32(0.1))
    grads[whose] = {"w": jnp.array([1.0, jnp.inf])}
    after, norm = apply_both(optimizer, 1.0, states, (grads[0], grads[1]), jnp.float32(0.1))
    assert not np.isfinite(norm)
    jax.tree.map(np.testing.assert_array_equal, after, states)


@pytest.mark.slow
def test_a_step_that_is_not_finite_leaves_both_models():
    learner, step, _ = compiled(TRAINED)
    states = BothStates(strong=learner.init(1), weak=learner.init(2))
    before = jax.device_get(states)
    (batch,) = demonstrations()
    broken = batch.replace(sft_weight=np.where(batch.sft_weight > 0, np.float32(np.inf), np.float32(0)))
    after, metrics = take_step(step, states, Beside(base={}, weak={}), [broken], BETA, np.float32(0.1))
    assert not np.isfinite(metrics["grad_norm"][0])
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(after))


@pytest.mark.slow
def test_every_learning_rate_and_batch_shares_one_program_and_the_weak_model_stays():
    learner, step, _ = compiled(FROZEN, optimizer=make_optimizer(OptimizerConfig()))
    state, weak = learner.init(1), learner.init(2).params
    before = jax.device_get(weak)
    losses = []
    for number in range(10):
        beside = Beside(base={}, weak=weak)
        state, metrics = take_step(
            step, state, beside, demonstrations(), BETA, np.float32(1e-2 + 1e-5 * number)
        )
        losses.append(float(metrics["loss"][0]))
    assert losses[-1] < 0.7 * losses[0]
    assert step.whole._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(weak), before)


def test_mean_entropies_are_those_of_each_trajectorys_own_tokens(model, both):
    plan = pack_sft(TRAJECTORIES, batch=SHAPE, pad_id=0, seed=0)
    _, _, entropies = compiled(FROZEN)
    found = [entropies(both[0], {}, batch) for batch in plan.batches]
    logps = np.asarray(jax.nn.log_softmax(jax.jit(partial(all_logits, model))(both[0])))
    wanted = (-np.sum(np.exp(logps) * logps, axis=-1) * MASK[:, 1:]).sum(axis=1) / MASK.sum(axis=1)
    firsts = [places[0] for places in plan.locations]
    np.testing.assert_allclose([found[batch][n] for batch, n in firsts], wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mixing", [FROZEN, TRAINED], ids=["frozen", "trained"])
def test_a_step_never_holds_all_logits(mixing):
    """Of 8 rows of 96 tokens and a vocabulary beside which all else is small."""
    config, vocab = CONFIG.model_copy(update={"num_layers": 1}), 4096
    mesh = make_mesh(MeshConfig())
    learner = make_learner(Transformer(config, vocab), PLAIN, mesh)
    alone = jit_step(learner.model, PLAIN, NO_PAIRS, mesh, learner.shardings, {})
    step = jit_mixed_step(learner, alone, mixing, 1.0, mesh)
    state, beside = learner.abstract(), Beside(base={}, weak=learner.abstract().params)
    if mixing.train_weak:
        state, beside = BothStates(strong=state, weak=state), Beside(base={}, weak={})
    (batch,) = demonstrations()
    program = step.whole.lower(state, beside, batch, BETA, BETA).compile()
    assert largest_array(program) <= 8 * 96 * vocab * 3 // 4
