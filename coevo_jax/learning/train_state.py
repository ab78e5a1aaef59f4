"""The state of one agent: a value. Two agents are two values of this type."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from coevo_jax.models.transformer import Params, Transformer, init_params
from coevo_jax.sharding import param_shardings, replicated


@struct.dataclass
class TrainState:
    step: jax.Array  # int32 []: optimizer steps since the run began
    params: Params
    opt_state: Any


def fresh_state(params: Params, optimizer: optax.GradientTransformation, step: int = 0) -> TrainState:
    """A state with zero moments around `params` (not copied: the caller gives up the array or copies it)."""
    return TrainState(step=jnp.int32(step), params=params, opt_state=optimizer.init(params))


def state_shardings(model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A TrainState of NamedShardings: moments lie as their parameters, scalars everywhere."""
    boxed = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = nn.unbox(param_shardings(mesh, boxed))
    abstract = jax.eval_shape(lambda: fresh_state(nn.unbox(init_params(model, jax.random.key(0))), optimizer))
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract.opt_state,
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    step: Any = replicated(mesh)
    return TrainState(step=step, params=params, opt_state=opt_state)


def init_state(
    model: Transformer, optimizer: optax.GradientTransformation, shardings: TrainState, seed: int
) -> TrainState:
    """A random state, born in its shardings: no device ever holds a full copy it does not keep."""

    def create(key: jax.Array) -> TrainState:
        return fresh_state(nn.unbox(init_params(model, key)), optimizer)

    return jax.jit(create, out_shardings=shardings)(jax.random.key(seed))
