"""The root-mean-square norm (arXiv 1910.07467) with its backward pass written out.

Legend: D width of the last axis.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale_D: jax.Array, epsilon: float) -> jax.Array:
    """The norm over the last axis of x [..., D], times a scale; computed in float32, in the type of x."""
    return _normed(x, scale_D, epsilon)[0].astype(x.dtype)


def _normed(x: jax.Array, scale_D: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + epsilon)
    return x32 * inverse * scale_D, inverse


def _forward(x: jax.Array, scale_D: jax.Array, epsilon: float):
    normed, inverse = _normed(x, scale_D, epsilon)
    return normed.astype(x.dtype), (x, scale_D, inverse)


def _backward(_epsilon: float, kept, d_normed: jax.Array):
    """With i the inverse root and g the incoming gradient: dx = i (g s - x i^2 mean(g s x)), ds = sum(g x i).

    Both sums are products with g x: jaxlib 0.10.2 makes the reductions of the derived pass one library call
    each on CPUs, ten times as slow.
    """
    x, scale_D, inverse = kept
    x32, g = x.astype(jnp.float32), d_normed.astype(jnp.float32)
    product = g * x32
    mean = jnp.einsum("...d,d->...", product, scale_D)[..., None] / x.shape[-1]
    dx = inverse * (g * scale_D - x32 * (jnp.square(inverse) * mean))
    d_scale_D = jnp.einsum("...,...d->d", inverse[..., 0], product)
    return dx.astype(x.dtype), d_scale_D.astype(scale_D.dtype)


rms_norm.defvjp(_forward, _backward)
