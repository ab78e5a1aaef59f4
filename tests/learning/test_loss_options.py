"""From names and options to losses: what is resolved, and what is refused with which words."""

import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.loss_options import WITH_DIVERGENCE, mixture, resolve_loss, with_divergence
from coevo_jax.learning.preference_losses import (
    PREFERENCE_LOSSES,
    call_loss,
    coupled,
    is_coupled,
    logratio_margin,
)

SIDES = tuple(
    jnp.array(side, jnp.float32) for side in ([-1.0, -2.0], [-3.0, -1.0], [-2.0, -2.0], [-2.0, -2.0])
)


def linear(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta, slope: float = 1.0):
    return (
        -slope * beta * logratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    )


def rewarded(pc, pr, rc, rr, *, beta, chosen_reward):
    return chosen_reward * (rc - pc)


def reduced(pc, pr, rc, rr, *, beta):
    return jnp.mean(pr - pc)


def counted(pc, pr, rc, rr, *, beta):
    return (pr > pc).astype(jnp.int32)


def branching(pc, pr, rc, rr, *, beta):
    return pr - pc if pr[0] > pc[0] else pc - pr


def through_numpy(pc, pr, rc, rr, *, beta):
    return [0.0, 0.0]


def without_default(pc, pr, rc, rr, *, beta, slope):
    return slope * (pr - pc)


def without_beta(pc, pr, rc, rr):
    return pr - pc


def tunnel(pc, pr, rc, rr, *, beta, **rest):
    return pr - pc


@coupled
def coupled_without_weight(pc, pr, rc, rr, *, beta):
    return (pr - pc) / jnp.sum(pr)


@pytest.fixture(autouse=True)
def own_losses(monkeypatch):
    module = ModuleType("own_losses")
    for thing in (
        linear,
        rewarded,
        reduced,
        counted,
        branching,
        through_numpy,
        without_default,
        without_beta,
        tunnel,
    ):
        setattr(module, thing.__name__, thing)
    module.coupled_without_weight = coupled_without_weight
    module.number = 3
    monkeypatch.setitem(sys.modules, "own_losses", module)


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
def test_equal_names_and_options_give_equal_losses(name):
    one, other = resolve_loss(name, {}), resolve_loss(name, {})
    assert one == other and hash(one) == hash(other) and one is not other


def test_other_options_give_another_loss():
    assert resolve_loss("sigmoid", {}) != resolve_loss("sigmoid", {"label_smoothing": 0.2})
    assert resolve_loss("sigmoid", {}) != with_divergence(resolve_loss("sigmoid", {}), "js")


def test_one_compilation_serves_equal_losses():
    traces = []

    def step(loss, *sides):
        traces.append(loss)
        return call_loss(loss, sides, 0.1, {})

    compiled = jax.jit(step, static_argnums=0)
    compiled(resolve_loss("sigmoid", {}), *SIDES)
    compiled(resolve_loss("sigmoid", {"label_smoothing": 0}), *SIDES)  # an int for a float, the default
    assert len(traces) == 1


def test_a_users_own_loss_gets_its_options_and_arrays():
    loss = resolve_loss("own_losses:linear", {"slope": 3})
    np.testing.assert_allclose(call_loss(loss, SIDES, 0.5, {}), -1.5 * logratio_margin(*SIDES))
    reward = jnp.array([2.0, 4.0], jnp.float32)
    found = call_loss(resolve_loss("own_losses:rewarded", {}), SIDES, 0.5, {"chosen_reward": reward})
    np.testing.assert_allclose(found, [2.0 * -1, 4.0 * 0])
    assert call_loss(with_divergence(loss, "js"), SIDES, 0.5, {}).shape == (2,)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sigmiod", {}, ["'sigmiod'", "did you mean 'sigmoid'"]),
        ("sigmoid", {"label_smoothin": 0.1}, ["'label_smoothin'", "did you mean 'label_smoothing'"]),
        ("hinge", {"tau": 0.1}, ["hinge", "'tau'", "it has none"]),
        ("sigmoid", {"label_smoothing": "much"}, ["label_smoothing", "'much'", "float"]),
        ("sigmoid", {"label_smoothing": True}, ["label_smoothing", "True", "float"]),
        ("ipo", {"average": 1}, ["average", "1", "bool"]),
        ("sigmoid", {"label_smoothing": 0.5}, ["label_smoothing", "0.5"]),
        ("sigmoid", {"beta": 0.5}, ["'beta'"]),
        ("sigmoid", {"weight": 0.5}, ["'weight'"]),
        ("exo_pair", {"label_smoothing": 0.0}, ["label_smoothing", "0.0"]),
        ("robust", {"label_smoothing": 0.5}, ["label_smoothing", "0.5"]),
        ("aot", {"label_smoothing": -0.1}, ["label_smoothing", "-0.1"]),
        ("discopop", {"tau": 0.0}, ["tau", "0.0"]),
        ("odpo", {"scale": "square"}, ["scale", "'square'", "'log' or 'linear'"]),
        ("sft", {"average": "mean"}, ["average", "'mean'", "'trajectory'"]),
        ("no_such_package:loss", {}, ["no_such_package", "importing"]),
        ("own_losses:linaer", {}, ["'linaer'", "did you mean 'linear'"]),
        ("own_losses:number", {}, ["'number'"]),
        ("own_losses:", {}, ["own_losses"]),
        (":linear", {}, ["package.module:function"]),
        ("own_losses:reduced", {}, ["own_losses:reduced", "float32 []", "float32 [3]"]),
        ("own_losses:counted", {}, ["own_losses:counted", "int32 [3]", "float32 [3]"]),
        ("own_losses:branching", {}, ["own_losses:branching", "Tracer"]),
        ("own_losses:through_numpy", {}, ["own_losses:through_numpy", "list"]),
        ("own_losses:without_default", {}, ["'slope'", "default"]),
        ("own_losses:without_beta", {}, ["(pc, pr, rc, rr)", "beta"]),
        ("own_losses:tunnel", {}, ["**rest"]),
        ("own_losses:coupled_without_weight", {}, ["weight"]),
    ],
)
def test_what_is_no_loss_is_refused_in_clear_words(name, options, words):
    with pytest.raises(ConfigError) as error:
        resolve_loss(name, options)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_wrong_shape_is_found_at_trace_time_too():
    with pytest.raises(TypeError, match=r"'reduced' returned float32 \[\], expected .* float32 \[2\]"):
        call_loss(reduced, SIDES, 0.1, {})


@pytest.mark.parametrize("name", sorted(set(PREFERENCE_LOSSES) - set(WITH_DIVERGENCE) - {"sft"}))
def test_losses_without_a_form_for_a_divergence_refuse_it(name):
    with pytest.raises(ConfigError, match=f"'{name}' has no form for the divergence 'js'"):
        with_divergence(PREFERENCE_LOSSES[name], "js")
    assert with_divergence(resolve_loss(name, {}), "reverse_kl") == resolve_loss(name, {})


def test_a_divergence_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"'forward_lk' \(did you mean 'forward_kl'"):
        with_divergence(PREFERENCE_LOSSES["sigmoid"], "forward_lk")
    with pytest.raises(ConfigError, match=r"alpha of the divergence: found 1.5"):
        with_divergence(PREFERENCE_LOSSES["sigmoid"], "alpha", 1.5)


def test_divergence_reaches_every_part_of_a_mixture_but_sft():
    arrays = {"chosen_tokens": jnp.ones(2, jnp.float32), "weight": jnp.ones(2, jnp.float32)}
    parts = [resolve_loss("sigmoid", {}), resolve_loss("sft", {})]
    diverging = with_divergence(mixture([(0.5, parts[0]), (0.5, parts[1])]), "js")
    expected = 0.5 * call_loss(with_divergence(parts[0], "js"), SIDES, 0.1, {})
    expected += 0.5 * call_loss(parts[1], SIDES, 0.1, arrays)
    np.testing.assert_allclose(call_loss(diverging, SIDES, 0.1, arrays), expected, rtol=1e-6)
    assert is_coupled(diverging)


def test_an_empty_mixture_is_refused():
    with pytest.raises(ValueError, match="at least one part"):
        mixture([])
