"""Steps that are not finite outside of plain learning: they change nothing, are counted and kept."""

from contextlib import contextmanager
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.adapt import AdaptOptions
from coevo_jax.config.options import BatchConfig
from coevo_jax.data.packing.judged import pack_judged
from coevo_jax.data.packing.plan import epoch_order, pack_sft
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.learning.adapt_step import Adaptation
from coevo_jax.learning.mixed_step import Beside, BothStates
from coevo_jax.learning.programs import make_learning
from coevo_jax.learning.train_state import Agents
from coevo_jax.learning.train_step import take_step
from coevo_jax.methods.judging import JudgedStep
from coevo_jax.methods.turns import turn_starts
from coevo_jax.phases import adapt as adapt_phase
from coevo_jax.phases.judge import STATE
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.checkpoint import JUDGE
from coevo_jax.run_folder.manifest import SKIPPED, PhaseRecord, read_manifest
from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.run_folder.run import create_run
from coevo_jax.sharding import make_mesh
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.step_plan import StepArguments, StepPlan
from coevo_jax.training.watched import LearningDiverged
from tests.learning.packed import VOCAB, random_pairs
from tests.learning.test_surrogate import groups, planned
from tests.tiny import tiny_config

from .test_nonfinite import about

BATCH = BatchConfig(rows=2, row_length=96, views_per_row=6, pairs=4)
BETA, RATE = np.float32(0.1), np.float32(0.01)
EPISODES = random_pairs(3).trajectories


def learning_of(folder, *overrides):
    config = tiny_config(folder, "model.num_layers=1", "optimizer.nonfinite=skip", *overrides)
    return config, make_learning(config, VOCAB, make_mesh(config.mesh))


def spoilt(plan, change):
    """The plan with one of its microbatches changed, and its number."""
    assert len(plan.steps) == len(plan.batches) > 1
    batches = [*plan.batches]
    batches[1] = change(batches[1])
    return replace(plan, batches=batches)


def infinite(array):
    """Infinite where there is a number: an input is found before anything is computed to find the cause."""
    return np.where(np.asarray(array) != 0, np.float32(np.inf), np.float32(0))


def assert_skips(folder, config, learning, programs, phase, agents, plan, arguments=None):
    """A phase that skips its one broken step ends in the very bits of the others taken alone.

    `agents` makes them anew: steps take their arrays over. Returns what is told of the step.
    """
    run = create_run(config.model_copy(update={"runs_dir": str(folder)}))
    course = StepPlan(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=len(plan.steps),
        beta=float(BETA),
        rate=lambda _step, _steps: float(RATE),
        files=list,
        arguments=arguments,
        sides=[{"source": "target", "task_id": f"task-{n}", "sample": 0} for n in range(64)],
    )
    pace = Pace(learning.learner, plan, learning.mesh)
    try:
        record, after = optimize(
            run, learning, programs, agents(), phase, PhaseRecord(name=phase.name), course, pace
        )
    finally:
        run.close()
    take = arguments or StepArguments(
        take=lambda agents: (agents[phase.agent], {}),
        give=lambda agents, state: agents.having(phase.agent, state),
    )
    state, frozen = take.take(agents())
    order = epoch_order(len(plan.steps), phase.seed(config.seed), 0)
    for place in order:
        if place != 1:
            state, _ = take_step(programs, state, frozen, [plan.batches[place]], BETA, RATE)
    found, _ = take.take(after)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    [one] = record.records[SKIPPED]
    assert one["step"] == list(order).index(1) + 1
    lines = read_metrics(run.folder / "metrics.jsonl")
    skipped = [line["step"] for line in lines if line["values"].get(f"{phase.agent}/skipped")]
    assert skipped == [lines[one["step"] - 1]["step"]]
    return about(run.folder / one["file"])


@pytest.mark.slow
def test_a_discriminator_skips_a_step(tmp_path):
    config, learning = learning_of(tmp_path, "recipe=stepagent-inverse")
    judging = learning.judging
    steps = [
        JudgedStep(trajectory=index, turn=turn, by_expert=one.agent == "expert")
        for index, one in enumerate(EPISODES)
        for turn in range(len(turn_starts(one)))
    ]
    plan = pack_judged(EPISODES, steps, batch=BATCH, pad_id=0, seed=0).plan

    def heavy(batch):
        assert np.any(batch.steps.expert)
        return replace(batch, steps=replace(batch.steps, expert=infinite(batch.steps.expert)))

    def agents():
        judge = judging.learner.around(learning.learner.init(0).params, 7)
        return Agents(states={JUDGE: judge})

    phase = Phase(kind="judge", name="round-01/judge_rewards", round=1, agent="judge", index=4)
    told = assert_skips(
        tmp_path, config, learning, judging.programs, phase, agents, spoilt(plan, heavy), STATE
    )
    assert told["tensor"] == "batch/steps/expert"


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True])
def test_a_step_on_mixed_logits_is_skipped_by_both_models(trained, tmp_path):
    options = f"recipe.learn_target.beside.train_weak={str(trained).lower()}"
    config, learning = learning_of(tmp_path, "recipe=wmss", options)
    [(_, programs)] = learning.mixed.items()
    plan = pack_sft(EPISODES, batch=BATCH, pad_id=0, seed=0)

    def heavy(batch):
        return replace(batch, sft_weight=infinite(batch.sft_weight))

    def agents():
        own = {"target": learning.learner.init(0), "weak-branch": learning.learner.init(1)}
        return Agents(states=own)

    def both(agents):
        state = BothStates(strong=agents["target"], weak=agents["weak-branch"])
        return state, Beside(base={}, weak={})

    def beside(agents):
        return agents["target"], Beside(base={}, weak=agents["weak-branch"].params)

    arguments = StepArguments(
        take=both if trained else beside,
        give=lambda agents, state: (
            agents.having("target", state.strong).having("weak-branch", state.weak)
            if trained
            else agents.having("target", state)
        ),
    )
    phase = Phase(kind="learn", name="round-01/learn_target", round=1, agent="target", index=4)
    told = assert_skips(tmp_path, config, learning, programs, phase, agents, spoilt(plan, heavy), arguments)
    assert told["tensor"] == "batch/sft_weight"


@pytest.mark.slow
def test_a_surrogate_skips_a_step(tmp_path):
    config, learning = learning_of(tmp_path, "recipe=grpo", "agents.target.surrogate.kl=0")
    pair_set, credits = groups(3)
    plan = planned(pair_set, credits, rows=2)

    def heavy(batch):
        given = batch.reinforcement
        return replace(batch, reinforcement=replace(given, advantage=infinite(given.advantage)))

    def agents():
        return Agents(states={"target": learning.learner.init(0)})

    phase = Phase(kind="learn", name="round-01/learn_target", round=1, agent="target", index=4)
    told = assert_skips(
        tmp_path, config, learning, learning.programs["target"], phase, agents, spoilt(plan, heavy)
    )
    assert told["tensor"] == "batch/reinforcement/advantage" and told["cause"] == "pair" and told["pairs"]


def made_up(state, frozen, tokens, success, rates):
    """A step that moves every weight by 1, or none where the success that it is given is no number."""
    taken = jnp.isfinite(success)
    after = jax.tree.map(lambda leaf: jnp.where(taken, leaf + 1, leaf), state)
    same = {field.name: jnp.float32(1) for field in fields(Adaptation)}
    return after, Adaptation(**(same | {"loss": success, "grad_norm": success}))


@contextmanager
def following(folder, monkeypatch, adapt=None, poison=lambda params: params):
    """What follows an evaluation, with the call that lets it learn from an episode, and its success."""
    config, learning = learning_of(folder, "recipe=atena")
    run = create_run(config.model_copy(update={"runs_dir": str(folder)}))
    world: Any = SimpleNamespace(
        **{"mesh": learning.mesh, "adapt": adapt or learning.adapt, "single": object()},
        chat=SimpleNamespace(pad_id=0),
    )
    phase = Phase(
        **{"kind": "evaluate", "name": "round-01/evaluate_adapted", "round": 1, "agent": "target"},
        **{"index": 4, "collection": "eval-adapted", "adapting": AdaptOptions(query_above=0.0)},
    )
    state = learning.learner.init(0)
    agents = Agents(states={"target": state.replace(params=poison(state.params))})
    put = adapt_phase.put_scalar
    follower = adapt_phase._Follower(run, world, agents, phase)

    def learn(number, success):
        shard = folder / f"{number}.parquet"
        write_trajectories(shard, [EPISODES[number]])
        monkeypatch.setattr(adapt_phase, "put_scalar", lambda mesh, _: put(mesh, success))
        follower.learn(shard)
        return jax.device_get(follower._state)

    try:
        yield run, follower, learn
    finally:
        run.close()


@pytest.mark.parametrize("step", [made_up, pytest.param(None, marks=pytest.mark.slow)])
def test_an_adaptation_skips_a_step(step, tmp_path, monkeypatch, capsys):
    """Of three episodes the second has a success that is no number; its weights are those of the first."""
    with following(tmp_path, monkeypatch, step) as (run, follower, learn):
        first, second, third = (learn(number, value) for number, value in enumerate([1.0, np.nan, 1.0]))
    jax.tree.map(np.testing.assert_array_equal, second, first)
    assert any(map(np.any, jax.tree.leaves(jax.tree.map(lambda a, b: a != b, third, second))))
    assert [line.get("skipped", False) for line in follower._lines] == [False, True, False]
    assert adapt_phase.adaptation_counts(follower._lines, [True] * 3)["steps"] == 2
    [one] = follower._skipped
    assert one["step"] == 2 and about(run.folder / one["file"])["trajectories"][0]["task_id"] == "task-0"
    logged = [line["values"].get("adapt/skipped") for line in read_metrics(run.folder / "metrics.jsonl")]
    assert logged == [None, 1.0, None]
    assert "skipped: round-01/evaluate_adapted, episode 2" in capsys.readouterr().out


def test_an_adaptation_whose_weights_are_broken_does_not_go_on(tmp_path, monkeypatch):
    def poison(params):
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)

    with (
        following(tmp_path, monkeypatch, made_up, poison) as (run, _, learn),
        pytest.raises(LearningDiverged, match="parameters: the agent's were broken already"),
    ):
        learn(0, np.nan)
    [kept] = read_manifest(run.folder).committed_files()
    assert (run.folder / kept).is_file()
