"""The mesh and the logical-axis rules: the only file that names mesh axes.

Models name logical axes ("embed", "heads", …); this file maps them to the mesh axes data, fsdp and tensor.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from coevo_jax.config import ConfigError, MeshConfig

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

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
    return jax.shard_map(
        attention, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
    )
