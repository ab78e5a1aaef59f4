"""Preference losses against values worked out by hand from the papers' equations, and their properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo_jax.data.packing.length_weights import length_desensitised_weights
from coevo_jax.learning.divergences import DIVERGENCES
from coevo_jax.learning.loss_options import WITH_DIVERGENCE, mixture, resolve_loss, with_divergence
from coevo_jax.learning.preference_losses import (
    PREFERENCE_LOSSES,
    call_loss,
    is_coupled,
    logratio_margin,
    wpo_weight,
)

# policy_chosen, policy_rejected, reference_chosen, reference_rejected.
# u_chosen = 1, -1, 0; u_rejected = -2, 0, 0; margins 3, -1, 0; policy margins 4, -2, 2.
SIDES = tuple(
    jnp.array(side, jnp.float32)
    for side in ([-10.0, -20.0, -5.0], [-14.0, -18.0, -7.0], [-11.0, -19.0, -5.0], [-12.0, -18.0, -7.0])
)
ARRAYS = {
    "chosen_tokens": jnp.array([5.0, 4.0, 10.0], jnp.float32),
    "rejected_tokens": jnp.array([4.0, 2.0, 7.0], jnp.float32),
    "chosen_reward": jnp.array([1.0, 1.0, 0.75], jnp.float32),
    "rejected_reward": jnp.array([0.0, 0.5, 0.5], jnp.float32),
    "weight": jnp.full(3, 0.25, jnp.float32),
}
LN2 = float(np.log(2))


def s(x: float) -> float:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def nls(x: float) -> float:
    """-log sigmoid(x)."""
    return float(np.log1p(np.exp(-x)))


def odds(logp: float) -> float:
    """log(p / (1 - p))."""
    return float(logp - np.log(1 - np.exp(logp)))


# beta 0.5 throughout: beta * margin = 1.5, -0.5, 0; r_chosen = 0.5, -0.5, 0; r_rejected = -1, 0, 0.
BY_HAND = {
    ("sigmoid", ()): [0.201413, 0.974077, 0.693147],
    # 0.9 * 0.201413 + 0.1 * 1.701413; 0.9 * 0.974077 + 0.1 * 0.474077; ln 2
    ("sigmoid", (("label_smoothing", 0.1),)): [0.351413, 0.924077, 0.693147],
    ("hinge", ()): [0.0, 1.5, 1.0],  # max(0, 1 - 1.5), 1 + 0.5, 1
    # per token: (1/5 + 2/4 - 1)^2, (-1/4 - 0/2 - 1)^2, (0 - 1)^2
    ("ipo", ()): [0.09, 1.5625, 1.0],
    ("ipo", (("average", False),)): [4.0, 4.0, 1.0],  # sums: (3 - 1)^2, (-1 - 1)^2, (0 - 1)^2
    # -log sigmoid of 0.5 * (0.7, -0.25, 0)
    ("sigmoid_norm", ()): [nls(0.35), nls(-0.125), LN2],
    # KL((s, 1 - s) || (0.999, 0.001)); at margin 0: 0.5 ln(0.5 / 0.999) + 0.5 ln(0.5 / 0.001) = 2.761231
    ("exo_pair", ()): [s(x) * np.log(s(x) / 0.999) + s(-x) * np.log(s(-x) / 0.001) for x in (1.5, -0.5)]
    + [2.761231],
    ("nca_pair", ()): [nls(0.5) + nls(-0.5) / 2 + nls(1) / 2, nls(-0.5) + nls(0.5) / 2 + LN2 / 2, 2 * LN2],
    # (0.9 * 0.201413 - 0.1 * 1.701413) / 0.8; (0.9 * 0.974077 - 0.1 * 0.474077) / 0.8
    ("robust", ()): [0.013913, 1.036577, 0.693147],
    ("bco_pair", ()): [nls(0.5) + nls(1), nls(-0.5) + LN2, 2 * LN2],
    # shifted by 0.2: -log sigmoid(r_chosen - 0.2) - log sigmoid(0.2 - r_rejected)
    ("bco_pair", (("delta", 0.2),)): [nls(0.3) + nls(1.2), nls(-0.7) + nls(0.2), nls(-0.2) + nls(0.2)],
    # (u_chosen - 1)^2 + (u_rejected + 1)^2
    ("sppo_hard", ()): [0 + 1, 4 + 1, 1 + 1],
    # policy margins 4, -2, 2 and reference's 1, -1, 2: ranks meet 4 with 2, -2 with -1, 2 with 1
    ("aot", ()): [nls(0.5 * 2), nls(0.5 * -1), nls(0.5 * 1)],
    # u_chosen 1, -1, 0 meet u_rejected 0, -2, 0
    ("aot_unpaired", ()): [nls(0.5), nls(0.5), LN2],
    ("apo_zero", ()): [1 - s(0.5) + s(-1), 1 - s(-0.5) + s(0), 1.0],
    ("apo_down", ()): [s(0.5) + 1 - s(1.5), s(-0.5) + 1 - s(-0.5), 1.0],
    # margins in units of tau 0.05: 30, -10, 0, so the blend is 1, 4.5e-5 and one half
    ("discopop", ()): [np.exp(-1.5), s(10) * nls(-0.5) + s(-10) * np.exp(0.5), LN2 / 2 + 0.5],
    # 10, 20 and 5 nats over 19 tokens: the mean is 19 / 3 tokens a pair
    ("sft", ()): [10 * 3 / 19, 20 * 3 / 19, 5 * 3 / 19],
    ("sft", (("average", "trajectory"),)): [10 / 5, 20 / 4, 5 / 10],
    ("sft", (("average", "sum"),)): [10.0, 20.0, 5.0],
    # average log p -2, -5, -0.5 against -3.5, -9, -1, times 0.5, less gamma 0.5
    ("simpo", ()): [nls(0.75 - 0.5), nls(2 - 0.5), nls(0.25 - 0.5)],
    ("cpo", (("average", "sum"),)): [nls(2) + 10, nls(-1) + 20, nls(1) + 5],
    ("cpo", (("alpha", 0.5), ("average", "trajectory"))): [nls(2) + 1, nls(-1) + 2.5, nls(1) + 0.25],
    ("orpo", (("average", "trajectory"),)): [
        2 + 0.5 * nls(odds(-2) - odds(-3.5)),
        5 + 0.5 * nls(odds(-5) - odds(-9)),
        0.5 + 0.5 * nls(odds(-0.5) - odds(-1)),
    ],
    # the chosen side lost 0, 1, 0 nats: 0.5 * (3 - 0), 0.5 * (-1 - 50), 0
    ("dpop", ()): [nls(1.5), nls(-25.5), LN2],
    ("dpop", (("penalty", 2.0),)): [nls(1.5), nls(-1.5), LN2],
    # mean of u over both sides is (1 - 2 - 1 + 0 + 0 + 0) / 6 < 0, so the drift is 0
    ("kto", ()): [(s(-0.5) + s(-1)) / 2, (s(0.5) + s(0)) / 2, 0.5],
    ("kto", (("desirable_weight", 2.0),)): [s(-0.5) + s(-1) / 2, s(0.5) + s(0) / 2, 0.75],
    # reward gaps 1, 0.5, 0.25: offsets ln 1 = 0, ln 0.5, ln 0.25, taken from 1.5, -0.5, 0
    ("odpo", ()): [nls(1.5), nls(-0.5 + LN2), nls(2 * LN2)],
    ("odpo", (("alpha", 2.0), ("scale", "linear"))): [nls(1.5 - 2), nls(-0.5 - 1), nls(-0.5)],
}
UNCOUPLED = [name for name in PREFERENCE_LOSSES if not is_coupled(PREFERENCE_LOSSES[name])]
COUPLED = sorted(set(PREFERENCE_LOSSES) - set(UNCOUPLED))


compiled = jax.jit(call_loss, static_argnums=0)


def value(loss, sides=SIDES, beta=0.5, arrays=ARRAYS):
    return compiled(loss, sides, jnp.float32(beta), arrays)


@pytest.mark.parametrize(("name", "options"), list(BY_HAND))
def test_values_by_hand(name, options):
    loss = resolve_loss(name, dict(options))
    np.testing.assert_allclose(value(loss), BY_HAND[name, options], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["sigmoid", "ipo"])
def test_values_are_the_same_without_compilation(name):
    found = call_loss(PREFERENCE_LOSSES[name], SIDES, 0.5, ARRAYS)
    np.testing.assert_allclose(found, BY_HAND[name, ()], rtol=2e-6, atol=2e-6)


def test_every_loss_has_a_value_by_hand():
    with_step_mean = {"cpo", "orpo"}  # their sum with sft's step mean: test_step_mean_is_that_of_sft
    assert {name for name, _ in BY_HAND} == set(PREFERENCE_LOSSES)
    assert {name for name, options in BY_HAND if not options} == set(PREFERENCE_LOSSES) - with_step_mean


@pytest.mark.parametrize("name", ["cpo", "orpo"])
def test_step_mean_is_that_of_sft(name):
    rest = value(resolve_loss(name, {"average": "sum"})) - value(resolve_loss("sft", {"average": "sum"}))
    found = value(resolve_loss(name, {}))
    np.testing.assert_allclose(found, rest + value(resolve_loss("sft", {})), rtol=1e-5, atol=1e-5)


def test_kto_measures_both_sides_from_a_positive_drift():
    # u_chosen = 4, 2 and u_rejected = 1, 1: the drift is 2, and beta 0.5
    zero = jnp.zeros(2, jnp.float32)
    sides = (jnp.array([4.0, 2.0]), jnp.array([1.0, 1.0]), zero, zero)
    found = value(PREFERENCE_LOSSES["kto"], sides, arrays={"weight": jnp.ones(2, jnp.float32)})
    np.testing.assert_allclose(found, [(s(-1) + s(-0.5)) / 2, (s(0) + s(-0.5)) / 2], rtol=1e-6)


def test_kto_has_no_gradient_through_the_drift():
    def drifting(chosen):
        sides = (chosen, jnp.ones(2), jnp.zeros(2), jnp.zeros(2))
        return value(PREFERENCE_LOSSES["kto"], sides, arrays={"weight": jnp.ones(2, jnp.float32)})

    jacobian = jax.jacobian(drifting)(jnp.array([4.0, 2.0]))
    np.testing.assert_array_equal(jacobian - jnp.diag(jnp.diag(jacobian)), 0)


def test_margin_is_negated_by_swapping_the_pair():
    np.testing.assert_array_equal(logratio_margin(*SIDES), -logratio_margin(*swapped(SIDES)))


def swapped(sides):
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = sides
    return policy_rejected, policy_chosen, reference_rejected, reference_chosen


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_policy_equal_to_reference_gives_ln_2_exactly(smoothing):
    logps = jnp.array([-3.5, -40.25, -512.0], jnp.float32)
    other = jnp.array([-7.0, -1.0, -256.5], jnp.float32)
    loss = resolve_loss("sigmoid", {"label_smoothing": smoothing})
    np.testing.assert_array_equal(value(loss, (logps, other) * 2, 0.1), np.full(3, np.float32(np.log(2))))


GOES_DOWN_WITH_CHOSEN = {"apo_down"}  # by design: both sides fall, the rejected one further


@functools.lru_cache
def gradients_of(loss):
    def total(policy, fixed):
        return call_loss(loss, (*policy, *fixed), jnp.float32(0.5), ARRAYS).sum()

    return jax.jit(jax.value_and_grad(total))


def finite(loss, sides) -> bool:
    values = jax.tree.leaves(gradients_of(loss)(np.array(sides[:2]), np.array(sides[2:])))
    return all(np.isfinite(v).all() for v in values)


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
def test_gradient_pushes_chosen_up_and_rejected_down(name):
    # far enough on the wrong side that DiscoPOP, which is not monotone near 0, pushes too
    sides = np.repeat(np.float32([[-8.0], [-3.0], [-5.0], [-6.0]]), 3, axis=1)
    chosen, rejected = gradients_of(PREFERENCE_LOSSES[name])(sides[:2], sides[2:])[1]
    assert (rejected == 0).all() if name == "sft" else (rejected > 0).all()
    assert (chosen > 0).all() if name in GOES_DOWN_WITH_CHOSEN else (chosen < 0).all()


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
def test_margins_of_ten_thousand_nats_stay_finite(name):
    extremes = [(-c, -r) for c in (0.0, 1.0, 1e4) for r in (0.0, 1.0, 1e4)]
    for reference in extremes:  # three pairs at a time: log-probabilities from 0 to -10,000
        for start in range(0, 9, 3):
            policy = np.array(extremes[start : start + 3], np.float32).T
            fixed = np.array([reference] * 3, np.float32).T
            assert finite(PREFERENCE_LOSSES[name], (*policy, *fixed)), reference


@pytest.mark.parametrize("name", ["forward_kl", "js", "alpha"])
@pytest.mark.parametrize("loss", WITH_DIVERGENCE)
def test_divergences_stay_finite(name, loss):
    far = np.array([-1e4, -1e4, 0.0], np.float32)
    near = np.array([-1.0, -1e4, -1e4], np.float32)
    diverging = with_divergence(PREFERENCE_LOSSES[loss], name)
    for sides in ((far, near, near, far), (near, far, far, near), (near, near, near, near)):
        assert finite(diverging, sides)


def test_divergences_by_hand():
    u = jnp.array([-1.0, 0.0, 2.0], jnp.float32)
    np.testing.assert_array_equal(DIVERGENCES["reverse_kl"](u, 0.0), u)
    np.testing.assert_allclose(DIVERGENCES["forward_kl"](u, 0.0), 1 - np.exp([1.0, 0.0, -2.0]), rtol=1e-6)
    # log(2 t / (1 + t)) at t = e^u
    t = np.exp([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(DIVERGENCES["js"](u, 0.0), np.log(2 * t / (1 + t)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(DIVERGENCES["alpha"](u, 0.5), (1 - t**-0.5) / 0.5, rtol=1e-6)
    np.testing.assert_array_equal(DIVERGENCES["alpha"](u, 0.0), u)
    np.testing.assert_allclose(DIVERGENCES["alpha"](u, 1.0), DIVERGENCES["forward_kl"](u, 0.0), rtol=1e-6)


def test_a_score_far_below_goes_on_along_its_tangent():
    slope = jax.vmap(jax.grad(lambda u: DIVERGENCES["forward_kl"](u, 0.0)))
    # d/du (1 - exp(-u)) = exp(-u), held from u = -30 on
    np.testing.assert_allclose(
        slope(jnp.array([3.0, 0.0, -20.0, -31.0, -1e4])), np.exp([-3, 0, 20, 30, 30]), rtol=1e-5
    )


def test_divergence_of_the_pair_by_hand():
    # sigmoid under forward KL at beta 0.5: g = 1 - exp(-u), u_chosen = 1, -1, 0 and u_rejected = -2, 0, 0
    margins = [np.exp(2) - np.exp(-1), 1 - np.exp(1), 0.0]
    loss = with_divergence(PREFERENCE_LOSSES["sigmoid"], "forward_kl")
    np.testing.assert_allclose(value(loss), [nls(0.5 * m) for m in margins], rtol=1e-5)


@pytest.mark.parametrize("name", COUPLED)
def test_padding_never_counts_in_coupled_losses(name):
    rng = np.random.default_rng([3])
    place = [3, 0, 4, 1, 5, 2, 6]  # the three pairs among four of padding
    junk = -rng.uniform(0, 1e4, (4, 4)).astype(np.float32)
    mixed = tuple(np.concatenate([side, other])[place] for side, other in zip(SIDES, junk, strict=True))
    ones = np.ones(4, np.float32)
    padded = {key: np.concatenate([array, 99 * ones])[place] for key, array in ARRAYS.items()}
    padded["weight"] = np.concatenate([ARRAYS["weight"], 0 * ones])[place]
    found = np.asarray(value(PREFERENCE_LOSSES[name], mixed, arrays=padded))
    np.testing.assert_allclose(found[[1, 3, 5]], value(PREFERENCE_LOSSES[name]), rtol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", COUPLED)
def test_a_weight_of_two_is_the_pair_twice(name):
    """Weights are masses: the step's total is that of a step in which the pair stands twice."""
    weight = jnp.array([2.0, 1.0, 1.0], jnp.float32)
    once = jnp.sum(weight * value(PREFERENCE_LOSSES[name], arrays={**ARRAYS, "weight": weight}))
    twice = [0, 1, 2, 0]
    arrays = {key: np.asarray(a)[twice] for key, a in ARRAYS.items()} | {"weight": np.ones(4, np.float32)}
    sides = tuple(np.asarray(side)[twice] for side in SIDES)
    again = jnp.sum(value(PREFERENCE_LOSSES[name], sides, arrays=arrays))
    np.testing.assert_allclose(once, again, rtol=1e-6)


@settings(max_examples=20)
@given(st.permutations(range(6)), st.floats(1e-3, 1e3))
def test_order_and_scale_of_weights_change_nothing(order, scale):
    rng = np.random.default_rng([5])
    sides = tuple(-rng.uniform(1, 60, (4, 6)).astype(np.float32))
    arrays = {key: rng.uniform(1, 9, 6).astype(np.float32) for key in ARRAYS}
    moved = {key: a[order] for key, a in arrays.items()}
    moved["weight"] = moved["weight"] * np.float32(scale)
    for name in COUPLED:
        before = np.asarray(value(PREFERENCE_LOSSES[name], sides, arrays=arrays))
        after = value(PREFERENCE_LOSSES[name], tuple(side[order] for side in sides), arrays=moved)
        np.testing.assert_allclose(after, before[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", UNCOUPLED)
def test_uncoupled_losses_look_at_their_own_pair_only(name):
    others = tuple(np.asarray(side) * [2.0, 1.0, 3.0] for side in SIDES)
    arrays = {key: np.asarray(array) * [2.0, 1.0, 0.0] for key, array in ARRAYS.items()}
    sides = tuple(side.astype(np.float32) for side in others)
    found = value(PREFERENCE_LOSSES[name], sides, arrays={k: a.astype(np.float32) for k, a in arrays.items()})
    assert found[1] == value(PREFERENCE_LOSSES[name])[1]


def test_coupling_follows_the_options():
    assert COUPLED == ["aot", "aot_unpaired", "cpo", "kto", "orpo", "sft"]
    for name in ("sft", "cpo", "orpo"):
        assert not is_coupled(resolve_loss(name, {"average": "trajectory"}))
    mixed = mixture([(0.9, PREFERENCE_LOSSES["sigmoid"]), (0.1, PREFERENCE_LOSSES["sft"])])
    assert is_coupled(mixed) and not is_coupled(PREFERENCE_LOSSES["sigmoid"])


def test_a_mixture_is_the_weighted_sum():
    parts = [
        (0.7, resolve_loss("sigmoid", {})),
        (0.2, resolve_loss("ipo", {})),
        (0.1, resolve_loss("odpo", {})),
    ]
    expected = sum(share * value(loss) for share, loss in parts)
    np.testing.assert_allclose(value(mixture(parts)), expected, rtol=1e-6)
    nested = mixture([(0.5, mixture(parts)), (0.5, mixture(parts))])
    np.testing.assert_allclose(value(nested), expected, rtol=1e-6)
    assert mixture(parts).arrays == ("chosen_tokens", "rejected_tokens", "chosen_reward", "rejected_reward")


def test_odpo_takes_a_gap_of_zero_or_less_for_the_smallest():
    tied = ARRAYS | {"rejected_reward": ARRAYS["chosen_reward"] + jnp.array([0.0, 0.5, 0.0])}
    offset = np.log(1e-6)
    expected = [nls(1.5 - offset), nls(-0.5 - offset), nls(-offset)]
    np.testing.assert_allclose(value(PREFERENCE_LOSSES["odpo"], arrays=tied), expected, rtol=1e-4)


def test_wpo_weight_is_clipped_and_without_gradient():
    chosen, rejected = jnp.array([-1.0, 2.0]), jnp.array([-0.5, 1.0])
    np.testing.assert_allclose(wpo_weight(chosen, rejected), [np.exp(-1.5), 1.0], rtol=1e-6)
    np.testing.assert_allclose(wpo_weight(chosen, rejected, limit=None), np.exp([-1.5, 3.0]), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda c: wpo_weight(c, rejected).sum())(chosen), 0)


@pytest.mark.parametrize(
    ("own", "other", "alpha", "expected"),
    [
        (5, 3, 0.25, [1, 1, 1, 0.25, 0.25]),  # by hand: the longer side's last two
        (3, 5, 0.25, [1, 1, 1]),
        (4, 4, 0.0, [1, 1, 1, 1]),
        (2, 0, 0.5, [0.5, 0.5]),
        (3, 1, 1.0, [1, 1, 1]),
    ],
)
def test_length_desensitised_weights_by_hand(own, other, alpha, expected):
    found = length_desensitised_weights(own, other, alpha)
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize("bad", [(-1, 2, 0.5), (1, -2, 0.5), (1, 2, 1.5), (1, 2, -0.1), (1, 2, float("nan"))])
def test_length_desensitising_refuses_what_is_no_count_or_share(bad):
    with pytest.raises(ValueError, match="expected"):
        length_desensitised_weights(*bad)
