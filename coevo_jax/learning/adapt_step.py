"""A step that an agent takes after an episode of its own evaluation: ATENA (arXiv 2506.06630).

Over the tokens that the agent wrote, with H(q) of `mixture_entropy` and the head's judgement of the mean
state that these tokens were read off, the loss is

    + mean H(q) after a success, - mean H(q) after a failure;  + head_weight * BCE(head, success)

The success is the true one where the agent was unsure, mean H(p) > query_above, and the head's own
prediction elsewhere, each with a learning rate of its own. The optimizer is AdamW, made anew for every
episode: its first step goes by gradient / (|gradient| + eps) in every weight, for both corrected moments are
the gradient's own.

Legend: B rows, K scored tokens a row, D hidden.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from coevo_jax.batch import Scalar, TokenBatch
from coevo_jax.learning.finite import unless_broken
from coevo_jax.learning.logps import parent_states
from coevo_jax.learning.mixture_entropy import choices, mixture_entropy
from coevo_jax.learning.train_state import Learner
from coevo_jax.models.scalar_head import HeadParams, apply_scalar_head, init_scalar_head
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sharding import batch_sharding, replicated

ADAM_EPS = 1e-8  # AdamW's default in PyTorch, whose optimizer the released script takes as it is
CERTAIN = 0.0  # the head's logit above which success is predicted: sigmoid(0) is 0.5


@struct.dataclass
class Adapted:
    """The weights that follow the episodes of an evaluation."""

    params: Params  # all parameters, or the adapters of a frozen base
    head: HeadParams  # predicts an episode's success


@struct.dataclass
class AdaptRates:
    """The method's numbers, float32 [] each; `config.adapt.AdaptOptions` says what they are."""

    mixing: Scalar
    head_weight: Scalar
    query_above: Scalar
    learning_rate_queried: Scalar
    learning_rate_predicted: Scalar
    weight_decay: Scalar


@struct.dataclass
class Adaptation:
    """What a step saw and did, float32 [] each."""

    uncertainty: jax.Array  # mean H(p) of the agent's tokens, nats
    mixture_entropy: jax.Array  # mean H(q), nats
    prediction: jax.Array  # the head's logit of success
    queried: jax.Array  # 1 where the true success was asked for
    success: jax.Array  # that the step believed: the true one, or the predicted
    loss: jax.Array
    grad_norm: jax.Array  # of all weights, the head's included
    learning_rate: jax.Array


AdaptStep = Callable[[Adapted, Params, TokenBatch, Scalar, AdaptRates], tuple[Adapted, Adaptation]]


def init_adapted(params: Params, hidden_size: int, head_bias: float = 0.0) -> Adapted:
    """The weights that an evaluation begins with: the agent's, and a head that always says `head_bias`."""
    return Adapted(params=params, head=init_scalar_head(hidden_size) | {"bias": jnp.float32(head_bias)})


def adapt_step(
    model: Transformer,
    state: Adapted,
    frozen: Params,
    tokens: TokenBatch,
    success: Scalar,
    rates: AdaptRates,
    mesh: Mesh | None = None,
) -> tuple[Adapted, Adaptation]:
    """The weights after one episode, and what the step saw (arXiv 2506.06630).

    As in the released script, the head's cross-entropy moves the agent's weights, too, and weight decay pulls
    at every weight. Where the gradient is not finite, the weights are those that came in.

    Args:
      frozen: what adapters adapt; empty where all parameters are trained.
      tokens: rows that hold the episode alone; all that the agent wrote is scored, one token at least.
      success: float32 [], 1 or 0: the true one, which is looked at only where it is asked for.
      mesh: where rows and vocabulary are split over devices.
    """

    def loss_of(state: Adapted) -> tuple[jax.Array, Adaptation]:
        head_VD, parents_BKD = parent_states(model, state.params, frozen, tokens)
        found = choices(head_VD, parents_BKD, tokens.target, tokens.scored, mesh)
        own_BK = (jnp.arange(parents_BKD.shape[1]) < jnp.asarray(tokens.scored)[:, None]).astype(jnp.float32)
        count = jnp.sum(own_BK)
        uncertainty = jnp.sum(found.entropies * own_BK) / count
        mixed = jnp.sum(mixture_entropy(found, rates.mixing) * own_BK) / count
        feature_D = jnp.einsum("bk,bkd->d", own_BK, parents_BKD.astype(jnp.float32)) / count
        prediction = apply_scalar_head(state.head, feature_D)
        queried = uncertainty > rates.query_above
        label = jnp.where(queried, success, prediction > CERTAIN).astype(jnp.float32)
        judged = optax.sigmoid_binary_cross_entropy(prediction, label)
        loss = jnp.where(label > 0, mixed, -mixed) + rates.head_weight * judged
        rate = jnp.where(queried, rates.learning_rate_queried, rates.learning_rate_predicted)
        seen = Adaptation(
            uncertainty=uncertainty,
            mixture_entropy=mixed,
            prediction=prediction,
            queried=queried.astype(jnp.float32),
            success=label,
            loss=loss,
            grad_norm=jnp.float32(0),
            learning_rate=jnp.float32(rate),
        )
        return loss, seen

    grads, seen = jax.grad(loss_of, has_aux=True)(state)
    norm = optax.tree.norm(grads)
    after = fresh_adamw(state, grads, seen.learning_rate, rates.weight_decay)
    seen = seen.replace(grad_norm=norm)  # pyright: ignore[reportAttributeAccessIssue]
    return unless_broken(state, after, norm), seen


def fresh_adamw(weights: Any, grads: Any, learning_rate: Scalar, weight_decay: Scalar) -> Any:
    """The weights after AdamW's first step (arXiv 1711.05101), whatever its betas: no moment is stored."""

    def step(weight: jax.Array, grad: jax.Array) -> jax.Array:
        direction = grad / (jnp.abs(grad) + ADAM_EPS) + weight_decay * weight
        return (weight - learning_rate * direction).astype(weight.dtype)

    return jax.tree.map(step, weights, grads)


def jit_adapt_step(learner: Learner, mesh: Mesh) -> AdaptStep:
    """The compiled step under the mesh; the weights that go in are donated."""
    everywhere: Any = replicated(mesh)
    adapted: Any = Adapted(params=learner.shardings.params, head=everywhere)

    def step(state, frozen, tokens, success, rates):
        return adapt_step(learner.model, state, frozen, tokens, success, rates, mesh)

    return jax.jit(
        step,
        in_shardings=(adapted, learner.frozen_shardings, batch_sharding(mesh), everywhere, everywhere),
        out_shardings=(adapted, everywhere),
        donate_argnums=0,
    )
