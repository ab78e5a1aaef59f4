import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.models.rms_norm import rms_norm

EPSILON = 1e-6


def plain(x, scale):
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + EPSILON)
    return (normed * scale).astype(x.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(2, 5, 8), (1, 3, 4, 16)])
def test_value_and_gradients_are_those_of_the_derived_pass(shape, dtype, tolerance):
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    x = x.at[0, 0].set(0)  # a token of zeros has a gradient, too
    scale = jnp.asarray(rng.standard_normal(shape[-1]), jnp.float32)
    value, pull = jax.vjp(lambda x, scale: rms_norm(x, scale, EPSILON), x, scale)
    expected, expected_pull = jax.vjp(plain, x, scale)
    assert value.dtype == dtype
    np.testing.assert_array_equal(np.asarray(value, np.float32), np.asarray(expected, np.float32))
    for one, other in zip(pull(g), expected_pull(g), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        bound = tolerance * float(jnp.abs(other.astype(jnp.float32)).max())
        np.testing.assert_allclose(np.asarray(one, np.float32), np.asarray(other, np.float32), atol=bound)
