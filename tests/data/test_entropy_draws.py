"""Draws by entropies against numbers by hand."""

import numpy as np
import pytest

from coevo_jax.config.streams import stream
from coevo_jax.data.entropy_draws import draw, draw_weights, drawn_factors


def test_probabilities_by_hand():
    """Changes -1, +1 and -3: the first and third share beta as 1 to 3, the second has all of gamma."""
    weak, strong = np.array([2.0, 2.0, 4.0]), np.array([1.0, 3.0, 1.0])
    wanted = [0.1 * 2 / 8 + 0.8 / 4, 0.1 * 2 / 8 + 0.1, 0.1 * 4 / 8 + 0.8 * 3 / 4]
    np.testing.assert_allclose(draw_weights(weak, strong), wanted, rtol=1e-12)
    np.testing.assert_allclose(sum(wanted), 1)


def test_weights_are_relative():
    weak, strong = np.array([2.0, 2.0, 4.0]), np.array([1.0, 3.0, 1.0])
    found = draw_weights(weak, strong, alpha=0.2, beta=1.6, gamma=0.2)
    np.testing.assert_allclose(found, draw_weights(weak, strong), rtol=1e-12)
    np.testing.assert_allclose(draw_weights(weak, strong, alpha=0, beta=0, gamma=3), [0, 1, 0])


def test_a_term_without_anything_is_left_out():
    """Two equal models differ nowhere: what the weak one is unsure of is all that is left."""
    same = np.array([1.0, 3.0])
    np.testing.assert_allclose(draw_weights(same, same), [0.25, 0.75], rtol=1e-12)
    np.testing.assert_allclose(draw_weights(same, same - 0.5), 0.1 * np.array([0.25, 0.75]) / 0.9 + 0.8 / 1.8)
    np.testing.assert_allclose(draw_weights(np.zeros(4), np.zeros(4)), np.full(4, 0.25))
    np.testing.assert_allclose(draw_weights(same, same, alpha=0.0), [0.5, 0.5])
    assert len(draw_weights(np.zeros(0), np.zeros(0))) == 0


class Scripted:
    def __init__(self, *numbers):
        self._numbers = numbers

    def random(self, count):
        assert count == len(self._numbers)
        return np.array(self._numbers)


def test_draws_by_hand():
    """The items end at 0.25, 0.25, 0.75 and 1: the second is never drawn."""
    weights = np.array([0.25, 0.0, 0.5, 0.25])
    found = draw(weights, 5, Scripted(0.0, 0.24, 0.25, 0.74, 0.99))
    np.testing.assert_array_equal(found, [2, 0, 2, 1])
    # The running sum may end a rounding below 1, and a number may lie between.
    np.testing.assert_array_equal(draw(np.array([0.5, 0.5 - 1e-12]), 1, Scripted(1 - 1e-13)), [0, 1])
    assert len(draw(np.zeros(0), 3, Scripted())) == 0


def test_draws_follow_the_probabilities_and_the_seed_alone():
    weights = np.array([0.1, 0.6, 0.3])
    found = draw(weights, 30_000, stream("draws", 1))
    assert found.sum() == 30_000
    np.testing.assert_allclose(found / 30_000, weights, atol=0.01)
    np.testing.assert_array_equal(found, draw(weights, 30_000, stream("draws", 1)))
    assert (found != draw(weights, 30_000, stream("draws", 2))).any()


def test_what_is_drawn_twice_weighs_twice_and_the_mean_stays():
    """Four draws of two trajectories, one of them three times: 3 and 1, scaled by 2 / 4."""
    found = drawn_factors({0: 3, 3: 0, 7: 1})
    assert found == pytest.approx({0: 1.5, 7: 0.5})
    assert drawn_factors({0: 1, 1: 1}) == pytest.approx({0: 1.0, 1: 1.0})
    assert drawn_factors({}) == {}
