"""What a step whose gradient is not finite leaves behind: nothing; and which tensor is not finite first."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


def unless_broken(before: T, after: T, grad_norm: jax.Array) -> T:
    """The state after a step; the one before it, bit by bit, where the gradient's global norm is not finite.

    The norm is known before the first parameter is touched (clipping needs it), so that the choice is made
    in the loop that updates.
    """
    taken = jnp.isfinite(grad_norm)
    return jax.tree.map(lambda old, new: jnp.where(taken, new, old), before, after)


@jax.jit
def finite_leaves(tree: Any) -> list[jax.Array]:
    """Whether all of a leaf's numbers are finite, bool [] each, in the order of the tree; does not wait."""
    return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]


def first_broken(tree: Any) -> str | None:
    """The path of the first leaf that is not finite, such as "layers/mlp/up/kernel"; None where all are."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    finite = np.asarray(jax.device_get(finite_leaves(tree)), bool)
    broken = np.flatnonzero(~finite)
    return jax.tree_util.keystr(paths[broken[0]], simple=True, separator="/") if broken.size else None
