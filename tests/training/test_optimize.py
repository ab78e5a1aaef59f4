"""The hot loop: what it dispatches before it fetches, that nothing passes unasked, and its pace."""

import gzip
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import coevo_jax.training.optimize as optimize_module
import coevo_jax.training.pace as pace_module
from coevo_jax.config.options import ModelConfig
from coevo_jax.learning.programs import make_learning
from coevo_jax.learning.train_state import Agents
from coevo_jax.learning.train_step import take_step
from coevo_jax.machine.chips import BY_NAME
from coevo_jax.machine.costs import rows_flops
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.metrics import finalize, read_metrics
from coevo_jax.run_folder.run import create_run
from coevo_jax.sharding import make_mesh
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace, batch_flops, published_rate
from coevo_jax.training.step_plan import StepPlan
from tests.learning.packed import VOCAB, packed, random_pairs
from tests.tiny import tiny_config

PHASE = Phase(kind="learn", name="round-01/learn_target", round=1, agent="target", index=4)
SHAPE: dict[str, Any] = {"rows": 2, "row_length": 96, "views_per_row": 6, "pairs": 8}
EPOCHS = 2


def course_of(plan, files=list):
    return StepPlan(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=EPOCHS * len(plan.steps),
        beta=0.1,
        rate=lambda step, _steps: 0.01 * (step + 1),
        files=files,
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A model of one layer with its programs, and a plan, by what a step is made of."""
    kept = {}

    def of(kind):
        if kind not in kept:
            config = tiny_config(
                tmp_path_factory.mktemp(kind),
                "model.num_layers=1",
                "recipe=eto",
                *(["agents.target.loss=aot"] if kind == "coupled" else []),
            )
            learning = make_learning(config, VOCAB, make_mesh(config.mesh))
            several: dict[str, Any] = {} if kind == "whole" else {"step_pairs": 16}
            kept[kind] = (config, learning, packed(random_pairs(3), **SHAPE, **several))
        return kept[kind]

    return of


def learn(scene, folder, plan=None, **options):
    """The phase's steps in a run of their own; returns the run and the agents."""
    config, learning, own = scene
    run = create_run(config.model_copy(update={"runs_dir": str(folder)}))
    run.traced_steps = options.get("traced", range(0))
    agents = Agents(states={"target": learning.learner.init(0)})
    plan = plan or own
    course, pace = course_of(plan), Pace(learning.learner, plan, learning.mesh)
    programs = learning.programs["target"]
    try:
        record = PhaseRecord(name=PHASE.name)
        _, agents = optimize(run, learning, programs, agents, PHASE, record, course, pace)
    finally:
        run.close()
    return run, agents


@pytest.mark.parametrize(
    "kind", ["whole", *(pytest.param(k, marks=pytest.mark.slow) for k in ("accumulated", "coupled"))]
)
def test_the_loop_gives_the_numbers_of_plain_steps(kind, scenes, tmp_path):
    """Steps of host arrays one after the other, each fetched at once, against the loop: the same bits."""
    _, learning, plan = scenes(kind)
    assert (len(plan.steps[0]) > 1) == (kind != "whole")
    run, agents = learn(scenes(kind), tmp_path)
    state, expected = learning.learner.init(0), []
    for position in range(EPOCHS * len(plan.steps)):
        epoch, place = divmod(position, len(plan.steps))
        order = optimize_module.epoch_order(len(plan.steps), PHASE.seed(0), epoch)
        own = [plan.batches[number] for number in plan.steps[order[place]]]
        rate = np.float32(0.01 * (position + 1))
        state, metrics = take_step(learning.programs["target"], state, {}, own, np.float32(0.1), rate)
        expected.append({f"target/{k}": v for k, v in finalize(jax.device_get(metrics)).items()})
    lines = read_metrics(run.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, len(expected) + 1))
    for line, values in zip(lines, expected, strict=True):
        assert {name: line["values"][name] for name in values} == values
        assert line["values"]["target/steps_per_second"] > 0 and "target/mfu" not in line["values"]
    jax.tree.map(np.testing.assert_array_equal, agents["target"], state)


def test_a_step_is_dispatched_before_the_one_before_it_is_fetched(scenes, tmp_path, monkeypatch):
    events = []

    def noted(name, function):
        def call(*arguments, **options):
            events.append(name)
            return function(*arguments, **options)

        return call

    config, learning, plan = scenes("whole")
    monkeypatch.setattr(optimize_module, "take_step", noted("step", take_step))
    monkeypatch.setattr(optimize_module, "put_batch", noted("put", optimize_module.put_batch))
    monkeypatch.setattr(jax, "device_get", noted("fetch", jax.device_get))
    monkeypatch.setattr(
        optimize_module.Run, "commit", lambda run, record, **_: events.append("commit") or record
    )
    assert EPOCHS * len(plan.steps) == 6 and config.checkpoint.every_steps == 3
    learn((config, learning, plan), tmp_path)
    assert events == [
        *("put", "step", "put", "step", "put", "fetch", "step", "fetch", "fetch", "commit"),
        *("put", "step", "put", "step", "put", "fetch", "step", "fetch", "fetch"),
    ]


@pytest.mark.parametrize(
    "hidden", ["batch", "rate", pytest.param("between microbatches", marks=pytest.mark.slow)]
)
def test_a_hidden_transfer_is_refused(hidden, scenes, tmp_path, monkeypatch):
    """What the loop puts on the devices by name is handed over as the host's array instead."""
    if hidden == "batch":
        monkeypatch.setattr(optimize_module, "put_batch", lambda _mesh, batch: batch)
    elif hidden == "rate":
        monkeypatch.setattr(optimize_module, "put_scalar", lambda _mesh, value: np.float32(value))
    else:

        def stealthy(programs, state, frozen, batches, beta, rate):
            batches[1] = batches[1].replace(weight=np.ones(SHAPE["pairs"], np.float32))
            return take_step(programs, state, frozen, batches, beta, rate)

        monkeypatch.setattr(optimize_module, "take_step", stealthy)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        learn(scenes("accumulated" if hidden == "between microbatches" else "whole"), tmp_path)


def test_chosen_steps_are_traced(scenes, tmp_path):
    run, _ = learn(scenes("whole"), tmp_path, traced=range(2, 4))
    [trace] = (run.folder / "profile" / PHASE.name).rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert steps == {"2", "3"}


def test_no_step_asked_for_leaves_no_trace(scenes, tmp_path):
    run, _ = learn(scenes("whole"), tmp_path, traced=range(90, 95))
    assert not (run.folder / "profile").exists()


def test_the_pace_by_hand(monkeypatch):
    """Two steps of 10 and 30 tokens that take 4 s and 2 s; half a second of the second went by unused."""
    now = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr(pace_module.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(
        pace_module, "batch_flops", lambda _model, _vocab, _batch, tokens, _trained: 1e12 * tokens
    )
    chip = SimpleNamespace(device_kind="TPU v5 lite")
    learner = SimpleNamespace(model=SimpleNamespace(config=None, vocab_size=9), frozen_shardings={})
    plan, mesh = (
        SimpleNamespace(batches=[None] * 3, tokens=(10, 18, 12), steps=((0, 1), (2,))),
        SimpleNamespace(devices=np.array([chip] * 4)),
    )
    pace = Pace(learner, plan, mesh)  # pyright: ignore[reportArgumentType]
    pace.begin()
    first = pace.end(0, [0])
    assert first["steps_per_second"] == 0.25 and first["tokens_per_second"] == 2.5
    assert first["batch_wait_share"] == 0 and first["mfu"] == pytest.approx(10e12 / 4 / (4 * 197e12))
    assert pace.words() == "" and pace.seconds_for(5) is None
    assert pace.least_seconds(6) == pytest.approx(3 * 40e12 / (4 * 197e12))  # three epochs of two steps
    pace.waited(1, 0.5)
    second = pace.end(1, [1, 2])
    assert second["tokens_per_second"] == 15 and second["batch_wait_share"] == 0.25
    assert second["mfu"] == pytest.approx(30e12 / 2 / (4 * 197e12))
    assert pace.seconds_for(5) == 10
    assert pace.words() == f"15 tokens/s, {30e12 / 2 / (4 * 197e12):.1%} of peak"


def test_no_utilisation_is_made_up_for_a_chip_without_a_published_rate():
    h100 = SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    assert published_rate([h100, h100]) == 2 * BY_NAME["h100"].flops
    assert published_rate([h100, SimpleNamespace(device_kind="cpu")]) is None


def test_operations_of_a_batch_by_hand():
    """Pairs of a query and a key are counted one by one in the rows' trees, and padding is left out."""
    plan = packed(random_pairs(5), **SHAPE)
    model = ModelConfig(
        **{"hidden_size": 16, "num_layers": 3, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8},
        **{"intermediate_size": 24, "layer_types": ("sliding", "full"), "sliding_window": 5},
    )
    for batch, tokens in zip(plan.batches, plan.tokens, strict=True):
        rows = batch.tokens
        real = sum(int(np.max(until[until > np.arange(1, 97)], initial=0)) for until in rows.visible_until)
        assert tokens == real  # every row ends in a chain of tokens that see each other
        full = sliding = 0
        for until in rows.visible_until:
            last = int(np.max(until[until > np.arange(1, 97)], initial=0))
            for key in range(last):
                queries = int(until[key]) - key
                full, sliding = full + queries, sliding + min(queries, 5)
        weights = 2 * 16 * 8 * (2 + 1) + 3 * 16 * 24  # of a layer
        attention = 4 * 2 * 8 * (sliding + full + sliding)
        head = 2 * VOCAB * 16 * int(rows.scored.sum())
        forward = 2 * 3 * weights * tokens + head
        assert batch_flops(model, VOCAB, batch, tokens, "all") == pytest.approx(3 * forward + 3.5 * attention)
        assert batch_flops(model, VOCAB, batch, tokens, "adapters") == pytest.approx(
            2 * forward + 3.5 * attention
        )
        only_forward = rows_flops(model, VOCAB, tokens=tokens, scored=0, seen=0, trained="")
        assert only_forward == 2 * 3 * weights * tokens
    assert replace(plan, tokens=()).padding == pytest.approx(
        1 - sum(plan.tokens) / (len(plan.batches) * 2 * 96)
    )
