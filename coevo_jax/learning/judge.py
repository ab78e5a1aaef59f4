"""A discriminator of steps: a backbone and a scalar head that tell an expert's turns from an agent's own.

Its parameters are a tree of their own, {"backbone": what an agent has, "head": models.scalar_head's}.
D(s, a) is the sigmoid of the head on the backbone's last state at the last token of the turn a, or on the
mean over the turn's tokens; s is what stands before the turn.

Legend: B rows, T tokens a row, K scored tokens a row, S views a row, N = B * S views, D hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.judge import Read
from coevo_jax.learning.objective import Metrics
from coevo_jax.learning.train_state import Learner, TrainState, fresh_state
from coevo_jax.learning.train_step import ScoreStep, StepPrograms, apply_gradients, batch_shardings
from coevo_jax.models.lora import init_trained, model_variables
from coevo_jax.models.scalar_head import apply_scalar_head, init_scalar_head
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sharding import replicated


def step_logits(
    model: Transformer, params: Params, frozen: Params, batch: PreferenceBatch, *, read: Read = "end"
) -> jax.Array:
    """The head's answer to the step of every view, float32 [N]; above 0 takes it for an expert's.

    Args:
      params: the discriminator's backbone and head.
      frozen: what the backbone's adapters adapt; empty where it has none.
      batch: with steps.
      read: the state that the head reads, `config.judge.JudgeConfig.read`.
    """
    assert batch.steps is not None
    tokens, seen_BSK = batch.tokens, jnp.asarray(batch.view_weight) > 0
    variables = model_variables(params["backbone"], frozen)
    hidden_BTD: Any = model.apply(variables, tokens.tokens, tokens.positions, tokens.visible_until)
    place_BK = jnp.asarray(batch.steps.place)
    if read == "end":
        last_BS = jnp.max(jnp.where(seen_BSK, jnp.arange(seen_BSK.shape[2]), 0), axis=2)
        ends_BS = jnp.take_along_axis(place_BK, last_BS, axis=1)
        state_BSD = jnp.take_along_axis(hidden_BTD, ends_BS[..., None], axis=1)
        return apply_scalar_head(params["head"], state_BSD).reshape(-1)
    # The mean of the answers is the answer to the mean of the states.
    answers_BK = apply_scalar_head(
        params["head"], jnp.take_along_axis(hidden_BTD, place_BK[..., None], axis=1)
    )
    total_BS = jnp.sum(jnp.where(seen_BSK, answers_BK[:, None], 0.0), axis=2)
    return (total_BS / jnp.maximum(jnp.sum(seen_BSK, axis=2), 1)).reshape(-1)


def judge_objective(logits_N: jax.Array, batch: PreferenceBatch) -> tuple[jax.Array, Metrics]:
    """The binary cross-entropy of experts' steps against own ones, float32 [], and its metrics.

    GAIL's discriminator (arXiv 1606.03476, eq. 15): -log D of an expert's step, -log(1 - D) of an agent's
    own, which are softplus(-x) and softplus(x) of the logit x.

    Args:
      logits_N: of every view's step.
      batch: with steps, whose weights have the denominators of the optimizer step.
    """
    given, share = batch.steps, jnp.asarray(batch.step_share)
    assert given is not None
    expert, own = jnp.asarray(given.expert), jnp.asarray(given.own)
    total = jnp.sum(expert * jax.nn.softplus(-logits_N) + own * jax.nn.softplus(logits_N))
    metrics: Metrics = {"loss": (total, share)}
    probability = jax.nn.sigmoid(logits_N)
    sides = {"expert": (expert > 0, logits_N > 0), "own": (own > 0, logits_N < 0)}
    for name, (seen, right) in sides.items():
        count = jnp.sum(seen).astype(jnp.float32)
        metrics[f"probability/{name}"] = (jnp.sum(jnp.where(seen, probability, 0)), count)
        metrics[f"accuracy/{name}"] = (jnp.sum(seen & right).astype(jnp.float32), count)
    return total, metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgeLearner(Learner):
    """A learner of a discriminator: its model is an agent's, its state has a head beside the backbone."""

    def around(self, backbone: Params, step: int) -> TrainState:
        """The state that a discriminator begins with: a copy of an agent's parameters, an undecided head."""
        head = jax.device_put(_head(self.model), self.shardings.params["head"])
        return self.fresh({"backbone": jax.tree.map(jnp.copy, backbone), "head": head}, step)

    def random(self, key: jax.Array) -> TrainState:
        """A state with a random backbone, or fresh adapters, and the head that is undecided everywhere."""
        backbone = nn.unbox(init_trained(self.model, key))
        return fresh_state({"backbone": backbone, "head": _head(self.model)}, self.optimizer)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The learner and the compiled programs of a run's discriminator."""

    learner: JudgeLearner
    programs: StepPrograms
    logits: ScoreStep  # (params, frozen, batch) -> the logit of every view's step [N]


def make_judging(learner: Learner, alone: StepPrograms, mesh: Mesh, *, read: Read = "end") -> Judging:
    """The discriminator beside agents of a learner: sharded as they are, the head on every device.

    Args:
      alone: the parts of a step of an agent; those that look at no logits of the head are the same.
      read: the state that the head reads.
    """
    head: Any = jax.tree.map(lambda _: replicated(mesh), jax.eval_shape(lambda: _head(learner.model)))
    params = {"backbone": learner.shardings.params, "head": head}
    own = JudgeLearner(
        model=learner.model,
        optimizer=learner.optimizer,
        shardings=learner.shardings,
        frozen_shardings=learner.frozen_shardings,
    )
    abstract = jax.eval_shape(lambda: own.random(jax.random.key(0)))
    opt_state = optax.tree.map_params(
        learner.optimizer,
        lambda _, sharding: sharding,
        abstract.opt_state,
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    step: Any = replicated(mesh)
    own = replace(own, shardings=TrainState(step=step, params=params, opt_state=opt_state))
    programs = _programs(own, alone, mesh, read)
    return Judging(learner=own, programs=programs, logits=_jit_logits(own, mesh, read))


def _head(model: Transformer) -> Params:
    return init_scalar_head(model.config.hidden_size)


def judge_gradients(
    model: Transformer, params: Params, frozen: Params, batch: PreferenceBatch, *, read: Read = "end"
) -> tuple[Params, Metrics]:
    """The gradient of one microbatch's share of the cross-entropy, of the backbone and the head."""

    def loss_of(params: Params) -> tuple[jax.Array, Metrics]:
        return judge_objective(step_logits(model, params, frozen, batch, read=read), batch)

    return jax.grad(loss_of, has_aux=True)(params)


def _programs(learner: JudgeLearner, alone: StepPrograms, mesh: Mesh, read: Read) -> StepPrograms:
    """The compiled parts of `train_step.take_step`; beta is not read."""
    rows, scalar = batch_shardings(mesh), replicated(mesh)
    state, base = learner.shardings, learner.frozen_shardings
    params = state.params

    def apply(state, grads, rate):
        return apply_gradients(learner.optimizer, state, grads, rate)

    def whole(state, frozen, batch, beta, rate):
        grads, metrics = judge_gradients(learner.model, state.params, frozen, batch, read=read)
        state, norm = apply(state, grads, rate)
        return state, metrics | {"grad_norm": (norm, jnp.float32(1))}

    def accumulate(grads, params, frozen, batch, beta):
        own, metrics = judge_gradients(learner.model, params, frozen, batch, read=read)
        return jax.tree.map(jnp.add, grads, own), metrics

    def zeros(params):
        return jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)

    def score(params, frozen, batch):
        return step_logits(learner.model, params, frozen, batch, read=read), None

    compiled: Callable[..., Any] = jax.jit
    return replace(
        alone,
        score=compiled(score, in_shardings=(params, base, rows), out_shardings=scalar),
        whole=compiled(
            whole,
            in_shardings=(state, base, rows, scalar, scalar),
            out_shardings=(state, scalar),
            donate_argnums=0,
        ),
        accumulate=compiled(
            accumulate,
            in_shardings=(params, params, base, rows, scalar),
            out_shardings=(params, scalar),
            donate_argnums=0,
        ),
        apply=compiled(
            apply, in_shardings=(state, params, scalar), out_shardings=(state, scalar), donate_argnums=0
        ),
        zeros=compiled(zeros, in_shardings=(params,), out_shardings=params),
        coupled=False,
    )


def _jit_logits(learner: JudgeLearner, mesh: Mesh, read: Read) -> ScoreStep:
    """Compiled logits [N] on the very rows that training uses."""

    def logits(params: Params, frozen: Params, batch: PreferenceBatch) -> jax.Array:
        return step_logits(learner.model, params, frozen, batch, read=read)

    return jax.jit(
        logits,
        in_shardings=(learner.shardings.params, learner.frozen_shardings, batch_shardings(mesh)),
        out_shardings=replicated(mesh),
    )
