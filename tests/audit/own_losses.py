"""A loss of a user's own that is not finite for some pairs."""

import jax
import jax.numpy as jnp


def far_apart(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_reward,
    rejected_reward,
):
    """No number where two rewards differ by less than 0.3."""
    margin = policy_chosen - policy_rejected - reference_chosen + reference_rejected
    return -jax.nn.log_sigmoid(beta * margin) * jnp.sqrt(chosen_reward - rejected_reward - 0.3)
