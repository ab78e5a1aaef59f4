"""Load a checkpoint folder onto a mesh: file by file, tensor by tensor, straight to the devices.

The host holds one tensor at a time; types are converted, weights transposed, layers stacked on the devices.
Where the device is the host and nothing is converted, a few rows are held (`host.py`).
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from coevo_jax.config.options import ModelConfig
from coevo_jax.models.huggingface.host import assemble, fits_host
from coevo_jax.models.huggingface.names import Entry, entries
from coevo_jax.models.huggingface.shards import check_checkpoint, open_file
from coevo_jax.models.transformer import Params


def load_params(folder: Path, config: ModelConfig, abstract: Params, *, kept: bool = False) -> Params:
    """Read all parameters of a model, file by file.

    Args:
      abstract: their shapes, types and shardings; what is stored in another float type is converted.
      kept: no program is given them up to (donated), as none is a frozen base.

    Raises:
      ConfigError: the files do not hold this model (see `check_checkpoint`).
    """
    vocab_size = abstract["embedding"].shape[0]
    stored = check_checkpoint(folder, config, vocab_size)
    wanted = {entry: entry.leaf(abstract) for entry in entries(config, vocab_size)}
    arrays = {
        entry: assemble(entry, leaf, stored)
        for entry, leaf in wanted.items()
        if kept and fits_host(entry, leaf, stored)
    }
    targets = [_Target(entry, leaf) for entry, leaf in wanted.items() if entry not in arrays]
    places = {name: (target, layer) for target in targets for layer, name in target.entry.tensors()}
    for name, (target, layer) in places.items():
        # Opened anew for every tensor: pages that were read count as ours while a file stays mapped.
        target.fill(open_file(stored[name].path).get_slice(name), layer)
    arrays |= {target.entry: target.array for target in targets}
    params: Params = {}
    for entry in wanted:
        node = params
        for key in entry.path[:-1]:
            node = node.setdefault(key, {})
        node[entry.path[-1]] = arrays[entry]
    return params


class _Target:
    """A parameter on the devices while its tensors arrive."""

    def __init__(self, entry: Entry, leaf: Any) -> None:
        self.entry = entry
        self._stored = _stored_sharding(entry, leaf.sharding)
        self._place = jax.jit(functools.partial(_place, entry), donate_argnums=0, out_shardings=leaf.sharding)
        zeros = functools.partial(jnp.zeros, leaf.shape, leaf.dtype)
        self.array: jax.Array = jax.jit(zeros, out_shardings=leaf.sharding)()

    def fill(self, tensor: Any, layer: int | None) -> None:
        """Take one stored tensor; every device reads its own part of it."""
        read: Any = tensor.__getitem__
        parts = jax.make_array_from_callback(self.entry.tensor_shape, self._stored, read)
        self.array = self._place(self.array, parts, layer)
        # Dispatch runs ahead of the devices: without this, every tensor of the model would wait on the host.
        self.array.block_until_ready()


def _place(entry: Entry, whole: jax.Array, tensor: jax.Array, layer: jax.Array | None) -> jax.Array:
    """Put a tensor into its parameter, in place; one layer of it where layers are stacked."""
    if layer is None:
        return entry.ours(tensor).astype(whole.dtype)
    return jax.lax.dynamic_update_index_in_dim(whole, entry.ours(tensor).astype(whole.dtype), layer, axis=0)


def _stored_sharding(entry: Entry, sharding: NamedSharding) -> NamedSharding:
    """How the tensor as it is stored is split, so that each device reads the part it keeps.

    Of the axes that a stored axis joins only the first may be split, as our rules have it.
    """
    spec = (*sharding.spec, *(None,) * (len(entry.shape) + 1))[entry.layers is not None :]
    if not entry.into:
        return NamedSharding(sharding.mesh, PartitionSpec(*spec[: len(entry.tensor_shape)]))
    return NamedSharding(sharding.mesh, PartitionSpec(spec[entry.into], spec[0]))
