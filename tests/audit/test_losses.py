"""The audit's float64 losses and statistics, against those that a run learns and reports by."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.audit.check import NotCheckable, same
from coevo_jax.audit.collapses import collapses, told
from coevo_jax.audit.losses import LOSSES, Pairs, losses_of
from coevo_jax.audit.reading import Episode
from coevo_jax.audit.statistics import outcome, summary
from coevo_jax.coevolution import collapses as detected
from coevo_jax.evaluation import summarize
from coevo_jax.learning.loss_calls import call_loss
from coevo_jax.learning.loss_options import WITH_DIVERGENCE, resolve_loss, with_divergence
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.trajectory import Ending
from tests.report.made_run import play

BETA = 0.3
OPTIONS = {"simpo": {"gamma": 0.7}, "robust": {"label_smoothing": 0.2}, "orpo": {"average": "trajectory"}}


def made_pairs(count: int = 9) -> Pairs:
    rng = np.random.default_rng([3])
    sides = -rng.uniform(2, 30, (4, count))
    tokens = rng.integers(3, 40, (2, count)).astype(float)
    rewards = np.sort(rng.uniform(0, 1, (2, count)), axis=0)
    return Pairs(
        policy_chosen=sides[0],
        policy_rejected=sides[1],
        reference_chosen=sides[0] + rng.normal(0, 1, count),
        reference_rejected=sides[1] + rng.normal(0, 1, count),
        chosen_tokens=tokens[0],
        rejected_tokens=tokens[1],
        chosen_reward=rewards[1],
        rejected_reward=rewards[0],
        weight=rng.choice([0.5, 1.0], count) / count,
    )


DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")
ALPHA = 0.4


@pytest.fixture(scope="module")
def theirs():
    """The package's value of every loss under every divergence it has a form for: one program for all."""
    cases = [(name, "reverse_kl") for name in PREFERENCE_LOSSES]
    cases += [(name, divergence) for divergence in DIVERGENCES[1:] for name in WITH_DIVERGENCE]
    losses = {}
    for name, divergence in cases:
        losses[name, divergence] = with_divergence(
            resolve_loss(name, OPTIONS.get(name, {})), divergence, ALPHA
        )

    @jax.jit
    def values(arrays):
        return [value(loss, arrays) for loss in losses.values()]

    arrays = {key: jnp.float32(array) for key, array in vars(made_pairs()).items()}
    return dict(zip(losses, map(np.asarray, values(arrays)), strict=True))


def value(loss, arrays):
    arrays = dict(arrays)
    sides = [
        arrays.pop(f"{who}_{side}") for who in ("policy", "reference") for side in ("chosen", "rejected")
    ]
    return call_loss(loss, (sides[0], sides[1], sides[2], sides[3]), jnp.float32(BETA), arrays)


def test_every_loss_has_an_independent_derivation():
    assert set(LOSSES) == set(PREFERENCE_LOSSES)
    with pytest.raises(NotCheckable, match="no independent derivation of loss mine:own"):
        losses_of({"mine:own": 1.0}, made_pairs(), BETA, {}, "reverse_kl", 0.5)


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
def test_losses_agree(name, theirs):
    ours = losses_of({name: 1.0}, made_pairs(), BETA, OPTIONS, "reverse_kl", ALPHA)
    np.testing.assert_allclose(ours, theirs[name, "reverse_kl"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES[1:])
def test_divergences_agree(divergence, theirs):
    for name in WITH_DIVERGENCE:
        ours = losses_of({name: 1.0}, made_pairs(), BETA, OPTIONS, divergence, ALPHA)
        np.testing.assert_allclose(ours, theirs[name, divergence], rtol=2e-4, atol=2e-5)


def test_a_mixture_is_the_weighted_sum(theirs):
    ours = losses_of({"sigmoid": 0.8, "sft": 0.2}, made_pairs(), BETA, {}, "reverse_kl", ALPHA)
    expected = 0.8 * theirs["sigmoid", "reverse_kl"] + 0.2 * theirs["sft", "reverse_kl"]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_signs_of_collapse_agree():
    rng = np.random.default_rng([6])
    played = [[play(n, "failure", rng, skill) for n in range(60)] for skill in (0.6, 0.6, 0.02, 0.99)]
    entries: list[Any] = [
        {"round": number, "agent": "failure", "split": "dev"}
        | summarize(one, hard_negative_threshold=0.6, seed=7)
        for number, one in enumerate(played)
    ]
    entries[2]["mean_reward"], entries[1]["endings"]["token_limit"] = 0.01, 20
    found = collapses(entries)
    assert [sign[0] for sign in found] == [1, 2, 3] and found == told(detected(entries))
    assert found[1][3] == 2  # below half of the warm start's, and of the last round's


def test_statistics_agree():
    rng = np.random.default_rng([5])
    played = [replace(play(n % 37, "failure", rng, 0.3), sample=n // 37) for n in range(90)]
    episodes = [
        Episode(
            task_id=one.task_id,
            agent=one.agent,
            sample=one.sample,
            reward=one.reward,
            ending=one.ending.value,
            turns=[vars(turn) for turn in one.turns],
            agent_mask=one.agent_mask,
        )
        for one in played
    ]
    assert any(one.ending is Ending.FAULT for one in played)
    expected = summarize(played, hard_negative_threshold=0.6, seed=7)
    assert same(summary([outcome(one) for one in episodes], 0.6, 7), dict(expected))
    nothing = summarize([], hard_negative_threshold=0.6, seed=7)
    assert same(summary([], 0.6, 7), dict(nothing))
