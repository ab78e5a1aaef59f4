"""Where two trajectories part, what is cut behind an error, and which tokens of a pair then count."""

from pathlib import Path

import numpy as np
import pytest

from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.pairing import collect_pairs
from coevo_jax.methods.material import Material, Preference
from coevo_jax.methods.parting import (
    expert_over_at_parting,
    parting_turn,
    success_over_failure_at_parting,
)
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.data.packed import PAD, packed

CONFIG = Path(__file__).parents[2] / "configs/quickstart-parting-turn.yaml"


def play(text: str, reward: float = 0.0, *, agent: str = "target", sample: int = 0, prompt: str = "p"):
    """An episode from words like "look:word": two tokens of the agent a turn, and one of each answer."""
    turns = [Turn(response=r, action=r, observation=o) for r, o in (t.split(":") for t in text.split())]
    tokens, mask = [100 + ord(prompt)], [False]
    for turn in turns:
        tokens += [
            100 + ord(turn.response[0]),
            300 + len(turn.response),
            500 + sum(map(ord, turn.observation)),
        ]
        mask += [True, True, False]
    return Trajectory(
        task_id="t",
        agent=agent,
        sample=sample,
        prompt=prompt,
        turns=tuple(turns),
        reward=reward,
        ending=Ending.SOLVED if reward >= 1 else Ending.FAILED,
        tokens=np.array(tokens[:-1], np.int32),
        agent_mask=np.array(mask[:-1]),
        logps=np.zeros(len(mask) - 1, np.float32),
    )


EXPERT = play("look:w go:x end:", 1.0, agent="expert")


def material(*played, expert=EXPERT):
    experts = {} if expert is None else {"t": expert}
    return Material(played=(list(played),), experts=experts, is_error=lambda answer: answer == "err")


@pytest.mark.parametrize(
    "text, turn",
    [
        ("try:w go:x end:", 0),
        ("look:w try:x end:", 1),
        ("look:v go:x end:", 1),  # another answer: the next turn is the first that was written knowing it
        ("look:w go:x stop:", 2),
        ("look:w go:y", None),  # it ends before it writes anything else
        ("look:w go:x", None),
        ("look:w go:x end:", None),
    ],
)
def test_the_turn_where_two_part(text, turn):
    assert parting_turn(EXPERT, play(text)) == parting_turn(play(text), EXPERT) == turn


def test_another_task_text_parts_in_the_first_turn():
    assert parting_turn(EXPERT, play("look:w go:x end:", prompt="q")) == 0


def shown(preferences):
    return [
        (one.chosen.agent[0], one.chosen_from, len(one.rejected.turns), one.rejected_from)
        for one in preferences
    ]


LONG = "look:w try:err go:x try:err go:y stop:"


@pytest.mark.parametrize("kept, turns", [(None, 6), (0, 2), (1, 3), (4, 6), (9, 6)])
def test_a_failure_is_cut_behind_its_first_error(kept, turns):
    found = expert_over_at_parting(material(play(LONG)), cut_after_error=kept)
    assert shown(found) == [("e", 1, turns, 1)]


def test_an_error_that_both_sides_share_cuts_nothing():
    expert = play("try:err go:x end:", 1.0, agent="expert")
    failure = play("try:err go:x stop:y look:err go:y")
    found = list(expert_over_at_parting(material(failure, expert=expert), cut_after_error=0))
    assert shown(found) == [("e", 2, 4, 2)]


def test_the_experts_turns_bound_the_rejected_side_as_in_eto():
    failure = play("try:a go:b go:c go:d go:e go:f")
    assert shown(expert_over_at_parting(material(failure), max_extra_turns=1)) == [("e", 0, 4, 0)]
    assert shown(expert_over_at_parting(material(failure), max_extra_turns=0, cut_after_error=0)) == [
        ("e", 0, 3, 0)
    ]
    assert shown(expert_over_at_parting(material(failure), max_extra_turns=None)) == [("e", 0, 6, 0)]


def test_an_agent_that_beats_the_expert_is_chosen_from_where_they_part():
    expert = play("look:w go:err end:", 0.5, agent="expert")
    success = play("look:w find:x end:", 1.0)
    assert shown(expert_over_at_parting(material(success, expert=expert), cut_after_error=0)) == [
        ("t", 1, 2, 1)
    ]


def test_a_success_stands_over_every_failure_of_its_task():
    played = [
        play("look:w go:x end:", 1.0, sample=0),
        play("look:w try:err stop:", 0.5, sample=1),
        play("look:w try:err go:x stop:", 0.2, sample=2),
        play("look:w go:x", 0.0, sample=3),  # never parts
        play("find:w end:", 1.0, sample=4),
    ]
    found = list(success_over_failure_at_parting(material(*played, expert=None), cut_after_error=0))
    assert [(one.chosen.sample, one.rejected.sample, one.chosen_from) for one in found] == [
        (0, 1, 1),
        (0, 2, 1),
        (4, 1, 0),
        (4, 2, 0),
        (4, 3, 0),
    ]
    assert [len(one.rejected.turns) for one in found] == [2, 2, 2, 2, 2]
    # Two failures with the same turns up to the error are one pair; largest gaps come first.
    pairs = collect_pairs({"own": found}, max_per_kind=9)
    assert [(p.chosen_from, p.rejected_from) for p in pairs.pairs] == [(0, 0), (1, 1), (0, 0)]
    assert [pairs.trajectories[p.rejected].sample for p in pairs.pairs] == [3, 2, 2]


def test_the_tokens_of_a_pair_that_count():
    found = list(expert_over_at_parting(material(play(LONG)), cut_after_error=1))
    pairs = collect_pairs({"expert_target": found}, max_per_kind=9)
    plan = packed(pairs.trajectories, pairs.pairs, rows=2, row_length=32, views_per_row=4, pairs=4)
    (batch,) = plan.batches
    assert (batch.tokens.tokens != PAD).any()
    rows = batch.view_weight.reshape(-1, batch.view_weight.shape[-1])
    target, source = batch.tokens.target, []
    for n in (int(batch.chosen[0]), int(batch.rejected[0])):
        row = n // batch.view_weight.shape[1]
        source.append(target[row][np.flatnonzero(rows[n])].tolist())
        assert set(rows[n].tolist()) <= {0.0, 1.0} and batch.token_count[n] == len(source[-1])
    go, end, attempt = [100 + ord("g"), 302], [100 + ord("e"), 303], [100 + ord("t"), 303]
    assert source == [[*go, *end], [*attempt, *go]]  # neither the shared "look" nor what is cut
    assert np.flatnonzero(batch.sft_weight).tolist() == [int(batch.chosen[0])]
    assert batch.sft_weight.sum() == pytest.approx(0.5 / 4)


def test_a_discount_lets_each_turn_behind_an_error_weigh_less():
    found = list(expert_over_at_parting(material(play(LONG)), error_discount=0.5, cut_after_error=3))
    assert [one.rejected_turns for one in found] == [(1, 1, 0.5, 0.25, 0.125)]
    pairs = collect_pairs({"expert_target": found}, max_per_kind=9)
    plan = packed(pairs.trajectories, pairs.pairs, rows=2, row_length=32, views_per_row=4, pairs=4)
    (batch,), n = plan.batches, int(plan.batches[0].rejected[0])
    rows = batch.view_weight.reshape(-1, batch.view_weight.shape[-1])
    assert rows[n][rows[n] > 0].tolist() == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert plan.turns[0][n] == (0, 1, 0.5, 0.25, 0.125)
    whole = [
        one.rejected_turns for one in expert_over_at_parting(material(play("try:a go:b")), error_discount=0.5)
    ]
    assert whole == [None]


@pytest.mark.parametrize(
    "turns, words",
    [
        ((1.0,), "rejected_turns: found 1 weights, expected 2, one for each turn of t"),
        ((1.0, -1.0), "rejected_turns: found -1.0 as the weight of turn 1"),
        ((1.0, 0.0), "rejected_turns: found 0 from turn 1 on, expected a weight above 0"),
    ],
)
def test_weights_that_do_not_fit_the_rejected_side_are_refused(turns, words):
    one = Preference(EXPERT, play("look:w try:x"), 1, 1, turns)
    pairs = collect_pairs({"expert_target": [one]}, max_per_kind=9)
    with pytest.raises(ConfigError, match=rf"pair 0 \(expert_target of task t\): {words}"):
        packed(pairs.trajectories, pairs.pairs, rows=2, row_length=32, views_per_row=4, pairs=4)


def test_what_needs_two_trajectories_of_a_task_is_refused_where_one_is_played():
    with pytest.raises(ConfigError, match=r"success_failure needs two trajectories .* explore.samples is 1"):
        load_config(CONFIG, ["explore.samples=1"])
    with pytest.raises(ConfigError, match=r"expert_target: cut_after_error: found -1 .*, expected .* 0"):
        load_config(CONFIG, ["recipe.learn_target.expert_target.cut_after_error=-1"])
    with pytest.raises(ConfigError, match=r"expert_target.error_discount does nothing: cut_after_error is 0"):
        load_config(CONFIG, ["recipe.learn_target.expert_target.error_discount=0.5"])
