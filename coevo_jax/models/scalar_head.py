"""A scalar head: one number read off the backbone's last state, by a small parameter tree of its own.

Legend: D hidden; any axes before it, such as rows and tokens, stay.
"""

import jax
import jax.numpy as jnp

HeadParams = dict[str, jax.Array]


def init_scalar_head(hidden_size: int) -> HeadParams:
    """A head that answers 0 everywhere: {"kernel": [D], "bias": []}, float32.

    Zeros, so that before it has learned a judgement is undecided whatever the backbone; the gradient of one
    linear layer needs no broken symmetry.
    """
    return {"kernel": jnp.zeros(hidden_size, jnp.float32), "bias": jnp.zeros((), jnp.float32)}


def apply_scalar_head(params: HeadParams, hidden: jax.Array) -> jax.Array:
    """The float32 number of every state; hidden: [..., D] of any floating type, answer: [...]."""
    products = jnp.einsum(
        "...d,d->...",
        hidden.astype(jnp.float32),
        params["kernel"],
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return products + params["bias"]
