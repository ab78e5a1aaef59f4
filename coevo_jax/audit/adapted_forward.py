"""The steps of an agent after its test episodes, taken again: whole logits, one episode a row, in float32.

Of an episode's tokens that the agent wrote, with p the distribution that one was taken from and
q = lambda onehot(taken) + (1 - lambda) p, the loss is the mean entropy of q after a success, minus it after a
failure, plus the weighted cross-entropy of the head, which reads the mean of the states before the tokens.
Then every weight w with the gradient g becomes w - rate * (g / (|g| + 1e-8) + decay * w): AdamW's first step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.audit.forward import SHORTEST, chunk_size
from coevo_jax.audit.reading import Episode
from coevo_jax.config.adapt import AdaptOptions
from coevo_jax.models.transformer import Transformer, output_head

EPS = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What the weights before a step say of its episode."""

    uncertainty: float  # mean entropy of p, nats
    mixture_entropy: float
    prediction: float  # the head's logit
    loss: float
    grad_norm: float
    logps: np.ndarray  # float64 [tokens that the agent wrote]


def steps(
    model: Transformer,
    variables: Any,
    options: AdaptOptions,
    episodes: Sequence[tuple[Episode, bool | None, float]],
) -> Iterator[Step]:
    """What each episode's step saw, one after another.

    Args:
      variables: what the evaluation began with.
      episodes: each with the success that its step believed and its learning rate; None is no step.
    """
    key = "adapters" if "adapters" in variables else "params"
    base = {name: tree for name, tree in variables.items() if name != key}
    width = model.config.hidden_size
    head = {"kernel": jnp.zeros(width, jnp.float32), "bias": jnp.float32(options.head_bias)}
    weights = {"own": jax.tree.map(jnp.asarray, variables[key]), "head": head}
    program: Any = _program  # a module of flax is hashable, whatever its type says
    run = program(model, key)
    numbers = {"mixing": options.mixing, "head_weight": options.head_weight, "decay": options.weight_decay}
    numbers = {name: jnp.float32(value) for name, value in numbers.items()}
    with jax.default_matmul_precision("highest"):
        for episode, success, rate in episodes:
            tokens, wrote = _padded(episode)
            believed = jnp.float32(bool(success))
            step_rate = jnp.float32(0.0 if success is None else rate)
            weights, seen, logps = run(weights, base, tokens, wrote, believed, step_rate, numbers)
            places = np.flatnonzero(wrote)
            found = {name: float(value) for name, value in seen.items()}
            yield Step(**found, logps=np.asarray(logps, np.float64)[places])


def _padded(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    size = SHORTEST
    while size < len(episode.tokens):
        size *= 2
    tokens, wrote = np.zeros(size, np.int32), np.zeros(size, bool)
    tokens[: len(episode.tokens)], wrote[: len(episode.tokens)] = episode.tokens, episode.agent_mask
    wrote[0] = False  # nothing is before it
    return tokens, wrote


@lru_cache(maxsize=2)
def _program(model: Any, key: str) -> Any:
    def loss_of(weights, base, tokens_T, wrote_T, success, numbers):
        length = len(tokens_T)
        variables = base | {key: weights["own"]}
        places = jnp.arange(length)[None]
        hidden: Any = model.apply(variables, tokens_T[None], places, jnp.full((1, length), length))
        before_TD = jnp.roll(hidden[0], 1, axis=0).astype(jnp.float32)
        head_VD = output_head(variables["params"]).astype(jnp.float32)
        size = chunk_size(length, 4 * head_VD.shape[0])

        @jax.checkpoint
        def chunk(part):
            logps = jax.nn.log_softmax(part[0] @ head_VD.T)
            p, taken = jnp.exp(logps), jax.nn.one_hot(part[1], logps.shape[1])
            q = numbers["mixing"] * taken + (1 - numbers["mixing"]) * p
            q = jnp.where(q > 0, q, 1.0)  # 0 log 0 is 0
            return jnp.sum(taken * logps, 1), -jnp.sum(p * logps, 1), -jnp.sum(q * jnp.log(q), 1)

        parts = before_TD.reshape(-1, size, before_TD.shape[1]), tokens_T.reshape(-1, size)
        logps, sure, mixed = (one.reshape(-1) for one in jax.lax.map(chunk, parts))
        count = jnp.maximum(jnp.sum(wrote_T), 1)
        sure, mixed = (jnp.sum(jnp.where(wrote_T, one, 0.0)) / count for one in (sure, mixed))
        state_D = jnp.sum(jnp.where(wrote_T[:, None], before_TD, 0.0), axis=0) / count
        logit = jnp.sum(state_D * weights["head"]["kernel"]) + weights["head"]["bias"]
        judged = jax.nn.softplus(logit) - success * logit
        loss = (2 * success - 1) * mixed + numbers["head_weight"] * judged
        seen = {"uncertainty": sure, "mixture_entropy": mixed, "prediction": logit, "loss": loss}
        return loss, (seen, logps)

    @jax.jit
    def run(weights, base, tokens_T, wrote_T, success, rate, numbers):
        grads, (seen, logps) = jax.grad(loss_of, has_aux=True)(
            weights, base, tokens_T, wrote_T, success, numbers
        )

        def moved(weight, grad):
            return weight - rate * (grad / (jnp.abs(grad) + EPS) + numbers["decay"] * weight)

        squares = [jnp.sum(jnp.square(grad)) for grad in jax.tree.leaves(grads)]
        return (
            jax.tree.map(moved, weights, grads),
            seen | {"grad_norm": jnp.sqrt(jnp.sum(jnp.stack(squares)))},
            logps,
        )

    return run
