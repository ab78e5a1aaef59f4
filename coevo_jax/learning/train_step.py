"""The optimizer step of either agent, and the scoring of references: pure functions, jitted once per shape.

A step is one microbatch or several. Several add up their gradients; a loss that couples the pairs of a step
is taken in two passes instead: all log-probabilities, their gradients, then each microbatch backward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch, Scalar, TokenBatch
from coevo_jax.learning.finite import unless_broken
from coevo_jax.learning.logps import score as score_batch
from coevo_jax.learning.logps import view_logps
from coevo_jax.learning.objective import AgentLoss, Metrics, objective
from coevo_jax.learning.train_state import TrainState
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sharding import batch_sharding, replicated

ScoreStep = Callable[[Params, Params, PreferenceBatch], jax.Array]


@dataclass(frozen=True, kw_only=True)
class StepPrograms:
    """The compiled parts of an optimizer step; each compiles at its first use only."""

    whole: Callable[..., Any]  # (state, frozen, batch, beta, rate) -> (state, metrics)
    accumulate: Callable[..., Any]  # (gradients, params, frozen, batch, beta) -> (gradients, metrics)
    score: Callable[..., Any]  # (params, frozen, batch) -> (logps [N], confidence [N] or None)
    # ([(logps, confidence)], batches without rows of tokens, beta) -> ([d loss / d logps], metrics)
    couple: Callable[..., Any]
    pull: Callable[..., Any]  # (gradients, params, frozen, batch, d loss / d logps [N]) -> gradients
    apply: Callable[..., Any]  # (state, gradients, rate) -> (state, gradient norm)
    zeros: Callable[..., Any]  # (params) -> gradients of zero
    coupled: bool


def train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    loss: AgentLoss,
    state: TrainState,
    frozen: Params,
    batch: PreferenceBatch,
    beta: jax.Array,
    learning_rate: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on one microbatch, for either agent; SFT is a batch without pairs.

    Args:
      frozen: the parameters that adapters adapt; empty where all parameters are trained.
      beta: float32 [], strength of the tie to the reference.
      learning_rate: float32 [].
      mesh: where rows and vocabulary are split over devices.

    Returns:
      The next state, and metrics as (numerator, denominator).
    """
    grads, metrics = gradients(model, loss, state.params, frozen, batch, beta, mesh)
    state, norm = apply_gradients(optimizer, state, grads, learning_rate)
    return state, metrics | {"grad_norm": (norm, jnp.float32(1))}


def gradients(
    model: Transformer,
    loss: AgentLoss,
    params: Params,
    frozen: Params,
    batch: PreferenceBatch,
    beta: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[Params, Metrics]:
    """The gradient of one microbatch's share of the objective."""

    def loss_of(params: Params) -> tuple[jax.Array, Metrics]:
        scores = score_batch(model, params, frozen, batch, mesh=mesh, confidence=loss.wpo)
        return objective(
            scores.views, scores.confidence, batch, beta=beta, loss=loss, token_logps=scores.tokens
        )

    return jax.grad(loss_of, has_aux=True)(params)


def apply_gradients(
    optimizer: optax.GradientTransformation, state: TrainState, grads: Params, learning_rate: jax.Array
) -> tuple[TrainState, jax.Array]:
    """The next state, and the gradient's global norm before it is clipped.

    Where that norm is not finite the next state is the one that came in: parameters, moments and counts.
    """
    norm = optax.tree.norm(grads)
    direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
    after = TrainState(step=state.step + 1, params=params, opt_state=opt_state)
    return unless_broken(state, after, norm), norm


def take_step(
    programs: StepPrograms,
    state: TrainState,
    frozen: Params,
    batches: Sequence[PreferenceBatch],
    beta: Scalar,
    learning_rate: Scalar,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on all of its microbatches. The incoming state is donated.

    It only dispatches: with all arguments on the devices, nothing waits for a microbatch and nothing passes
    between host and device. Arrays of the host are accepted, too, and then put there implicitly.
    """
    if len(batches) == 1:
        return programs.whole(state, frozen, batches[0], beta, learning_rate)
    grads, metrics = step_gradients(programs, state.params, frozen, batches, beta)
    state, norm = programs.apply(state, grads, learning_rate)
    return state, metrics | {"grad_norm": (norm, np.float32(1))}


def step_gradients(
    programs: StepPrograms,
    params: Params,
    frozen: Params,
    batches: Sequence[PreferenceBatch],
    beta: Scalar,
) -> tuple[Params, Metrics]:
    """The gradient of a step's microbatches together, and its metrics."""
    grads = programs.zeros(params)
    metrics: Metrics = {}
    if programs.coupled:
        scored = [programs.score(params, frozen, batch) for batch in batches]
        d_logps, metrics = programs.couple(scored, [_without_rows(batch) for batch in batches], beta)
        for batch, d_logps_N in zip(batches, d_logps, strict=True):
            grads = programs.pull(grads, params, frozen, batch, d_logps_N)
    else:
        for batch in batches:
            grads, own = programs.accumulate(grads, params, frozen, batch, beta)
            metrics = _added(metrics, own) if metrics else own
    return grads, metrics


@jax.jit
def _added(metrics: Metrics, others: Metrics) -> Metrics:
    return jax.tree.map(jnp.add, metrics, others)


def _without_rows(batch: PreferenceBatch) -> PreferenceBatch:
    """What the pairs of a step need of a microbatch: all but its rows, of which only `scored` stays."""
    nothing: Any = None
    scored = TokenBatch(nothing, nothing, nothing, nothing, nothing, batch.tokens.scored)
    return batch.replace(tokens=scored, view_weight=nothing)  # pyright: ignore[reportAttributeAccessIssue]


def join_batches(batches: Sequence[PreferenceBatch]) -> PreferenceBatch:
    """The microbatches of one step as one batch of all their views and pairs, without rows of tokens."""

    def joined(name: str) -> jax.Array:
        return jnp.concatenate([jnp.asarray(getattr(batch, name)) for batch in batches])

    views, pairs = batches[0].token_count.shape[0], batches[0].weight.shape[0]
    offset = np.repeat(np.arange(len(batches)) * views, pairs).astype(np.int32)
    first = _without_rows(batches[0])
    scored = jnp.concatenate([jnp.asarray(batch.tokens.scored) for batch in batches])
    return PreferenceBatch(
        tokens=first.tokens.replace(scored=scored),  # pyright: ignore[reportAttributeAccessIssue]
        view_weight=first.view_weight,
        reference_logps=joined("reference_logps"),
        sft_weight=joined("sft_weight"),
        reward=joined("reward"),
        token_count=joined("token_count"),
        chosen=joined("chosen") + offset,
        rejected=joined("rejected") + offset,
        weight=joined("weight"),
        kind=joined("kind"),
        step_share=jnp.sum(jnp.stack([jnp.asarray(batch.step_share) for batch in batches])),
    )


def jit_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    loss: AgentLoss,
    mesh: Mesh,
    shardings: TrainState,
    frozen_shardings: Params,
) -> StepPrograms:
    """The compiled parts of `take_step` under the mesh; states and gradients that go in are donated."""
    rows, scalar = batch_shardings(mesh), replicated(mesh)
    params, base = shardings.params, frozen_shardings

    def whole(state, frozen, batch, beta, rate):
        return train_step(model, optimizer, loss, state, frozen, batch, beta, rate, mesh)

    def accumulate(grads, params, frozen, batch, beta):
        own, metrics = gradients(model, loss, params, frozen, batch, beta, mesh)
        return jax.tree.map(jnp.add, grads, own), metrics

    def score(params, frozen, batch):
        return view_logps(model, params, frozen, batch, mesh=mesh, confidence=loss.wpo)

    def couple(scored, batches, beta):
        logps_N = jnp.concatenate([logps for logps, _ in scored])
        confidence_N = jnp.concatenate([one for _, one in scored]) if loss.wpo else None
        of_logps = jax.grad(objective, has_aux=True)
        d_logps_N, metrics = of_logps(logps_N, confidence_N, join_batches(batches), beta=beta, loss=loss)
        return jnp.split(d_logps_N, len(scored)), metrics

    def pull(grads, params, frozen, batch, d_logps_N):
        def weighted(params):
            logps, _ = view_logps(model, params, frozen, batch, mesh=mesh)
            return jnp.sum(logps * d_logps_N)

        return jax.tree.map(jnp.add, grads, jax.grad(weighted)(params))

    def apply(state, grads, rate):
        return apply_gradients(optimizer, state, grads, rate)

    def zeros(params):
        return jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)

    return StepPrograms(
        whole=jax.jit(
            whole,
            in_shardings=(shardings, base, rows, scalar, scalar),
            out_shardings=(shardings, scalar),
            donate_argnums=0,
        ),
        accumulate=jax.jit(
            accumulate,
            in_shardings=(params, params, base, rows, scalar),
            out_shardings=(params, scalar),
            donate_argnums=0,
        ),
        score=jax.jit(score, in_shardings=(params, base, rows), out_shardings=scalar),
        couple=jax.jit(couple, out_shardings=scalar),
        pull=jax.jit(
            pull, in_shardings=(params, params, base, rows, scalar), out_shardings=params, donate_argnums=0
        ),
        apply=jax.jit(
            apply,
            in_shardings=(shardings, params, scalar),
            out_shardings=(shardings, scalar),
            donate_argnums=0,  # there is one result for the state's and the gradients' buffers
        ),
        zeros=jax.jit(zeros, in_shardings=(params,), out_shardings=params),
        coupled=loss.coupled,
    )


def jit_score(model: Transformer, mesh: Mesh, shardings: TrainState, frozen_shardings: Params) -> ScoreStep:
    """Compiled log-probabilities [N] on the very rows that training uses: reference scores of a batch."""

    def score(params: Params, frozen: Params, batch: PreferenceBatch) -> jax.Array:
        return view_logps(model, params, frozen, batch, mesh=mesh)[0]

    return jax.jit(
        score,
        in_shardings=(shardings.params, frozen_shardings, batch_shardings(mesh)),
        out_shardings=replicated(mesh),
    )


def jit_token_score(
    model: Transformer, mesh: Mesh, shardings: TrainState, frozen_shardings: Params
) -> ScoreStep:
    """Compiled log-probabilities [B, K] of the scored tokens on the very rows that training uses."""

    def score(params: Params, frozen: Params, batch: PreferenceBatch) -> jax.Array:
        return score_batch(model, params, frozen, batch, mesh=mesh).tokens

    return jax.jit(
        score,
        in_shardings=(shardings.params, frozen_shardings, batch_shardings(mesh)),
        out_shardings=replicated(mesh),
    )


def batch_shardings(mesh: Mesh) -> PreferenceBatch:
    """The shardings of a batch: rows and views are split over the batch axes, pairs are on every device."""
    rows: Any = batch_sharding(mesh)
    everywhere: Any = replicated(mesh)
    return PreferenceBatch(
        tokens=rows,  # a prefix of the TokenBatch tree
        view_weight=rows,
        reference_logps=rows,
        sft_weight=rows,
        reward=rows,
        token_count=rows,
        chosen=everywhere,
        rejected=everywhere,
        weight=everywhere,
        kind=everywhere,
        step_share=everywhere,
        reinforcement=rows,  # of nothing where there is none
        steps=rows,
    )
