"""Arrays of a run that are only described: shapes, types and placements, and their bytes on a device."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch, Reinforcement, Steps, TokenBatch
from coevo_jax.config.options import BatchConfig
from coevo_jax.learning.surrogate import Surrogate
from coevo_jax.learning.train_step import batch_shardings

Tree = Any  # of ShapeDtypeStructs


def bytes_per_device(tree: Tree) -> int:
    """Bytes of a tree's arrays on one device."""
    return sum(array_bytes(leaf) for leaf in jax.tree.leaves(tree))


def array_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    """The bytes that an array takes on one device."""
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
    size = 1
    for dim in shape:
        size *= dim
    return size * leaf.dtype.itemsize


def abstract_batch(
    config: BatchConfig, mesh: Mesh, surrogate: Surrogate | None = None, *, judged: bool = False
) -> PreferenceBatch:
    """A microbatch whose every token may be scored: pairs and demonstrations have the same arrays.

    Args:
      surrogate: of what is reinforced, which has arrays of its own; None where nothing is.
      judged: its views are the steps of a discriminator.
    """
    rows, length, views = config.rows, config.row_length, config.rows * config.views_per_row
    by_view = array(jnp.float32, rows, config.views_per_row, length)
    ids, floats, pairs = array(jnp.int32, rows, length), array(jnp.float32, views), config.pairs
    shapes: Any = PreferenceBatch(
        tokens=TokenBatch(
            tokens=ids,
            positions=ids,
            visible_until=ids,
            source=ids,
            target=ids,
            scored=array(jnp.int32, rows),
        ),
        view_weight=by_view,
        reference_logps=floats,
        sft_weight=floats,
        reward=floats,
        token_count=array(jnp.int32, views),
        chosen=array(jnp.int32, pairs),
        rejected=array(jnp.int32, pairs),
        weight=array(jnp.float32, pairs),
        kind=array(jnp.int32, pairs),
        step_share=array(jnp.float32),
        reinforcement=surrogate
        and Reinforcement(
            weight=floats,
            advantage=by_view,
            old_logps=by_view,
            reference_logps=array(jnp.float32, rows, length) if surrogate.kl else None,
        ),
        steps=Steps(place=ids, expert=floats, own=floats) if judged else None,
    )
    shardings = batch_shardings(mesh)
    tokens = jax.tree.map(lambda _: shardings.tokens, shapes.tokens)
    reinforced = jax.tree.map(lambda _: shardings.reinforcement, shapes.reinforcement)
    steps = jax.tree.map(lambda _: shardings.steps, shapes.steps)
    return placed(shapes, replace(shardings, tokens=tokens, reinforcement=reinforced, steps=steps))


def array(dtype: Any, *shape: int) -> Any:
    """One array, wherever the compiler puts it."""
    return jax.ShapeDtypeStruct(shape, dtype)


def placed(shapes: Tree, shardings: Tree) -> Tree:
    """A tree of arrays, each with its sharding."""

    def place(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, shapes, shardings)
