"""An optimizer step on the mixed logits of two models: the policy, and a weak model beside it.

The weak model is frozen, an argument of the step like the base under adapters; or it is trained with the
policy, as the released script of Weak-Driven Learning does (arXiv 2602.08222). Only imitation is learned so.

Legend: N views, as in `batch`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch
from coevo_jax.learning.finite import unless_broken
from coevo_jax.learning.logps import parent_states
from coevo_jax.learning.mixed_head import Branch, entropies, mixed_logps
from coevo_jax.learning.objective import AgentLoss, Metrics, objective
from coevo_jax.learning.train_state import Learner, TrainState
from coevo_jax.learning.train_step import ScoreStep, StepPrograms, apply_gradients, batch_shardings
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sharding import replicated

NO_PAIRS = AgentLoss(kinds=(), by_kind=())


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How two models are mixed; equal ones share their compiled programs."""

    mix: float  # the policy's share of the logits
    train_weak: bool


@struct.dataclass
class Beside:
    """What a step is given beside the state that it trains."""

    base: Params  # what adapters of either model adapt; empty where there are none
    weak: Params  # empty where the weak model is trained, too


@struct.dataclass
class BothStates:
    """The states of two models that are trained together."""

    strong: TrainState
    weak: TrainState

    @property
    def step(self) -> jax.Array:
        """Optimizer steps of the policy since the run began, int32 []."""
        return self.strong.step

    @property
    def params(self) -> tuple[Params, Params]:
        """The parameters of the policy and of the weak model."""
        return self.strong.params, self.weak.params


def mixed_view_logps(
    model: Transformer,
    strong: Params,
    weak: Params,
    base: Params,
    batch: PreferenceBatch,
    *,
    mixing: Mixing,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probability of every view under the mixture, the policy and the weak model, float32 [N] (nats).

    The first alone has a gradient.
    """
    ours, theirs = (Branch(*parent_states(model, one, base, batch.tokens)) for one in (strong, weak))
    tokens, options = batch.tokens, {"mix": mixing.mix, "train_weak": mixing.train_weak}
    found = mixed_logps(ours, theirs, tokens.target, tokens.scored, mesh=mesh, **options)
    mixed, alone, other = (jnp.einsum("bk,bsk->bs", one, batch.view_weight).reshape(-1) for one in found)
    return mixed, alone, other


def view_entropies(
    model: Transformer, params: Params, base: Params, batch: PreferenceBatch, mesh: Mesh | None = None
) -> jax.Array:
    """Mean entropy over the tokens of every view that weigh something, float32 [N] (nats)."""
    head_VD, parents_BKD = parent_states(model, params, base, batch.tokens)
    entropy_BK = entropies(head_VD, parents_BKD, batch.tokens.scored, mesh)
    seen_BSK = (jnp.asarray(batch.view_weight) > 0).astype(jnp.float32)
    total_N = jnp.einsum("bk,bsk->bs", entropy_BK, seen_BSK).reshape(-1)
    return total_N / jnp.maximum(jnp.sum(seen_BSK, axis=-1).reshape(-1), 1)


def mixed_gradients(
    model: Transformer,
    trained: Any,
    beside: Beside,
    batch: PreferenceBatch,
    beta: jax.Array,
    mixing: Mixing,
    mesh: Mesh | None = None,
) -> tuple[Any, Metrics]:
    """The gradient of one microbatch's share of the cross-entropy of the mixture (arXiv 2602.08222).

    Args:
      trained: the policy's parameters; those of both models where the weak one is trained.
    """

    def loss_of(trained: Any) -> tuple[jax.Array, Metrics]:
        strong, weak = trained if mixing.train_weak else (trained, beside.weak)
        mixed, alone, other = mixed_view_logps(
            model, strong, weak, beside.base, batch, mixing=mixing, mesh=mesh
        )
        total, metrics = objective(mixed, None, batch, beta=beta, loss=NO_PAIRS)
        weight, tokens = jnp.asarray(batch.sft_weight), jnp.sum(batch.sft_weight * batch.token_count)
        for name, logps in (("strong", alone), ("weak", other)):
            metrics[f"beside/{name}_token_logp"] = (jnp.sum(weight * logps), tokens)
        return total, metrics

    return jax.grad(loss_of, has_aux=True)(trained)


def apply_both(
    optimizer: optax.GradientTransformation,
    clip_norm: float,
    states: BothStates,
    grads: tuple[Params, Params],
    rate: jax.Array,
) -> tuple[BothStates, jax.Array]:
    """The next states, and the norm of both gradients together, by which they are clipped.

    What is clipped together is below the limit alone, so that the optimizer's own clipping changes nothing.
    """
    clip = optax.clip_by_global_norm(clip_norm)
    clipped: Any = clip.update(grads, clip.init(grads))[0]
    strong, _ = apply_gradients(optimizer, states.strong, clipped[0], rate)
    weak, _ = apply_gradients(optimizer, states.weak, clipped[1], rate)
    norm = optax.tree.norm(grads)  # of both: where one model's gradient is not finite, neither takes the step
    return unless_broken(states, BothStates(strong=strong, weak=weak), norm), norm


def jit_mixed_step(
    learner: Learner, alone: StepPrograms, mixing: Mixing, clip_norm: float, mesh: Mesh
) -> StepPrograms:
    """The compiled parts of `train_step.take_step` on mixed logits.

    It takes a `Beside` for what is frozen, and where the weak model is trained `BothStates` for the state.

    Args:
      alone: the parts of a step of the policy alone; those that look at no logits are the same.
      clip_norm: largest norm of both models' gradients together.
    """
    rows, scalar = batch_shardings(mesh), replicated(mesh)
    states: Any = learner.shardings
    params: Any = states.params
    beside = Beside(base=learner.frozen_shardings, weak={} if mixing.train_weak else params)
    if mixing.train_weak:
        states, params = BothStates(strong=states, weak=states), (params, params)

    def accumulate(grads, params, beside, batch, beta):
        own, metrics = mixed_gradients(learner.model, params, beside, batch, beta, mixing, mesh)
        return jax.tree.map(jnp.add, grads, own), metrics

    def apply(states, grads, rate):
        if mixing.train_weak:
            return apply_both(learner.optimizer, clip_norm, states, grads, rate)
        return apply_gradients(learner.optimizer, states, grads, rate)

    def whole(states, beside, batch, beta, rate):
        grads, metrics = mixed_gradients(learner.model, states.params, beside, batch, beta, mixing, mesh)
        states, norm = apply(states, grads, rate)
        return states, metrics | {"grad_norm": (norm, jnp.float32(1))}

    def zeros(params):
        return jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)

    def score(trained, beside, batch):
        strong, weak = trained if mixing.train_weak else (trained, beside.weak)
        logps_N, *_ = mixed_view_logps(
            learner.model, strong, weak, beside.base, batch, mixing=mixing, mesh=mesh
        )
        return logps_N, None

    compiled: Callable[..., Any] = jax.jit
    return replace(
        alone,
        score=compiled(score, in_shardings=(params, beside, rows), out_shardings=scalar),
        whole=compiled(
            whole,
            in_shardings=(states, beside, rows, scalar, scalar),
            out_shardings=(states, scalar),
            donate_argnums=0,
        ),
        accumulate=compiled(
            accumulate,
            in_shardings=(params, params, beside, rows, scalar),
            out_shardings=(params, scalar),
            donate_argnums=0,
        ),
        apply=compiled(
            apply, in_shardings=(states, params, scalar), out_shardings=(states, scalar), donate_argnums=0
        ),
        zeros=compiled(zeros, in_shardings=(params,), out_shardings=params),
        coupled=False,
    )


def jit_entropies(learner: Learner, mesh: Mesh) -> ScoreStep:
    """Compiled mean entropies [N] of a batch's views."""

    def score(params: Params, base: Params, batch: PreferenceBatch) -> jax.Array:
        return view_entropies(learner.model, params, base, batch, mesh)

    return jax.jit(
        score,
        in_shardings=(learner.shardings.params, learner.frozen_shardings, batch_shardings(mesh)),
        out_shardings=replicated(mesh),
    )
