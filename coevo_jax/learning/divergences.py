"""f-divergences in DPO's place of the reverse KL: maps of a log-ratio u = log pi - log pi_ref to a score.

Wang et al., "Beyond reverse KL", arXiv 2309.16240, table 1: the score is f'(exp(u)), up to a constant that
cancels between the sides (TRL's constants here, because losses that average over tokens see them).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from coevo_jax.learning.loss_terms import bounded_expm1

SMALLEST_ALPHA = 1e-6


def reverse_kl(u: jax.Array, alpha: float) -> jax.Array:
    """f'(t) = log t + 1: the log-ratio itself, plain DPO."""
    return u


def forward_kl(u: jax.Array, alpha: float) -> jax.Array:
    """f'(t) = -1 / t, plus 1: 1 - exp(-u), on its tangent below u = -30 so that it stays finite."""
    return -bounded_expm1(-u)


def js(u: jax.Array, alpha: float) -> jax.Array:
    """f'(t) = log(2 t / (1 + t)), of the Jensen-Shannon divergence: log 2 + log sigmoid(u)."""
    return jnp.log(2.0) + jax.nn.log_sigmoid(u)


def alpha_divergence(u: jax.Array, alpha: float) -> jax.Array:
    """f'(t) = (1 - t^-alpha) / alpha: from the reverse KL at alpha = 0 to the forward KL at 1.

    TRL's f_alpha_divergence_coef is 1 - alpha (both default to 0.5). Below u = -30 / alpha the score goes
    on along its tangent.
    """
    return u if abs(alpha) < SMALLEST_ALPHA else -bounded_expm1(-alpha * u) / alpha


DIVERGENCES: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "js": js,
    "alpha": alpha_divergence,
}
