"""The train step on real packed batches: ln 2 at the start, invariances, meshes and compile counts."""

from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coevo_jax.batch import PreferenceBatch, TokenBatch
from coevo_jax.config import MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.learning.logps import token_logps, trajectory_logps
from coevo_jax.learning.objective import objective
from coevo_jax.learning.optimizer import constant_rate, cosine_rate, make_optimizer
from coevo_jax.learning.preference_losses import sigmoid
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import jit_score, jit_train_step
from coevo_jax.models.transformer import Transformer, init_params, output_logits
from coevo_jax.sharding import make_mesh
from coevo_jax.strict import ConfigError

CONFIG = ModelConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, intermediate_size=64
)
VOCAB, ROWS, LENGTH, SEGMENTS, PAIRS = 64, 8, 96, 4, 8
OPTIMIZER = make_optimizer(OptimizerConfig())


def random_batch(seed: int = 0, *, rows: int = ROWS, length: int = LENGTH) -> PreferenceBatch:
    """Rows with 2 to 4 segments of random length, about half of the tokens trained, and random pairs."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, (rows, length)).astype(np.int32)
    segment_ids, positions = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    for b in range(rows):
        start = 0
        for s in range(rng.integers(2, SEGMENTS + 1)):
            count = int(rng.integers(8, 24))
            segment_ids[b, start : start + count] = s + 1
            positions[b, start : start + count] = np.arange(count)
            start += count
    loss_mask = (rng.random((rows, length)) < 0.5) & (segment_ids > 0)
    members = segment_ids[:, :, None] == np.arange(1, SEGMENTS + 1)
    token_count = (loss_mask[:, :, None] & members).sum(1).reshape(-1).astype(np.int32)
    used = np.flatnonzero(token_count)
    weight = np.full(PAIRS, 0.5 / 6, np.float32)
    weight[6:] = 0
    return PreferenceBatch(
        tokens=TokenBatch(tokens, segment_ids, positions, loss_mask, np.ones((rows, length), np.float32)),
        reference_logps=np.zeros(rows * SEGMENTS, np.float32),
        sft_weight=np.where(np.isin(np.arange(rows * SEGMENTS), used[:4]), 0.01, 0).astype(np.float32),
        reward=np.zeros(rows * SEGMENTS, np.float32),
        token_count=token_count,
        chosen=rng.choice(used, PAIRS).astype(np.int32),
        rejected=rng.choice(used, PAIRS).astype(np.int32),
        weight=weight,
        kind=(np.arange(PAIRS) % 3).astype(np.int32),
    )


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, VOCAB)


@pytest.fixture(scope="module")
def params(model):
    return nn.unbox(init_params(model, jax.random.key(1)))


def programs(model, optimizer=OPTIMIZER, **axes):
    mesh = make_mesh(MeshConfig(**axes))
    shardings = state_shardings(model, optimizer, mesh)
    step = jit_train_step(model, optimizer, sigmoid, mesh, shardings)
    return step, jit_score(model, mesh, shardings), init_state(model, optimizer, shardings, 3)


def test_chunked_logps_equal_the_full_softmax(model, params):
    batch = random_batch(length=300).tokens
    hidden = model.apply({"params": params}, batch.tokens, batch.positions, batch.segment_ids)
    full = jax.nn.log_softmax(output_logits(params, hidden), axis=-1)
    expected = np.take_along_axis(np.asarray(full[:, :-1]), batch.tokens[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(token_logps(params, hidden, batch.tokens), expected, atol=1e-5)


def test_a_trajectory_counts_its_own_agent_tokens_and_nothing_else(model, params):
    """By hand: row of two segments, trained tokens 2, 3 of the first and 1 of the second."""
    tokens = np.array([[5, 6, 7, 8, 9, 10, 11, 0]], np.int32)
    segment_ids = np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 0]], np.int32)
    loss_mask = np.array([[0, 0, 1, 1, 1, 1, 0, 1]], bool)  # token 0 of a segment has no prediction
    batch = TokenBatch(tokens, segment_ids, positions, loss_mask, np.ones((1, 8), np.float32))
    found = trajectory_logps(model, params, batch, 3)

    def score(ids, at):
        ids = np.array([ids], np.int32)
        hidden = model.apply({"params": params}, ids, np.arange(ids.shape[1])[None], np.ones_like(ids))
        logps = jax.nn.log_softmax(output_logits(params, hidden), axis=-1)
        return float(sum(logps[0, t - 1, ids[0, t]] for t in at))

    np.testing.assert_allclose(found, [score([5, 6, 7, 8], [2, 3]), score([9, 10, 11], [1]), 0.0], atol=1e-5)


def test_first_step_of_dpo_is_ln_2(model):
    step, score, state = programs(model)
    batch = random_batch()
    batch = batch.replace(reference_logps=np.asarray(score(state.params, batch)))
    _, metrics = step(state, batch, np.float32(0.1), np.float32(1e-3))
    total, count = metrics["loss/pair"]
    assert abs(float(total) / float(count) - np.log(2)) < 1e-3
    assert float(count) == 6  # padding pairs do not count
    total, count = metrics["rewards/margins/expert_failure"]
    assert float(count) == 2 and abs(float(total)) < 1e-3


def test_padding_garbage_and_pair_order_change_nothing(model, params):
    batch = random_batch(2)

    def loss(batch):
        logps = trajectory_logps(model, params, batch.tokens, SEGMENTS)
        return objective(logps, batch, beta=jnp.float32(0.1), loss=sigmoid)[0]

    padding = np.asarray(batch.tokens.segment_ids) == 0
    garbage = np.where(padding, 13, batch.tokens.tokens)
    changed = batch.replace(
        tokens=batch.tokens.replace(tokens=garbage, loss_mask=batch.tokens.loss_mask | padding)
    )
    np.testing.assert_allclose(loss(batch), loss(changed), rtol=1e-6)
    order = np.random.default_rng(0).permutation(PAIRS)
    fields = {name: getattr(batch, name)[order] for name in ("chosen", "rejected", "weight", "kind")}
    np.testing.assert_allclose(loss(batch), loss(batch.replace(**fields)), rtol=1e-6)


def test_rows_in_another_order_give_the_same_gradient(model, params):
    batch = random_batch(3)
    order = np.random.default_rng(1).permutation(ROWS)
    place = np.argsort(order)

    def moved(index):
        return (place[index // SEGMENTS] * SEGMENTS + index % SEGMENTS).astype(np.int32)

    per_row = {
        name: getattr(batch, name).reshape(ROWS, SEGMENTS)[order].reshape(-1)
        for name in ("reference_logps", "sft_weight", "reward", "token_count")
    }
    shuffled = batch.replace(
        tokens=jax.tree.map(lambda x: x[order], batch.tokens),
        chosen=moved(batch.chosen),
        rejected=moved(batch.rejected),
        **per_row,
    )

    @jax.jit
    def gradient(batch):
        def loss(params):
            logps = trajectory_logps(model, params, batch.tokens, SEGMENTS)
            return objective(logps, batch, beta=jnp.float32(0.1), loss=sigmoid)[0]

        return jax.grad(loss)(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient(batch), gradient(shuffled)
    )


def test_sft_is_a_batch_without_pairs_and_learns_it(model):
    step, _, state = programs(model)
    batch = random_batch(4)
    total = batch.token_count.sum()
    batch = batch.replace(
        weight=np.zeros(PAIRS, np.float32),
        sft_weight=np.where(batch.token_count > 0, 1 / total, 0).astype(np.float32),
    )
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch, np.float32(1.0), np.float32(3e-3))
        losses.append(float(metrics["loss"][0]))
    assert losses[0] == pytest.approx(np.log(VOCAB), rel=0.3)
    assert losses[-1] < 0.6 * losses[0]
    assert float(metrics["pairs"][0]) == 0
    assert step._cache_size() == 1  # SFT, DPO and every learning rate share one program


@pytest.mark.parametrize(
    "axes", [{"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 4}]
)
def test_every_mesh_gives_the_single_devices_numbers(model, axes):
    """Parameters under the plain gradient: Adam's quotient of tiny numbers turns 1e-9 of noise into 1e-4."""
    batch = random_batch(5)

    def run(optimizer, rate, **axes):
        step, _, state = programs(model, optimizer, **axes)
        for _ in range(5):
            state, metrics = step(state, batch, np.float32(0.1), np.float32(rate))
        return jax.device_get(state.params), float(metrics["loss"][0])

    (expected, expected_loss), (found, loss) = run(optax.identity(), 0.1), run(optax.identity(), 0.1, **axes)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    assert run(OPTIMIZER, 1e-3, **axes)[1] == pytest.approx(run(OPTIMIZER, 1e-3)[1], rel=1e-5)


def test_a_mesh_that_needs_more_devices_is_refused():
    with pytest.raises(ConfigError, match="needs 16 devices, found 8"):
        make_mesh(MeshConfig(data=16))


def test_learning_rates_by_hand():
    assert [constant_rate(step, 10, 1.0, 0.2) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    rates = [cosine_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[9:])) and rates[-1] < 1e-3
