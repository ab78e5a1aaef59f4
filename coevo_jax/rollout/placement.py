"""The placement of roll-outs: an agent's copy in the compute type, one array per layer, on a host's devices.

Every call on a mesh that crosses hosts is collective, and the hosts' episodes differ in length: so each host
plays on a mesh of its own. Heads, feed-forward and vocabulary are split over `rollout.tensor` of its devices,
the KV cache by key/value heads. Where one host has fewer devices than that, neighbouring hosts share a copy
and its slots, and play in lockstep (`rollout.lockstep`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from coevo_jax.config.options import RolloutConfig
from coevo_jax.learning.train_state import Learner
from coevo_jax.models.kv_cache import KVCache, unstack, unstack_boxes
from coevo_jax.models.lora import plain
from coevo_jax.models.transformer import Params, init_params
from coevo_jax.sampling.decode import SlotState
from coevo_jax.sampling.shapes import cpu_lanes
from coevo_jax.sharding import (
    copies_mesh,
    host_mesh,
    hosts_of_a_copy,
    kept,
    kv_heads_sharding,
    param_shardings,
    put,
    replicated,
    vocab_sharding,
)


@dataclass(frozen=True, kw_only=True)
class RolloutPlacement:
    """How the agent's copy and the engine's slots are laid out on this host's devices."""

    mesh: Mesh  # of this host alone, or of the `hosts` that share a copy
    hosts: int
    params: Params  # NamedShardings of the copy, on `mesh`
    slots: SlotState  # NamedShardings of the engine's state, on `mesh`
    cast: Callable[[Params], Params]  # all parameters, or the base of adapters, split as in learning
    copies: Params  # NamedShardings of one copy per group of devices, over all hosts


def lanes_of(placement: RolloutPlacement, slots: int) -> int:
    """The number of engines that share an agent's slots where its copy lies: several on one CPU device."""
    alone = placement.mesh.size == 1 and placement.hosts == 1
    return cpu_lanes(slots) if alone and placement.mesh.devices.flat[0].platform == "cpu" else 1


def place_rollouts(
    learner: Learner, config: RolloutConfig, mesh: Mesh, local: Mesh | None = None
) -> RolloutPlacement:
    """The placement of roll-outs beside a learner on a run's mesh; the same for the same arguments.

    Args:
      local: this host's devices where programs are only compiled for a machine; by default found in `mesh`.

    Raises:
      ConfigError: `rollout.tensor` does not divide the host's devices, or a dimension of the model.
    """
    return _place(learner, config.tensor, mesh, local)


@kept(4)
def _place(learner: Learner, tensor: int, mesh: Mesh, local: Mesh | None) -> RolloutPlacement:
    model = plain(learner.model)
    boxed = unstack_boxes(
        jax.eval_shape(lambda: init_params(model, jax.random.key(0))), model.config.num_layers
    )
    shardings = param_shardings(mesh, boxed)
    kv_heads = model.config.num_kv_heads
    local = local or host_mesh(mesh, tensor, kv_heads)
    layer = kv_heads_sharding(local, kv_heads)
    layers = (layer,) * model.config.num_layers
    everywhere: Any = replicated(local)
    logits: Any = vocab_sharding(local)
    return RolloutPlacement(
        mesh=local,
        hosts=hosts_of_a_copy(mesh, tensor) if mesh.is_multi_process else 1,
        params=param_shardings(local, boxed),
        slots=SlotState(KVCache(layers, layers, everywhere), logits, everywhere, everywhere),  # pyright: ignore[reportArgumentType]
        cast=jax.jit(
            partial(unstack, config=model.config),
            in_shardings=(learner.frozen_shardings or learner.shardings.params,),
            out_shardings=shardings,
        ),
        copies=param_shardings(copies_mesh(mesh, tensor, kv_heads), boxed),
    )


def rollout_weights(
    placement: RolloutPlacement, frozen: Params, agents: Sequence[Params]
) -> tuple[Params, list[Params]]:
    """What the engine's `load` takes of agents, on this host's devices; a collective call of all hosts.

    Agents that are adapters play side by side on a copy of their base, each with its own. Nothing is merged:
    most of what an adapter learns is less than half of what bfloat16 resolves of a weight, and would be
    rounded away. The copy computes the same numbers as learning does, because products cast their weights to
    the compute type anyway.

    Args:
      frozen: the base; empty where the only agent is all parameters.
    """
    if frozen:
        copy = _on_host(placement, placement.cast(frozen))
        return copy, [_whole_on_host(placement, adapters) for adapters in agents]
    [params] = agents
    return _on_host(placement, placement.cast(params)), []


def _whole_on_host(placement: RolloutPlacement, params: Params) -> Params:
    """A copy of (small) parameters on each of this host's devices. Collective where hosts share them."""
    everywhere = replicated(placement.mesh)

    def copy(x: jax.Array) -> jax.Array:
        if not x.is_fully_addressable:
            x = jax.jit(lambda x: x, out_shardings=replicated(x.sharding.mesh))(x)  # pyright: ignore[reportAttributeAccessIssue]
            return put(np.asarray(x), everywhere)
        return jax.device_put(x, everywhere)

    return jax.tree.map(copy, params)


def _on_host(placement: RolloutPlacement, whole: Params) -> Params:
    """Parameters split as in learning, gathered over what crosses hosts."""
    copies = jax.device_put(whole, placement.copies)
    own_process = jax.process_index()
    devices = [device for device in placement.mesh.devices.flat if device.process_index == own_process]

    def own(x: jax.Array, sharding: jax.sharding.NamedSharding) -> jax.Array:
        shards = {shard.device: shard.data for shard in x.addressable_shards}
        parts = [shards[device] for device in devices]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

    return jax.tree.map(own, copies, placement.params)
