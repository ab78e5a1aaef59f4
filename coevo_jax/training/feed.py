"""What goes to the devices while learning: the one place that puts a batch there, and scalars beside it.

Every transfer is asked for by name, so that `jax.transfer_guard` can refuse all others.
"""

import jax
import numpy as np
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch, TokenBatch
from coevo_jax.learning.train_step import batch_shardings
from coevo_jax.sharding import batch_sharding, put, replicated


def put_batch(mesh: Mesh, batch: PreferenceBatch) -> PreferenceBatch:
    """A microbatch of the host on the devices of the mesh, as the compiled steps take it. Does not wait.

    All processes hold the whole batch; each hands over the rows of its own devices.
    """
    return put(batch, batch_shardings(mesh))


def put_tokens(mesh: Mesh, tokens: TokenBatch) -> TokenBatch:
    """The rows of a microbatch alone on the devices of the mesh. Does not wait."""
    return put(tokens, batch_sharding(mesh))


def put_scalar(mesh: Mesh, value: float) -> jax.Array:
    """A number on every device, float32 []. Does not wait."""
    return put(np.float32(value), replicated(mesh))
