"""The mesh and the logical-axis rules: the only file that names mesh axes.

Models name logical axes ("embed", "heads", …); this file maps them to the mesh axes data, fsdp and tensor.
Where a mesh has more devices along tensor than the model has key/value heads, that axis is two: `tensor`, a
device for each of these heads, and `group`, the devices that share one. Only key/value heads can tell.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from coevo_jax.config.options import MeshConfig
from coevo_jax.config.strict import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")
GROUP = "group"
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

P = ParamSpec("P")
R = TypeVar("R")


def kept(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that keeps a function's last results by its arguments, which are hashable.

    It is for what makes programs to be compiled: the next run of a sweep, a study or a test then compiles
    nothing again. What is kept holds no arrays, only programs and where their arrays lie.

    Args:
      size: how many results are kept.
    """
    return functools.lru_cache(maxsize=size)  # pyright: ignore[reportReturnType]  # it forgets parameters


def make_mesh(config: MeshConfig, kv_heads: int | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """The device mesh of a run: the first data * fsdp * tensor devices, laid out along a TPU's links.

    Args:
      kv_heads: key/value heads of the model; `tensor` may be a multiple of them.
      devices: those of another machine that is compiled for; by default this one's.

    Raises:
      ConfigError: the mesh needs more devices than there are.
    """
    shape = (config.data, config.fsdp, config.tensor)
    found = jax.devices() if devices is None else devices
    needed = int(np.prod(shape))
    if needed > len(found):
        raise ConfigError(
            f"mesh: data x fsdp x tensor = {config.data} x {config.fsdp} x {config.tensor} needs "
            f"{needed} devices, found {len(found)} ({found[0].platform})"
        )
    processes = {device.process_index for device in found}
    if devices is None and len(processes) > 1 and needed < len(found):
        raise ConfigError(
            f"mesh: data x fsdp x tensor = {config.data} x {config.fsdp} x {config.tensor} takes {needed} of "
            f"the {len(found)} devices of {len(processes)} processes; expected all of them"
        )
    # Slices are a matter of TPUs, whatever other devices say there.
    slices = len({getattr(device, "slice_index", 0) for device in found[:needed]})
    if slices == 1 or found[0].platform != "tpu":
        layout = mesh_utils.create_device_mesh(shape, found[:needed], allow_split_physical_axes=True)
        return _mesh(layout, kv_heads)
    if config.data % slices:
        raise ConfigError(
            f"mesh.data: found {config.data}, expected a multiple of the {slices} slices: between slices go "
            "gradients alone"
        )
    layout = mesh_utils.create_hybrid_device_mesh(
        (config.data // slices, *shape[1:]), (slices, 1, 1), found[:needed], allow_split_physical_axes=True
    )
    return _mesh(layout, kv_heads)


def host_mesh(mesh: Mesh, tensor: int, kv_heads: int) -> Mesh:
    """The first `tensor` devices that this host has in a run's mesh: roll-outs make no call beyond them.

    Where `tensor` is more than a host has, all devices of as many neighbouring hosts, in lockstep.

    Raises:
      ConfigError: `tensor` divides neither a host's devices nor the hosts into groups of whole hosts.
    """
    by_host = _devices_by_host(mesh, tensor)
    hosts = hosts_of_a_copy(mesh, tensor)
    first = jax.process_index() // hosts * hosts if mesh.is_multi_process else 0
    return _mesh(by_host[first : first + hosts].reshape(-1)[:tensor].reshape(1, 1, tensor), kv_heads)


def hosts_of_a_copy(mesh: Mesh, tensor: int) -> int:
    """Hosts whose devices hold one copy for roll-outs together: 1, unless it is too big for one."""
    return max(1, tensor // _devices_by_host(mesh, tensor).shape[1])


def copies_mesh(mesh: Mesh, tensor: int, kv_heads: int) -> Mesh:
    """All devices of a run's mesh in groups of `tensor` neighbours: each can hold one copy."""
    return _mesh(_devices_by_host(mesh, tensor).reshape(-1, 1, tensor), kv_heads)


def _devices_by_host(mesh: Mesh, tensor: int) -> np.ndarray:
    """The devices of a mesh, [hosts, devices of a host]."""
    devices = sorted(mesh.devices.flat, key=lambda device: (device.process_index, device.id))
    hosts = len({device.process_index for device in devices})
    own = len(devices) // hosts
    if own % tensor and (tensor % own or len(devices) % tensor):
        several = f", or a multiple of it that divides the {len(devices)} of all hosts" if hosts > 1 else ""
        raise ConfigError(
            f"rollout.tensor: found {tensor}, expected a divisor of the {own} devices that a host has in the "
            f"mesh{several}"
        )
    return np.asarray(devices).reshape(hosts, -1)


def put(host: Any, shardings: Any) -> Any:
    """A tree of numpy arrays on the devices of `shardings`, which may be a prefix of the tree.

    Every process holds all of the arrays, the same everywhere, and hands over what its own devices keep.
    """

    def put_part(sharding: NamedSharding, part: Any) -> Any:
        return jax.tree.map(lambda array: put_one(np.asarray(array), sharding), part)

    def put_one(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        with jax.transfer_guard_host_to_device("allow"):  # JAX counts what a callback gives as implicit
            return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    if all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings)):
        return jax.device_put(host, shardings)
    return jax.tree.map(put_part, shardings, host)


def _mesh(devices: np.ndarray, kv_heads: int | None) -> Mesh:
    axes, tensor = MESH_AXES, devices.shape[-1]
    if kv_heads is not None and tensor > kv_heads and tensor % kv_heads == 0:
        axes = (*MESH_AXES, GROUP)
        devices = devices.reshape(*devices.shape[:-1], kv_heads, tensor // kv_heads)
    return Mesh(devices, axes, axis_types=(AxisType.Auto,) * len(axes))


def _whole_tensor(mesh: Mesh) -> str | tuple[str, str]:
    """The axis, or both, that split what the rules split over `tensor`; key/value heads take the first."""
    return ("tensor", GROUP) if GROUP in mesh.shape else "tensor"


def on_mesh(mesh: Mesh, spec: PartitionSpec) -> PartitionSpec:
    """A spec that names the rules' axes, on a mesh."""
    return PartitionSpec(*(_whole_tensor(mesh) if axis == "tensor" else axis for axis in spec))


def _size(mesh: Mesh, axes: str | tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def param_shardings(mesh: Mesh, abstract_params: Any) -> Any:
    """Shardings of a boxed parameter tree (`nn.with_logical_partitioning`), one NamedSharding per array.

    Raises:
      ConfigError: a rule of LOGICAL_RULES does not divide a dimension; the message names both.
    """

    def of(path: tuple[Any, ...], boxed: Any) -> NamedSharding:
        names = boxed.names if isinstance(boxed, nn.LogicallyPartitioned) else (None,) * boxed.ndim
        shape = nn.unbox(boxed).shape
        where = "/".join(str(getattr(key, "key", key)) for key in path)
        axes = [_mesh_axis(mesh, name, size, where) for name, size in zip(names, shape, strict=True)]
        while axes and axes[-1] is None:
            axes.pop()
        return NamedSharding(mesh, PartitionSpec(*axes))

    def is_box(x: Any) -> bool:
        return isinstance(x, nn.LogicallyPartitioned)

    return jax.tree_util.tree_map_with_path(of, abstract_params, is_leaf=is_box)


def _mesh_axis(mesh: Mesh, logical: str | None, size: int, where: str) -> str | tuple[str, str] | None:
    """What splits a logical axis of `size` on a mesh; None where it is on every device."""
    axis = dict(LOGICAL_RULES)[logical] if logical is not None else None
    if axis is None:
        return None
    axes = _whole_tensor(mesh) if axis == "tensor" and logical != "kv_heads" else axis
    if size % _size(mesh, axes) == 0:
        return axes
    raise ConfigError(
        f"mesh.{axis} {_size(mesh, axes)} does not divide the {size} of {where}: the rule "
        f"{logical} -> {axis} splits its dimension {logical}"
    )


def kv_heads_sharding(mesh: Mesh, heads: int) -> NamedSharding:
    """Of a cache [S, K, C, h] with `heads` key/value heads: split as the weights that make them."""
    return NamedSharding(mesh, PartitionSpec(None, _mesh_axis(mesh, "kv_heads", heads, "the KV cache")))


def vocab_sharding(mesh: Mesh) -> NamedSharding:
    """Of logits [S, V]."""
    return NamedSharding(mesh, PartitionSpec(None, _whole_tensor(mesh)))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over all batch axes: rows of a TokenBatch, and the N trajectories of those rows."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


@kept(8)
def over_heads(mesh: Mesh, attention: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Attention of each device on its own rows [B, ...] and heads [B, T, H, h], without communication.

    The same arguments give the same function, by which what is compiled with it can be found again.
    """
    heads, keys = (PartitionSpec(BATCH_AXES, None, axes, None) for axes in (_whole_tensor(mesh), "tensor"))
    rows = PartitionSpec(BATCH_AXES, None)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, visible: Any, *window: Any) -> jax.Array:
        # Of a window, positions are rows and the size is one number; what may be made of `visible` are rows.
        specs = jax.tree.map(lambda x: rows if x.ndim else PartitionSpec(), window)
        shown = jax.tree.map(lambda _: rows, visible)
        split = jax.shard_map(
            attention,
            mesh=mesh,
            in_specs=(heads, keys, keys, shown, *specs),
            out_specs=heads,
            check_vma=False,
        )
        return split(q, k, v, visible, *window)

    return attend


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What a device must do to work on its rows and its part of the vocabulary; nothing where it is alone."""

    alone: bool
    platform: str  # of the devices: "cpu", "gpu", "tpu"
    vocab: str | tuple[str, str] = "tensor"  # what splits the vocabulary

    def gather_embed(self, head_vd: jax.Array) -> jax.Array:
        """[v, d] -> [v, D]."""
        return head_vd if self.alone else jax.lax.all_gather(head_vd, "fsdp", axis=1, tiled=True)

    def scatter_embed(self, head_vD: jax.Array) -> jax.Array:
        """Sum over the rows of all devices; each keeps its part, [v, D] -> [v, d]."""
        if self.alone:
            return head_vD
        own = jax.lax.psum_scatter(head_vD, "fsdp", scatter_dimension=1, tiled=True)
        return jax.lax.psum(own, "data")  # a part alone goes over what may be the slowest links

    def place_in_vocab(self, ids: jax.Array, held: int) -> jax.Array:
        """Where ids stand among the `held` ones of this device; `held` where they stand on another."""
        if self.alone:
            return ids
        place = ids - jax.lax.axis_index(self.vocab) * held
        return jnp.where((place >= 0) & (place < held), place, held)

    def sum_over_vocab(self, x: jax.Array) -> jax.Array:
        return x if self.alone else jax.lax.psum(x, self.vocab)

    def max_over_vocab(self, x: jax.Array) -> jax.Array:
        return x if self.alone else jax.lax.pmax(x, self.vocab)


def over_shards(
    mesh: Mesh | None, function: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """`function(shards, *arrays)` of each device on its part of the arrays; specs name the rules' axes."""
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    if mesh is None or mesh.size == 1:
        return functools.partial(function, Shards(alone=True, platform=platform))
    local = functools.partial(function, Shards(alone=False, platform=platform, vocab=_whole_tensor(mesh)))
    own = functools.partial(jax.tree.map, functools.partial(on_mesh, mesh))
    return jax.shard_map(local, mesh=mesh, in_specs=own(in_specs), out_specs=own(out_specs), check_vma=False)
