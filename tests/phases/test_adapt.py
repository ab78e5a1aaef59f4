"""Runs whose agent learns from its test episodes: what changes, what stays, and that they can be killed."""

import json

import jax
import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases.adapt import adaptation_counts
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.results import load_results, main_evaluations
from coevo_jax.run_folder.run import create_run
from tests.measured import curve
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = pytest.mark.usefixtures("letters")

SHORT = (
    *("recipe=atena", "explore.tasks=['40:46']", "evaluate.tasks=':6'", "model.num_layers=1"),
    *("agents={target: {learning_rate: [1e-3]}}", "warm_start.epochs=8", "rounds=2"),
    *("recipe.evaluate_adapted.adapt.learning_rate_queried=1e-3", "checkpoint.keep=all"),
)
PHASES = [f"round-0{number}/evaluate_adapted" for number in (1, 2)]


def started(folder, *overrides):
    folder.mkdir(exist_ok=True)
    return create_run(tiny_config(folder, *SHORT, *overrides))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = started(tmp_path_factory.mktemp("whole"))
    coevolve(run)
    run.close()
    return run


def lines_of(run, number=1):
    text = (run.folder / f"adaptations/round-0{number}-adapted.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def episodes_of(run, collection, number=1):
    folder = run.folder / f"trajectories/round-0{number}"
    return read_trajectories(sorted(folder.glob(f"{collection}-*.parquet")))


def test_counts_by_hand():
    step = {"tokens": 3, "loss": 0.5}
    lines = [
        {**step, "queried": True, "success": True},
        {**step, "queried": False, "success": True},
        {**step, "queried": False, "success": True},
        {"tokens": 0},  # the environment broke
    ]
    assert adaptation_counts(lines, [True, True, False, False]) == {
        **{"episodes": 4, "steps": 3, "queries": 1, "predicted": 2, "predicted_right": 1},
        "learned_tokens": 9,
    }


@pytest.mark.slow
def test_every_episode_is_a_step_and_the_first_is_played_as_ever(whole):
    plain, adapted = episodes_of(whole, "eval-target"), episodes_of(whole, "eval-adapted")
    lines = lines_of(whole)
    assert [one.task_id for one in adapted] == [one.task_id for one in plain]
    assert [line["task_id"] for line in lines] == [one.task_id for one in adapted]
    np.testing.assert_array_equal(plain[0].tokens, adapted[0].tokens)
    np.testing.assert_allclose(plain[0].logps, adapted[0].logps, atol=1e-5)
    assert any(
        np.abs(a.logps[: len(b.logps)] - b.logps[: len(a.logps)]).max() > 1e-3
        for a, b in zip(plain[1:], adapted[1:], strict=True)
        if len(a.logps) == len(b.logps)
    )
    assert all(
        "loss" in line and line["tokens"] == one.written_tokens
        for line, one in zip(lines, adapted, strict=True)
    )


@pytest.mark.slow
def test_the_agent_stays_as_it_is(whole):
    """The next round begins with the checkpoint that the adapted evaluation began with."""
    manifest = read_manifest(whole.folder)
    names = [record.name for record in manifest.done]
    begun = manifest.record(PHASES[0]).records["checkpoint"]
    assert begun == manifest.record("round-01/evaluate_target").records["checkpoint"]
    assert begun == manifest.record("round-02/learn_target").records["began_with"]
    assert names.index(PHASES[0]) == names.index("round-01/evaluate_target") + 1


@pytest.mark.slow
def test_what_it_used_is_said_of_it_alone(whole):
    results = load_results(whole.folder)
    fed = [e for e in results["evaluations"] if "test_feedback" in e]
    assert [(e["round"], e["name"]) for e in fed] == [(1, "adapted"), (2, "adapted")]
    assert fed[0]["test_feedback"] == read_manifest(whole.folder).record(PHASES[0]).records["adaptation"]
    assert fed[0]["test_feedback"]["queries"] == sum(line["queried"] for line in lines_of(whole))
    assert not [e for e in main_evaluations(results, "target") if "test_feedback" in e]
    logged = [values for _, _, values in curve(whole.folder, PHASES[0]) if "adapt/loss" in values]
    assert [values["adapt/loss"] for values in logged] == [line["loss"] for line in lines_of(whole)]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_on_the_way_it_ends_in_the_same_bytes(whole, tmp_path, monkeypatch, when):
    def adapts(manifest):
        running = manifest.running or (manifest.done[-1] if manifest.done else None)
        return running is not None and running.name in PHASES

    kill_at_commits(monkeypatch, when, first=2, every=2, counted=adapts)
    run, kills = coevolve_through_kills(started(tmp_path / "killed"))
    run.close()
    assert kills >= 4
    for number in (1, 2):
        for place in (f"adaptations/round-0{number}-adapted.jsonl", f"trajectories/round-0{number}"):
            paths = [run.folder / place] if place.endswith("l") else (run.folder / place).glob("eval-*")
            for path in paths:
                assert path.read_bytes() == (whole.folder / path.relative_to(run.folder)).read_bytes()
    ours, theirs = (
        [values for _, _, values in curve(one.folder, PHASES[0]) if "adapt/loss" in values]
        for one in (run, whole)
    )
    assert ours == theirs


@pytest.mark.slow
def test_adapters_can_follow_too(tmp_path):
    run = started(tmp_path / "lora", "model.lora={rank: 4, warm_start: full}", "rounds=1")
    coevolve(run)
    run.close()
    lines = lines_of(run)
    assert len(lines) == 6 and all(np.isfinite(line["grad_norm"]) and line["grad_norm"] > 0 for line in lines)
    assert jax.device_count() > 1  # of which one row is one device's
