"""The scalar head is one linear layer in float32 that begins at 0."""

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.models.scalar_head import apply_scalar_head, init_scalar_head


def test_a_fresh_head_says_zero_and_can_learn():
    head = init_scalar_head(3)
    hidden = jnp.asarray([[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(apply_scalar_head(head, hidden), [0.0, 0.0])
    gradient = jax.grad(lambda head: apply_scalar_head(head, hidden).sum())(head)
    np.testing.assert_array_equal(gradient["kernel"], [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(gradient["bias"], 2.0)


def test_it_is_the_weighted_sum_in_float32_whatever_the_type_of_the_states():
    head = {"kernel": jnp.asarray([1.0, 1.0, 0.5]), "bias": jnp.float32(0.25)}
    hidden = jnp.asarray([[[256.0, 1.0, 2.0]]], jnp.bfloat16)
    found = apply_scalar_head(head, hidden)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [[258.25]])  # 258.25 is no bfloat16
