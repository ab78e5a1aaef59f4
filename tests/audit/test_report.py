"""What a page shows of numbers that were counted again."""

from coevo_jax.audit.report import as_recorded

TIE, COUNTED = 0.0715, 0.07150000000000001  # three digits of the one are 0.071, of the other 0.072


def test_a_number_between_two_digits_is_rounded_as_it_was_recorded():
    counted = {"mean_reward_ci": [0.0, COUNTED], "n": 20, "unknown": None}
    recorded = {"mean_reward_ci": [0.0, TIE], "n": 20, "more": 1}
    assert f"{TIE:.3f}" != f"{COUNTED:.3f}"
    assert as_recorded(counted, recorded) == {"mean_reward_ci": [0.0, TIE], "n": 20, "unknown": None}


def test_what_differs_by_more_than_the_last_bits_stays_as_it_was_counted():
    assert as_recorded({"x": 0.0716, "n": 3}, {"x": TIE, "n": 4}) == {"x": 0.0716, "n": 3}
