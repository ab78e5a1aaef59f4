"""Runs with a weak model beside the agent: which model it is, what is drawn, and that they can be killed."""

import json

import jax
import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.phases.agents import initial_agent
from coevo_jax.phases.beside import find_weak
from coevo_jax.phases.world import build_world
from coevo_jax.recipe import find_phase
from coevo_jax.run_folder.checkpoint import WEAK
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.measured import curve, results
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

SHORT = (
    *("recipe=wmss", "rounds=3", "explore.tasks=['40:50']", "evaluate.tasks=':6'", "model.num_layers=1"),
    *("agents={target: {epochs: 3, learning_rate: [1e-2]}}", "warm_start.epochs=8"),
    *("checkpoint.every_steps=1", "checkpoint.keep=1"),  # a weak model's checkpoint outlives the others
)
TRAINED = "recipe.learn_target.beside.train_weak=true"
VARIANTS = {
    "frozen": (),
    "trained": (TRAINED, "batch.step_demonstrations=4"),
    "adapters": ("model.lora={rank: 4, warm_start: adapter}",),
    "the warm start": ("recipe.learn_target.beside.weak=warm_start", "model.lora.rank=4"),
}


def started(folder, *overrides):
    folder.mkdir(exist_ok=True)
    return create_run(tiny_config(folder, *SHORT, *overrides))


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """Finished runs by variant, made when they are first asked for."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = started(tmp_path_factory.mktemp("whole"), *VARIANTS[name])
            coevolve(made[name])
            made[name].close()
        return made[name]

    return of


def records(run):
    manifest = read_manifest(run.folder)
    return [manifest.record(f"round-0{number}/learn_target").records for number in (1, 2, 3)]


def test_what_was_strong_is_weak_in_the_round_after(wholes):
    one, two, three = records(wholes("frozen"))
    assert one["beside"]["weak"] is None
    assert (two["beside"]["weak"], three["beside"]["weak"]) == (one["began_with"], two["began_with"])
    warm = read_manifest(wholes("the warm start").folder).record("warm_start").records["checkpoint"]
    assert [one["beside"]["weak"] for one in records(wholes("the warm start"))] == [warm] * 3


def test_draws_are_as_many_as_trajectories_and_weigh_what_is_learned(wholes):
    run = wholes("frozen")
    for number, record in enumerate(records(run), start=1):
        made = json.loads((run.folder / f"draws/round-0{number}-target.json").read_text())["trajectories"]
        counts = np.array([one["drawn"] for one in made])
        assert counts.sum() == len(made) == record["beside"]["draws"] >= 10
        assert record["beside"]["drawn"] == (counts > 0).sum() < len(made)
        plan = json.loads((run.folder / f"plans/round-0{number}-target.json").read_text())
        views = [view for step in plan["steps"] for micro in step for view in micro["views"]]
        by_count = {one["trajectory"]: one["drawn"] for one in made}
        assert {view["trajectory"] for view in views} == {n for n, count in by_count.items() if count}
        # Of a step all draws weigh the same; an expert that the agent played is imitated for two reasons.
        first = [view for micro in plan["steps"][0] for view in micro["views"]]
        by_draw = [v["sft_weight"] * v["tokens"] / by_count[v["trajectory"]] for v in first]
        shares = np.array(by_draw) / min(by_draw)
        assert np.all(np.isclose(shares, 1, rtol=1e-4) | np.isclose(shares, 2, rtol=1e-4))


def test_the_weak_model_changes_what_is_learned_and_a_trained_one_is_dropped(wholes):
    finals = {}
    for name in ("frozen", "trained"):
        run = wholes(name)
        manifest = read_manifest(run.folder)
        assert not (run.folder / "checkpoints" / str(manifest.checkpoint) / WEAK).exists()
        steps = [v for _, _, v in curve(run.folder, "round-02/learn_target") if "target/loss" in v]
        finals[name] = [step["target/beside/weak_token_logp"] for step in steps]
    frozen = np.array(finals["frozen"])
    assert len(frozen) >= 3 and len(set(np.round(frozen[: len(frozen) // 3], 6))) <= len(frozen) // 3
    assert finals["trained"][-1] > finals["trained"][0]  # it learns, too


def test_the_weak_model_is_the_checkpoint_that_the_record_names(wholes):
    run = open_run(wholes("frozen").folder)
    world = build_world(run.config, run.folder)
    try:
        phase = find_phase(run.config, "round-01/learn_target")
        weak = find_weak(run, world, None, phase, run.begin("none"))
        same_arrays(weak.params, initial_agent(run.config, world.learner).params)
        phase = find_phase(run.config, "round-03/learn_target")
        weak = find_weak(run, world, None, phase, run.begin("none"))
        number = read_manifest(run.folder).record("round-02/learn_target").records["began_with"]
        abstract = world.learner.abstract().params
        same_arrays(weak.params, run.checkpoints.restore_params(number, "target", abstract))
    finally:
        run.close()
        world.close()


def same_arrays(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize(("name", "when"), [("frozen", "after"), ("trained", "before")])
def test_killed_in_learning_it_ends_in_the_same_bits(name, when, wholes, tmp_path, monkeypatch):
    whole = wholes(name)

    def learns(manifest):
        return manifest.running is not None and "/learn" in manifest.running.name

    kill_at_commits(monkeypatch, when, first=2, every=3, counted=learns)
    run, kills = coevolve_through_kills(started(tmp_path / "killed", *VARIANTS[name]))
    run.close()
    assert kills >= 2
    assert curve(run.folder) == curve(whole.folder)
    assert results(run.folder) == results(whole.folder)


def test_adapters_have_weak_adapters(wholes):
    one, two, _ = records(wholes("adapters"))
    assert one["beside"]["weak"] is None and two["beside"]["weak"] == one["began_with"]
    # In the first round the warm start has learned since the initial adapters.
    assert one["beside"]["entropy_strong"] != one["beside"]["entropy_weak"]
