"""Preference losses against values worked out by hand, and their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES, logratio_margin

# policy_chosen, policy_rejected, reference_chosen, reference_rejected; margins 3, -1 and 0
SIDES = tuple(
    jnp.array(side, jnp.float32)
    for side in ([-10.0, -20.0, -5.0], [-14.0, -18.0, -7.0], [-11.0, -19.0, -5.0], [-12.0, -18.0, -7.0])
)
BY_HAND = {
    # beta 0.5: -log sigmoid(1.5), -log sigmoid(-0.5), ln 2
    "sigmoid": [0.201413, 0.974077, 0.693147],
    # max(0, 1 - 1.5), 1 + 0.5, 1
    "hinge": [0.0, 1.5, 1.0],
    # (3 - 1)^2, (-1 - 1)^2, (0 - 1)^2
    "ipo": [4.0, 4.0, 1.0],
}


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
@pytest.mark.parametrize("jit", [False, True])
def test_values_by_hand(name, jit):
    def loss(*sides):
        return PREFERENCE_LOSSES[name](*sides, beta=0.5)

    found = (jax.jit(loss) if jit else loss)(*SIDES)
    np.testing.assert_allclose(found, BY_HAND[name], atol=1e-5)


def test_margin_is_negated_by_swapping_the_pair():
    chosen_p, rejected_p, chosen_r, rejected_r = SIDES
    np.testing.assert_array_equal(
        logratio_margin(*SIDES), -logratio_margin(rejected_p, chosen_p, rejected_r, chosen_r)
    )


def test_policy_equal_to_reference_gives_ln_2_exactly():
    logps = jnp.array([-3.5, -40.25, -512.0], jnp.float32)
    other = jnp.array([-7.0, -1.0, -256.5], jnp.float32)
    loss = PREFERENCE_LOSSES["sigmoid"](logps, other, logps, other, beta=0.1)
    np.testing.assert_array_equal(loss, np.full(3, np.float32(np.log(2))))


def test_gradient_pushes_chosen_up_and_rejected_down():
    for name, loss in PREFERENCE_LOSSES.items():
        chosen, rejected = jax.grad(lambda c, r, loss=loss: loss(c, r, c * 0, r * 0, beta=0.5).sum(), (0, 1))(
            jnp.array([-0.1]), jnp.array([0.1])
        )
        assert chosen[0] < 0 < rejected[0], name
