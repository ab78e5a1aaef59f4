"""The audit's float64 losses and statistics, against those that a run learns and reports by."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.audit.after_errors import after_error, met
from coevo_jax.audit.check import NotCheckable, same
from coevo_jax.audit.collapses import collapses, told
from coevo_jax.audit.keeping import lot, spread
from coevo_jax.audit.losses import LOSSES, Pairs, losses_of
from coevo_jax.audit.numbers import warmup_steps
from coevo_jax.audit.pulls import WITHOUT_SLOPE, slopes
from coevo_jax.audit.reading import Episode
from coevo_jax.audit.sides import Pair, Side
from coevo_jax.audit.statistics import outcome, summary
from coevo_jax.coevolution import Collapses
from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.data.pairing import Keep, collect_pairs, draw, keep_pairs
from coevo_jax.envs.env import says_invalid
from coevo_jax.episode_stats.after_error import sum_up_errors
from coevo_jax.episode_stats.summary import summarize
from coevo_jax.learning.loss_calls import call_loss
from coevo_jax.learning.loss_options import WITH_DIVERGENCE, resolve_loss, with_divergence
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.methods.better_over_worse import better_over_worse
from coevo_jax.methods.expert_over import expert_over
from coevo_jax.methods.material import Material
from coevo_jax.trajectory import Ending, Trajectory, Turn
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


def detected(entries: list[Any], lead: str) -> list[Any]:
    """What a run says of a series."""
    signs = Collapses(lead)
    for entry in entries:
        signs.add(entry)
    return signs.found


def test_signs_of_collapse_agree():
    rng = np.random.default_rng([6])
    played = [[play(n, "failure", rng, skill) for n in range(60)] for skill in (0.6, 0.6, 0.02, 0.99)]
    entries: list[Any] = [
        {"round": number, "agent": "failure", "split": "dev"}
        | summarize(one, hard_negative_threshold=0.6, seed=7)
        for number, one in enumerate(played)
    ]
    entries[2]["mean_reward"] = 0.01
    entries[1]["endings"]["token_limit"], entries[2]["endings"]["token_limit"] = 20, 0
    found = collapses("target", entries)
    assert [sign[0] for sign in found] == [1, 2, 3] and found == told(detected(entries, "target"))
    assert found[1][3] == 2  # below half of the warm start's, and of the last round's


def test_nothing_left_to_fail_is_no_sign_of_the_lead():
    rng = np.random.default_rng([7])
    entries: list[Any] = [
        {"round": number, "agent": "student", "split": "dev"}
        | summarize([play(n, "student", rng, 0.99) for n in range(60)], hard_negative_threshold=0.6, seed=7)
        for number in range(2)
    ]
    for lead, signs in (("student", 0), ("helper", 2)):
        found = collapses(lead, entries)
        assert len(found) == signs and found == told(detected(entries, lead))


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
    expected = summarize(played, hard_negative_threshold=0.6, seed=7, is_error=says_invalid)
    counted = summary([outcome(one, says_invalid) for one in episodes], 0.6, 7, errors=True)
    assert same(counted, dict(expected))
    assert counted["after_error"]["recovered"] and counted["after_error"]["repeated"]
    nothing = summarize([], hard_negative_threshold=0.6, seed=7)
    assert same(summary([], 0.6, 7, errors=True), dict(nothing))


TURNS = {"ok": ("a", "fine"), "bad": ("b", "Invalid action"), "bad again": ("b", "Invalid action")}
TURNS |= {"other bad": ("c", "Invalid action"), "cut": ("", "")}
EPISODES = [
    # turns, reward, ending, what followed, agent tokens behind the first error (two in each turn)
    (("ok", "ok"), 1.0, "solved", "", 0),
    (("bad", "bad again", "ok"), 1.0, "solved", "repeated", 4),
    (("bad", "ok", "other bad"), 1.0, "solved", "recovered", 4),
    (("bad", "other bad"), 1.0, "solved", "gave_up", 2),
    (("ok", "bad", "ok"), 0.4, "failed", "gave_up", 2),
    (("bad", "ok", "ok"), 0.4, "failed", "went_on", 4),
    (("bad", "ok"), 0.0, "turn_limit", "went_on", 2),
    (("ok", "bad"), 0.0, "turn_limit", "cut_off", 0),
    (("bad", "cut"), 0.0, "token_limit", "cut_off", 2),
    (("bad", "ok", "cut"), 0.0, "token_limit", "went_on", 4),
]


@pytest.mark.parametrize("turns, reward, ending, followed, behind", EPISODES)
def test_what_followed_an_error_agrees(turns, reward, ending, followed, behind):
    played = [Turn(response=name, action=TURNS[name][0], observation=TURNS[name][1]) for name in turns]
    mask = np.tile([False, True, True], len(turns))
    episode = Episode(
        task_id="t",
        agent="target",
        sample=0,
        reward=reward,
        ending=ending,
        turns=[vars(turn) for turn in played],
        agent_mask=mask,
    )
    trajectory = Trajectory(
        task_id="t",
        agent="target",
        sample=0,
        prompt="",
        turns=tuple(played),
        reward=reward,
        ending=Ending(ending),
        tokens=np.zeros(len(mask), np.int32),
        agent_mask=mask,
        logps=np.zeros(len(mask), np.float32),
    )
    ours = met(episode, says_invalid)
    assert (ours.followed, ours.behind) == (followed, behind)
    assert after_error([ours]) == sum_up_errors([trajectory], says_invalid)


@pytest.mark.parametrize("name", sorted(set(PREFERENCE_LOSSES) - WITHOUT_SLOPE))
def test_pulls_of_preferences_agree(name):
    """At a policy that is the reference: the derivative by the chosen side, against that of JAX."""
    pairs = made_pairs()
    pairs = replace(pairs, policy_chosen=pairs.reference_chosen, policy_rejected=pairs.reference_rejected)
    arrays = {key: jnp.float32(array) for key, array in vars(pairs).items()}
    loss = resolve_loss(name, OPTIONS.get(name, {}))

    def total(chosen):
        return jnp.sum(value(loss, arrays | {"policy_chosen": chosen}))

    config = AgentConfig(loss=name, loss_options={name: OPTIONS[name]} if name in OPTIONS else {})
    kinds = np.array(["expert_target"] * len(pairs.weight))
    ours = slopes(config, {"expert_target": KindWeights(dpo=1.0)}, kinds, pairs, BETA)
    np.testing.assert_allclose(ours, jax.grad(total)(arrays["policy_chosen"]), rtol=1e-3, atol=1e-5)
    if name == "sigmoid":
        np.testing.assert_allclose(ours, -BETA / 2, rtol=1e-6)


def test_the_witness_draws_lots_and_spreads_budgets_as_a_run_does():
    rng = np.random.default_rng([8])
    experts = [replace(play(n, "expert", rng, 1.0), reward=1.0) for n in range(9)]
    played = [
        replace(
            play(n % 9, "target", rng, 0.0),
            sample=n // 9,
            ending=Ending.FAILED,
            tokens=np.full(40, n, np.int32),
            agent_mask=np.arange(40) >= 9,
            logps=np.zeros(40, np.float32),
        )
        for n in range(36)
    ]
    material = Material(played=(played,), experts={one.task_id: one for one in experts})
    found = {"expert_over": expert_over(material), "better_over_worse": better_over_worse(material)}
    everything = collect_pairs(found, max_per_kind=99)
    sides = [side_of(one) for one in everything.trajectories]
    pairs = [Pair(kind=p.kind, chosen=sides[p.chosen], rejected=sides[p.rejected]) for p in everything.pairs]
    for by in ("largest_gap", "smallest_gap", "drawn"):
        for count in (4, 23, 400):
            usable = range(1, len(pairs))
            theirs = keep_pairs(everything, count, Keep(by=by, seed=5), usable)
            ours = spread(pairs, usable, count, by, 5)
            assert [named(pair) for pair in ours] == [named(pair) for pair in as_pairs(theirs)]
    assert lot(5, pairs[3]) == draw(
        5,
        everything.pairs[3].kind,
        everything.trajectories[everything.pairs[3].chosen],
        everything.trajectories[everything.pairs[3].rejected],
    )


def side_of(trajectory: Trajectory) -> Side:
    episode = Episode(
        task_id=trajectory.task_id,
        agent=trajectory.agent,
        sample=trajectory.sample,
        reward=trajectory.reward,
        ending=trajectory.ending.value,
        tokens=trajectory.tokens,
        agent_mask=trajectory.agent_mask,
    )
    return Side(source=trajectory.agent, episode=episode, length=len(trajectory.tokens))


def as_pairs(pair_set) -> list[Pair]:
    sides = [side_of(one) for one in pair_set.trajectories]
    return [Pair(kind=p.kind, chosen=sides[p.chosen], rejected=sides[p.rejected]) for p in pair_set.pairs]


def named(pair: Pair) -> tuple[str, str, str]:
    return pair.kind, pair.chosen.episode.name, pair.rejected.episode.name


def test_a_warm_up_is_the_share_that_the_config_says():
    assert [warmup_steps(100, 0.07), warmup_steps(100, 0.071), warmup_steps(9, 0.0)] == [7, 8, 0]
