"""The train step of either agent, and the scoring of references: pure functions, jitted once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch, Scalar
from coevo_jax.learning.logps import trajectory_logps
from coevo_jax.learning.objective import Metrics, objective
from coevo_jax.learning.preference_losses import PreferenceLoss
from coevo_jax.learning.train_state import TrainState
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sharding import batch_sharding, replicated

TrainStep = Callable[[TrainState, PreferenceBatch, Scalar, Scalar], tuple[TrainState, Metrics]]
ScoreStep = Callable[[Params, PreferenceBatch], jax.Array]


def segments_per_row(batch: PreferenceBatch) -> int:
    return batch.token_count.shape[0] // batch.tokens.tokens.shape[0]


def train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    loss: PreferenceLoss,
    state: TrainState,
    batch: PreferenceBatch,
    beta: jax.Array,
    learning_rate: jax.Array,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on one batch, for either agent; SFT is a batch without pairs.

    Args:
      beta: float32 [], strength of the tie to the reference.
      learning_rate: float32 [].

    Returns:
      The next state, and metrics as (numerator, denominator).
    """

    def loss_of(params: Params) -> tuple[jax.Array, Metrics]:
        logps = trajectory_logps(model, params, batch.tokens, segments_per_row(batch))
        return objective(logps, batch, beta=beta, loss=loss)

    grads, metrics = jax.grad(loss_of, has_aux=True)(state.params)
    direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
    metrics["grad_norm"] = (optax.tree.norm(grads), jnp.float32(1))
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics


def jit_train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    loss: PreferenceLoss,
    mesh: Mesh,
    shardings: TrainState,
) -> TrainStep:
    """The compiled `train_step` under the mesh; the incoming state is donated."""

    def step(state, batch, beta, learning_rate):
        return train_step(model, optimizer, loss, state, batch, beta, learning_rate)

    scalar = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_shardings(mesh), scalar, scalar),
        out_shardings=(shardings, scalar),
        donate_argnums=0,
    )


def jit_score(model: Transformer, mesh: Mesh, shardings: TrainState) -> ScoreStep:
    """Compiled log-probabilities [N] on the very rows that training uses: reference scores of a batch."""

    def score(params: Params, batch: PreferenceBatch) -> jax.Array:
        return trajectory_logps(model, params, batch.tokens, segments_per_row(batch))

    return jax.jit(
        score, in_shardings=(shardings.params, batch_shardings(mesh)), out_shardings=replicated(mesh)
    )


def batch_shardings(mesh: Mesh) -> PreferenceBatch:
    """Rows and trajectories are split over the batch axes, pairs are on every device."""
    rows: Any = batch_sharding(mesh)
    everywhere: Any = replicated(mesh)
    return PreferenceBatch(
        tokens=rows,  # a prefix of the TokenBatch tree
        reference_logps=rows,
        sft_weight=rows,
        reward=rows,
        token_count=rows,
        chosen=everywhere,
        rejected=everywhere,
        weight=everywhere,
        kind=everywhere,
    )
