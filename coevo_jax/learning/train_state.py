"""The state of one agent as a value: two agents are two values of this type."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from coevo_jax.models.lora import init_trained, plain
from coevo_jax.models.transformer import Params, Transformer, init_params
from coevo_jax.sharding import param_shardings, replicated


@struct.dataclass
class TrainState:
    """What an optimizer step takes and returns: parameters and moments."""

    step: jax.Array  # int32 []: optimizer steps since the run began
    params: Params  # what is trained: all parameters, or the adapters of a frozen base
    opt_state: Any


@dataclass(frozen=True, kw_only=True)
class Agents:
    """The states of all agents of a run at one moment, and the base that their adapters adapt."""

    states: Mapping[str, TrainState]  # by the recipe's names
    frozen: Params = field(default_factory=dict)  # empty where agents are whole

    def __getitem__(self, name: str) -> TrainState:
        return self.states[name]

    def having(self, name: str, state: TrainState) -> "Agents":
        """The same agents with another state of one of them."""
        return replace(self, states={**self.states, name: state})

    def without(self, name: str) -> "Agents":
        """The same agents without one of them, if there is one of that name."""
        return replace(self, states={other: state for other, state in self.states.items() if other != name})


def fresh_state(params: Params, optimizer: optax.GradientTransformation, step: int = 0) -> TrainState:
    """A state with zero moments around `params` (not copied: the caller gives up the array or copies it)."""
    return TrainState(step=jnp.int32(step), params=params, opt_state=optimizer.init(params))


def state_shardings(model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A TrainState of NamedShardings: moments lie as their parameters, scalars everywhere."""
    boxed = jax.eval_shape(lambda: init_trained(model, jax.random.key(0)))
    params = nn.unbox(param_shardings(mesh, boxed))
    abstract = jax.eval_shape(lambda: fresh_state(nn.unbox(boxed), optimizer))
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
    """A random state, made in its shardings: no device ever holds a full copy it does not keep."""
    create = jax.jit(partial(_random_state, model, optimizer), out_shardings=shardings)
    return create(jax.random.key(seed))


def _random_state(model: Transformer, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    return fresh_state(nn.unbox(init_trained(model, key)), optimizer)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """A model, which of its parameters are trained, and how trained and frozen ones lie on the mesh.

    It is equal to itself alone, so that what is compiled for it can be found again by it.
    """

    model: Transformer
    optimizer: optax.GradientTransformation
    shardings: TrainState
    frozen_shardings: Params  # of the base under a model's adapters; empty where all parameters are trained

    def random(self, key: jax.Array) -> TrainState:
        """The state that `init` makes, to be compiled."""
        return _random_state(self.model, self.optimizer, key)

    def init(self, seed: int) -> TrainState:
        """A random state of what is trained; fresh adapters change nothing of what the base computes."""
        return self._create(jax.random.key(seed))

    def init_frozen(self, seed: int) -> Params:
        """A random base for a model with adapters: the very parameters a model without them begins with."""
        return self._create_frozen(jax.random.key(seed))

    def fresh(self, params: Params, step: int) -> TrainState:
        """A state with zero moments around `params`, whose buffers it takes over."""
        return self._fresh(params, step)

    def renewed(self, state: TrainState) -> TrainState:
        """The state with zero moments; its buffers are taken over, the old moments' among them."""
        return self._renewed(state)

    def abstract(self) -> TrainState:
        """The shapes, types and shardings of a state, for restoring into."""
        return self._abstract

    def abstract_frozen(self) -> Params:
        """The shapes, types and shardings of the frozen base, for restoring into."""
        return self._abstract_frozen

    @cached_property
    def _create(self) -> Any:
        return jax.jit(self.random, out_shardings=self.shardings)

    @cached_property
    def _create_frozen(self) -> Any:
        return jax.jit(self._whole_params, out_shardings=self.frozen_shardings)

    @cached_property
    def _fresh(self) -> Any:
        def create(params: Params, step: int) -> TrainState:
            return fresh_state(params, self.optimizer, step)

        return jax.jit(create, donate_argnums=0, static_argnums=1, out_shardings=self.shardings)

    @cached_property
    def _renewed(self) -> Any:
        def create(state: TrainState) -> TrainState:
            return replace(fresh_state(state.params, self.optimizer), step=state.step)

        # Without keep_unused the old moments, which nothing reads, would be kept beside the new ones.
        return jax.jit(create, donate_argnums=0, keep_unused=True, out_shardings=self.shardings)

    # Keys are made while shapes are traced: who asks may forbid transfers to the devices.

    @cached_property
    def _abstract(self) -> TrainState:
        return _placed(jax.eval_shape(lambda: self._create(jax.random.key(0))), self.shardings)

    @cached_property
    def _abstract_frozen(self) -> Params:
        shapes = jax.eval_shape(lambda: self._whole_params(jax.random.key(0)))
        return _placed(shapes, self.frozen_shardings)

    def _whole_params(self, key: jax.Array) -> Params:
        params = nn.unbox(init_params(plain(self.model), key))
        lora = self.model.config.lora
        return jax.tree.map(lambda leaf: leaf.astype(lora.base_dtype), params) if lora else params


def make_learner(model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh) -> Learner:
    """Make a learner of adapters where the model has them, of all parameters elsewhere."""
    return Learner(
        model=model,
        optimizer=optimizer,
        shardings=state_shardings(model, optimizer, mesh),
        frozen_shardings=state_shardings(plain(model), optimizer, mesh).params if model.config.lora else {},
    )


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
