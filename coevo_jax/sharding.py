"""The mesh and the logical-axis rules: the only file that names mesh axes.

Models name logical axes ("embed", "heads", …); this file maps them to the mesh axes data, fsdp and tensor.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from coevo_jax.config import ConfigError, MeshConfig

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

ROWS = PartitionSpec(BATCH_AXES)  # of an array [B, ...]
HEAD = PartitionSpec("tensor", "fsdp")  # of an array [V, D], as LOGICAL_RULES split it

LOGICAL_RULES = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("head_dim", None),
    ("norm", None),
    ("rank", None),
    ("layers", None),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """The device mesh of a run: the first data * fsdp * tensor devices.

    Raises:
      ConfigError: the mesh needs more devices than there are.
    """
    shape = (config.data, config.fsdp, config.tensor)
    needed, found = int(np.prod(shape)), len(jax.devices())
    if needed > found:
        raise ConfigError(
            f"mesh: data x fsdp x tensor = {config.data} x {config.fsdp} x {config.tensor} needs "
            f"{needed} devices, found {found} ({jax.devices()[0].platform})"
        )
    devices = np.asarray(jax.devices()[:needed]).reshape(shape)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def param_shardings(mesh: Mesh, abstract_params: Any) -> Any:
    """Shardings of a boxed parameter tree (`nn.with_logical_partitioning`), one NamedSharding per array."""
    specs = nn.get_partition_spec(abstract_params)
    return nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_RULES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over all batch axes: rows of a TokenBatch, and the N trajectories of those rows."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_heads(mesh: Mesh, attention: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Attention of each device on its own rows [B, ...] and heads [B, T, H, h], without communication."""
    heads = PartitionSpec(BATCH_AXES, None, "tensor", None)
    rows = PartitionSpec(BATCH_AXES, None)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array, window: Any = None) -> jax.Array:
        # Of a window, positions are rows and the size is one number.
        specs = jax.tree.map(lambda x: rows if x.ndim else PartitionSpec(), window)
        split = jax.shard_map(
            attention,
            mesh=mesh,
            in_specs=(heads, heads, heads, rows, specs),
            out_specs=heads,
            check_vma=False,
        )
        return split(q, k, v, visible, window)

    return attend


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What a device must do to work on its rows and its part of the vocabulary; nothing where it is alone."""

    alone: bool

    def gather_embed(self, head_vd: jax.Array) -> jax.Array:
        """[v, d] -> [v, D]."""
        return head_vd if self.alone else jax.lax.all_gather(head_vd, "fsdp", axis=1, tiled=True)

    def scatter_embed(self, head_vD: jax.Array) -> jax.Array:
        """Sum over the rows of all devices; each keeps its part, [v, D] -> [v, d]."""
        if self.alone:
            return head_vD
        return jax.lax.psum_scatter(jax.lax.psum(head_vD, "data"), "fsdp", scatter_dimension=1, tiled=True)

    def place_in_vocab(self, ids: jax.Array, held: int) -> jax.Array:
        """Where ids stand among the `held` ones of this device; `held` where they stand on another."""
        if self.alone:
            return ids
        place = ids - jax.lax.axis_index("tensor") * held
        return jnp.where((place >= 0) & (place < held), place, held)

    def sum_over_vocab(self, x: jax.Array) -> jax.Array:
        return x if self.alone else jax.lax.psum(x, "tensor")

    def max_over_vocab(self, x: jax.Array) -> jax.Array:
        return x if self.alone else jax.lax.pmax(x, "tensor")


def over_shards(
    mesh: Mesh | None, function: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """`function(shards, *arrays)` of each device on its own part of the arrays."""
    if mesh is None or mesh.size == 1:
        return functools.partial(function, Shards(alone=True))
    local = functools.partial(function, Shards(alone=False))
    return jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
