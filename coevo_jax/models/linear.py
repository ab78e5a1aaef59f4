"""Linear maps with their own backward pass, with float32 sums in every product.

It makes no transposed copy of the larger side, which is what automatic differentiation's form costs on the
CPU.

Legend: N tokens (all leading axes), I in, O out.
"""

import jax
import jax.numpy as jnp

Axes = tuple[int, ...]


@jax.custom_vjp
def linear(x_NI: jax.Array, weight_IO: jax.Array) -> jax.Array:
    """x @ weight over the last axis of x, in the type of x with float32 sums; the weight is cast to it."""
    return _dot(x_NI, weight_IO.astype(x_NI.dtype), ((x_NI.ndim - 1,), (0,))).astype(x_NI.dtype)


def _linear_forward(x_NI, weight_IO):
    return linear(x_NI, weight_IO), (x_NI, weight_IO)


def _linear_backward(kept, dy_NO):
    x_NI, weight_IO = kept
    dx_NI = _dot(dy_NO, weight_IO.astype(dy_NO.dtype), ((dy_NO.ndim - 1,), (1,))).astype(x_NI.dtype)
    (I, O), N = weight_IO.shape, tuple(range(x_NI.ndim - 1))
    # The CPU copies the left factor into a transposed layout: let it be the narrower one. (Only in float32:
    # its bfloat16 product into float32 is not implemented for a transposed result.)
    if I <= O or x_NI.dtype != jnp.float32:
        d_weight = _dot(x_NI, dy_NO, (N, N))
    else:
        d_weight = _dot(dy_NO, x_NI, (N, N)).T
    return dx_NI, d_weight.astype(weight_IO.dtype)


linear.defvjp(_linear_forward, _linear_backward)


def _dot(left: jax.Array, right: jax.Array, contracted: tuple[Axes, Axes]) -> jax.Array:
    return jax.lax.dot_general(left, right, (contracted, ((), ())), preferred_element_type=jnp.float32)
