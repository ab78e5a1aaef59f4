"""Steps that are not finite: what they leave as it was, what is said of them, and what is kept."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
import pytest

from coevo_jax.audit.nonfinite import nonfinite_checks
from coevo_jax.audit.reading import open_files
from coevo_jax.config.options import OptimizerConfig
from coevo_jax.data.packing.plan import epoch_order
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.programs import make_learning
from coevo_jax.learning.train_state import Agents, fresh_state
from coevo_jax.learning.train_step import apply_gradients, jit_step, take_step
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.manifest import SKIPPED, PhaseRecord, read_manifest, verify_files
from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.run_folder.run import create_run, open_run
from coevo_jax.sharding import make_mesh
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.step_plan import StepPlan
from coevo_jax.training.watched import LearningDiverged, lower_rate
from tests.learning.packed import PAIR_KINDS, VOCAB, packed, random_pairs
from tests.tiny import tiny_config

from .test_optimize import PHASE

SHAPE: dict[str, Any] = {"rows": 2, "row_length": 96, "views_per_row": 6, "pairs": 8}
STEPS = 3


def by_gap(
    policy_chosen,
    policy_rejected,
    reference_chosen,
    reference_rejected,
    *,
    beta,
    chosen_reward,
    rejected_reward,
):
    """A loss of one's own that no gap of rewards may be 0 for."""
    margin = policy_chosen - policy_rejected - reference_chosen + reference_rejected
    return -beta * margin / (chosen_reward - rejected_reward)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("scene"), "model.num_layers=1", "recipe=eto")
    learning = make_learning(config, VOCAB, make_mesh(config.mesh))
    return config, learning, packed(random_pairs(3), **SHAPE)


@pytest.fixture(scope="module")
def gap_programs(scene):
    config, learning, _ = scene
    loss = one_loss(by_gap, PAIR_KINDS)
    learner = learning.learner
    optimizer = make_optimizer(config.optimizer)
    return loss, jit_step(learner.model, optimizer, loss, learning.mesh, learner.shardings, {})


def learn(scene, folder, *, plan=None, nonfinite="stop", rate=0.01, poison=None, gap=None):
    """The phase's steps in a run of their own; returns the run's folder, the record and the agents."""
    config, learning, own = scene
    optimizer = config.optimizer.model_copy(update={"nonfinite": nonfinite})
    run = create_run(config.model_copy(update={"runs_dir": str(folder), "optimizer": optimizer}))
    names = ["prepare", *(phase.name for phase in schedule(config))]
    before = tuple(PhaseRecord(name=name, seconds=1.0) for name in names[: names.index(PHASE.name)])
    run.manifest = replace(run.manifest, done=before)
    state = learning.learner.init(0)
    if poison is not None:
        state = state.replace(params=poison(state.params))
    programs = learning.programs["target"]
    if gap is not None:
        loss, programs = gap
        learning = replace(learning, losses={"target": loss})
    plan = plan or own
    course = StepPlan(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=STEPS,
        beta=0.1,
        rate=rate if callable(rate) else lambda _step, _steps: rate,
        files=list,
        sides=[{"source": "target", "task_id": f"task-{n // 4}", "sample": n % 4} for n in range(16)],
    )
    pace, record = Pace(learning.learner, plan, learning.mesh), PhaseRecord(name=PHASE.name)
    try:
        agents = Agents(states={"target": state})
        return run, *optimize(run, learning, programs, agents, PHASE, record, course, pace)
    finally:
        run.close()


def without_gap(plan, *, only):
    """The plan with rewards of one pair that have no gap; returns it and that pair's number."""
    batch = plan.batches[only]
    place = int(np.flatnonzero(batch.weight > 0)[0])
    reward = batch.reward.copy()
    reward[batch.rejected[place]] = reward[batch.chosen[place]]
    batches = [*plan.batches]
    batches[only] = batch.replace(reward=reward)
    return replace(plan, batches=batches), plan.pairs[only][place]


def about(path):
    return json.loads(pq.read_schema(path).metadata[b"coevo_jax.nonfinite"])


def test_a_poisoned_parameter_is_named_and_skipping_does_not_go_on(scene, tmp_path):
    def poison(params):
        paths = jax.tree_util.tree_leaves_with_path(params)
        broken = jax.tree_util.keystr(paths[2][0], simple=True, separator="/")
        poisoned.append(broken)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                leaf.at[(0,) * leaf.ndim].set(jnp.nan)
                if jax.tree_util.keystr(path, simple=True, separator="/") == broken
                else leaf
            ),
            params,
        )

    poisoned: list[str] = []
    with pytest.raises(LearningDiverged) as error:
        learn(scene, tmp_path, nonfinite="skip", poison=poison)
    message = str(error.value)
    assert f"first tensor that is not finite: params/{poisoned[0]};" in message
    assert "cause: parameters: the parameters were broken already" in message
    assert message.startswith("round-01/learn_target, step 1 (round 1, step 1 of the log): ")
    assert "skipping steps cannot help" in message and "lower" not in message


def test_a_pair_whose_rewards_have_no_gap_is_named_and_its_batch_kept(scene, gap_programs, tmp_path):
    plan, pair = without_gap(scene[2], only=1)
    with pytest.raises(LearningDiverged) as error:
        learn(scene, tmp_path, plan=plan, gap=gap_programs)
    message = str(error.value)
    assert (
        "cause: pair: its loss or a slope of it is not finite" in message and f"pair {pair} (task " in message
    )
    assert "first tensor that is not finite: loss" in message and "--fork" in message
    assert "agents.target.loss" in message and "optimizer.nonfinite=skip" in message
    folder = tmp_path / "tiny"
    manifest = read_manifest(folder)
    [kept] = manifest.committed_files()
    verify_files(folder, manifest)
    told = about(folder / kept)
    assert told["pairs"][0]["pair"] == pair and told["cause"] == "pair"
    assert f"kept in {folder / kept}" in message
    assert manifest.running is not None and manifest.running.position == 0
    rows = {row["name"]: row for row in pq.read_table(folder / kept).to_pylist()}
    values = np.frombuffer(rows["reward"]["values"], rows["reward"]["dtype"]).reshape(rows["reward"]["shape"])
    np.testing.assert_array_equal(values, plan.batches[1].reward)
    [check] = nonfinite_checks(open_files(folder))
    assert check.state == "held" and f"stopped the run (pair, loss): {kept}" in check.words
    open_run(folder).close()


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ({"kind": "warm_start"}, "warm_start.learning_rate=0.0003"),
        ({"kind": "judge", "round": 1}, "judge.learning_rate=[1e-06]"),
        (
            {"kind": "learn", "agent": "target", "round": 3},
            "agents.target.learning_rate=[0.00012345678, 2e-05, 2e-06]",
        ),
    ],
)
def test_a_lower_rate_leaves_earlier_rounds_as_they_were(phase, expected, tmp_path):
    rates = "agents.target.learning_rate=[1.2345678e-4, 2e-5]"
    config = tiny_config(tmp_path, "warm_start.learning_rate=3e-3", "rounds=3", rates)
    assert lower_rate(config, SimpleNamespace(**phase)) == expected


def test_an_absurd_rate_is_told_as_such(scene, tmp_path):
    with pytest.raises(LearningDiverged) as error:
        learn(scene, tmp_path, rate=1e36)
    assert "cause: rate: " in str(error.value)
    assert "a lower agents.target.learning_rate" in str(error.value)


def test_a_rate_that_leaves_no_finite_parameter_is_told_from_parameters_that_were_broken(scene, tmp_path):
    with pytest.raises(LearningDiverged) as error:
        learn(scene, tmp_path, rate=float("inf"), nonfinite="skip")
    assert "cause: rate: the parameters were finite when this phase began" in str(error.value)
    assert "first tensor that is not finite: params/" in str(error.value)


def test_an_input_that_is_not_finite_names_its_pair(scene, tmp_path):
    plan = scene[2]
    batch = plan.batches[0]
    place = int(np.flatnonzero(batch.weight > 0)[-1])
    reference = batch.reference_logps.copy()
    reference[batch.chosen[place]] = np.inf
    broken = replace(plan, batches=[batch.replace(reference_logps=reference), *plan.batches[1:]])
    with pytest.raises(
        LearningDiverged, match=f"batch/reference_logps; cause: pair: .*pair {plan.pairs[0][place]} "
    ):
        learn(scene, tmp_path, plan=broken)


def test_a_skipped_step_leaves_everything_as_it_was_and_is_counted(scene, gap_programs, tmp_path, capsys):
    """A run that skips one step ends in the very bits of the other steps taken alone."""
    _, learning, own = scene
    plan, _ = without_gap(own, only=1)
    run, record, agents = learn(scene, tmp_path, plan=plan, gap=gap_programs, nonfinite="skip")
    state, programs = learning.learner.init(0), gap_programs[1]
    lines = read_metrics(run.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    skipped = [position for position, line in enumerate(lines) if line["values"].get("target/skipped")]
    assert len(skipped) == 1 and np.isnan(lines[skipped[0]]["values"]["target/grad_norm"])
    order = epoch_order(len(plan.steps), PHASE.seed(0), 0)
    for place in order:
        if place != 1:
            batches = [plan.batches[place]]
            state, _ = take_step(programs, state, {}, batches, np.float32(0.1), np.float32(0.01))
    jax.tree.map(np.testing.assert_array_equal, agents["target"], state)
    [one] = record.records[SKIPPED]
    assert one["step"] == skipped[0] + 1 and one["cause"] == "pair" and (run.folder / one["file"]).is_file()
    assert "skipped: round-01/learn_target, step" in capsys.readouterr().out


def test_both_modes_give_the_same_bits_where_all_is_finite(scene, tmp_path):
    found = [learn(scene, tmp_path / mode, nonfinite=mode)[2]["target"] for mode in ("stop", "skip")]
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_update_is_the_plain_one_or_none(value):
    """Against the update without the choice: the same bits; with a broken number, the state that came in."""
    rng = np.random.default_rng(0)
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.1))
    params = {
        "a": {"kernel": jnp.float32(rng.normal(size=(5, 3)))},
        "b": {"bias": jnp.float32(rng.normal(size=4))},
    }
    grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), params)
    state = fresh_state(params, optimizer, 7)

    @jax.jit
    def plain(state, grads):
        direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return (
            jax.tree.map(lambda p, d: p - 1e-3 * d, state.params, direction),
            opt_state,
            optax.tree.norm(grads),
        )

    step = jax.jit(lambda state, grads: apply_gradients(optimizer, state, grads, jnp.float32(1e-3)))
    after, norm = step(state, grads)
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state, norm), plain(state, grads))
    assert int(after.step) == 8
    broken = {**grads, "b": {"bias": grads["b"]["bias"].at[1].set(value)}}
    same, norm = step(after, broken)
    assert not np.isfinite(norm)
    jax.tree.map(np.testing.assert_array_equal, same, after)
