"""Preference losses: pure functions from summed log-probabilities to one loss per pair.

Every loss has the signature
`loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> [P]`
with float32 [P] arguments in nats. `PREFERENCE_LOSSES` names them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PreferenceLoss = Callable[..., jax.Array]


def logratio_margin(
    policy_chosen: jax.Array,
    policy_rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
) -> jax.Array:
    """How much more the policy prefers the chosen side than the reference does, in nats [P]."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def sigmoid(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """DPO: -log sigmoid(beta * margin). Rafailov et al., arXiv 2305.18290, eq. 7."""
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -jax.nn.log_sigmoid(beta * margin)


def hinge(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """SLiC's hinge on the scaled margin: max(0, 1 - beta * margin). arXiv 2309.06657, eq. 10."""
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return jax.nn.relu(1.0 - beta * margin)


def ipo(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta) -> jax.Array:
    """IPO: (margin - 1 / (2 beta))^2 on summed log-probabilities. Azar et al., arXiv 2310.12036, eq. 17."""
    margin = logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return jnp.square(margin - 1.0 / (2.0 * beta))


PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {"sigmoid": sigmoid, "hinge": hinge, "ipo": ipo}
