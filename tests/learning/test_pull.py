"""The pull of both terms on the chosen sides, against what the formulas of the losses say."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.pull import pulls
from tests.learning.packed import PAIR_KINDS, one_batch


@pytest.fixture(scope="module")
def batch():
    made = one_batch()
    rng = np.random.default_rng(3)
    return replace(made, reference_logps=rng.normal(-30, 2, made.reference_logps.shape).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("sigmoid", lambda beta: beta / 2),  # -log sigmoid(beta x) at x = 0
        ("hinge", lambda beta: beta),  # max(0, 1 - beta x)
        ("ipo", None),  # divides by each side's tokens
    ],
)
def test_preferences_pull_with_the_losses_slope_at_no_margin(batch, name, slope):
    beta = 0.3
    found, _ = jax.jit(
        lambda batch: pulls(batch, beta=beta, loss=one_loss(PREFERENCE_LOSSES[name], PAIR_KINDS))
    )(batch)
    if slope is None:
        tokens = batch.token_count[batch.chosen]
        expected = np.sum(batch.weight / np.maximum(tokens, 1) / beta)  # |d (x - 1 / (2 beta)) ** 2|
    else:
        expected = np.sum(batch.weight) * slope(beta)
    assert found == pytest.approx(expected, rel=1e-5)


def test_imitation_pulls_with_its_weights(batch):
    _, found = pulls(batch, beta=np.float32(0.1), loss=one_loss(PREFERENCE_LOSSES["sigmoid"], PAIR_KINDS))
    assert found == pytest.approx(np.sum(batch.sft_weight), rel=1e-6)
    assert found > 0
