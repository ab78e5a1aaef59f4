"""The noise is that of JAX, number by number."""

import jax
import numpy as np
import pytest

from coevo_jax.sampling.gumbel import gumbel_noise


@pytest.mark.parametrize(("slots", "size"), [(1, 1), (3, 7), (5, 1000), (2, 32_001)])
def test_it_is_the_noise_of_jax_random(slots, size):
    keys = jax.random.split(jax.random.key(slots + size), slots)
    expected = jax.vmap(lambda key: jax.random.gumbel(key, (size,)))(keys)
    found = jax.jit(gumbel_noise, static_argnums=1)(keys, size)
    assert found.shape == (slots, size) and found.dtype == np.float32
    # One code for the logarithm of all numbers is not promised across programs; the bits below it are.
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-7)


def test_keys_of_another_generator_have_the_noise_of_jax_random():
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 3)
    expected = jax.vmap(lambda key: jax.random.gumbel(key, (50,)))(keys)
    np.testing.assert_array_equal(gumbel_noise(keys, 50), expected)


def test_no_number_is_infinite_and_the_mean_and_variance_are_gumbels():
    noise = np.asarray(gumbel_noise(jax.random.split(jax.random.key(0), 8), 50_000), np.float64)
    assert np.isfinite(noise).all()
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=5 * (np.pi**2 / 6 / noise.size) ** 0.5)
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.02)
