"""The gradient of each of the two terms of the objective on the chosen sides before the first step."""

import jax
import jax.numpy as jnp

from coevo_jax.batch import PreferenceBatch
from coevo_jax.learning.objective import AgentLoss, pair_losses, pair_sides


def pulls(batch: PreferenceBatch, *, beta: jax.Array, loss: AgentLoss) -> tuple[jax.Array, jax.Array]:
    """The preference term's and the SFT term's pull on log pi(chosen), summed over a microbatch.

    The pull of the preference term is the absolute derivative of its weighted loss by the chosen side's
    log-probability, at a policy equal to the reference: lambda_dpo * beta / 2 a pair for DPO (arXiv
    2305.18290, eq. 7). That of the SFT term is its weight: lambda_sft a chosen side for the sum over tokens,
    lambda_sft / n for the mean. A method whose second is many times its first is imitation by another name.

    A loss that couples a step's pairs is taken microbatch by microbatch, and WPO's weights are left out.

    Args:
      batch: with its reference log-probabilities.

    Returns:
      Two float32 [] in units of loss per nat.
    """
    sides = pair_sides(jnp.asarray(batch.reference_logps), batch)
    real = jnp.asarray(batch.weight) > 0

    def preference(chosen: jax.Array) -> jax.Array:
        losses = pair_losses(sides._replace(policy_chosen=chosen), batch, beta, loss)
        return jnp.sum(jnp.where(real, batch.weight * losses, 0.0))

    by_chosen = jax.grad(preference)(sides.policy_chosen)
    return jnp.sum(jnp.abs(jnp.where(real, by_chosen, 0.0))), jnp.sum(jnp.asarray(batch.sft_weight))
