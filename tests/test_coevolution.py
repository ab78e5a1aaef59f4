"""The outer loop: what a method's config schedules, and that an interrupted run ends in the same numbers."""

import json
import shutil
from pathlib import Path

import pytest

from coevo_jax.coevolution import coevolve, collect_results
from coevo_jax.commands.evaluate import main as evaluate_main
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.recipe import schedule
from coevo_jax.report.html import write_report
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.measured import curve, results
from tests.tiny import Killed, coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = pytest.mark.usefixtures("letters")

CONFIGS = Path(__file__).parent.parent / "configs"


def phases(name: str) -> list[str]:
    config = load_config(CONFIGS / name, ["rounds=1"] if name != "quickstart-sft.yaml" else [])
    return [phase.name for phase in schedule(config)]


def test_a_method_is_a_config():
    assert phases("quickstart-sft.yaml") == ["warm_start", "round-00/evaluate_target"]
    assert phases("quickstart-eto.yaml") == [
        "warm_start",
        "round-00/evaluate_target",
        "round-01/explore_target",
        "round-01/learn_target",
        "round-01/evaluate_target",
    ]
    assert phases("quickstart-rft.yaml") == phases("quickstart-eto.yaml")
    for control in ("pairs", "compute"):
        assert phases(f"quickstart-eto-{control}.yaml") == phases("quickstart-eto.yaml")
    assert phases("quickstart-positive-second-agent.yaml") == phases("quickstart.yaml")
    assert phases("quickstart.yaml") == [
        "warm_start",
        "round-00/evaluate_target",
        "round-01/explore_target",
        "round-01/explore_failure",
        "round-01/learn_failure",
        "round-01/explore_hard_negatives",
        "round-01/learn_target",
        "round-01/evaluate_target",
        "round-01/evaluate_failure",
    ]
    assert "round-01/learn_failure" not in phases("quickstart-frozen-failure.yaml")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    run = create_run(tiny_config(tmp_path_factory.mktemp("whole")))
    coevolve(run)
    run.close()
    return run


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_what_it_promises(whole):
    folder, results = whole.folder, collect_results(whole)
    assert [e["round"] for e in results["evaluations"]] == [0, 0, 1, 1]
    assert {e["phase"] for e in results["explorations"]} == {
        "explore_target",
        "explore_failure",
        "explore_hard_negatives",
    }
    assert all(e["n"] == 40 for e in results["explorations"])
    kinds = {(pair["agent"], pair["kind"]) for pair in results["pairs"]}
    assert kinds == {
        ("failure", "failure_failure"),
        ("target", "expert_target"),
        ("target", "expert_failure"),
        ("target", "failure_failure"),
    }
    assert json.loads((folder / "results.json").read_text())["method"] == "coevo"
    assert list((folder / "tensorboard").iterdir())
    shards = sorted((folder / "trajectories" / "round-01").glob("target-*.parquet"))
    assert [shard.name for shard in shards] == [f"target-0000{i}-of-00003.parquet" for i in range(3)]
    assert len(read_trajectories(shards)) == 40
    assert read_manifest(folder).running is None


def test_the_results_tell_how_hard_each_learning_began_to_pull(whole):
    results = collect_results(whole)
    assert [(pull["round"], pull["agent"]) for pull in results["pulls"]] == [(1, "failure"), (1, "target")]
    for pull in results["pulls"]:
        [logged] = [
            values
            for _, _, values in curve(whole.folder, f"round-01/learn_{pull['agent']}")
            if f"{pull['agent']}/pull/sft" in values
        ]
        assert {term: logged[f"{pull['agent']}/pull/{term}"] for term in ("preference", "sft")} == {
            term: pull[term] for term in ("preference", "sft")
        }
    failure, target = results["pulls"]
    assert failure["sft"] == 0 < failure["preference"]  # it has no anchor in this config
    assert min(target["preference"], target["sft"]) > 0


def test_what_followed_first_errors_is_in_the_results_and_the_metrics(whole):
    results = collect_results(whole)
    played = {"eval-target": results["evaluations"][2], "hard_negatives": results["explorations"][2]}
    phases = {"eval-target": "evaluate_target", "hard_negatives": "explore_hard_negatives"}
    for name, entry in played.items():
        shards = sorted((whole.folder / "trajectories" / "round-01").glob(f"{name}-*.parquet"))
        trajectories = read_trajectories(shards)
        wrong = [one for one in trajectories if any("Invalid" in turn.observation for turn in one.turns)]
        assert entry["after_error"]["episodes"] == len(wrong)
        [logged] = [
            values
            for _, _, values in curve(whole.folder, f"round-01/{phases[name]}")
            if "rollout/after_error/episodes" in values
        ]
        assert logged["rollout/after_error/episodes"] == len(wrong)
    assert any(one["after_error"]["episodes"] for one in results["explorations"])


def test_the_report_of_a_real_run_shows_its_settings_trajectories_and_pairs(whole, tmp_path):
    page = write_report(whole.folder, tmp_path / "report.html").read_text()
    for words in ("40:60", "Preference pairs", "hard_negatives", "Copy"):
        assert words in page


def test_the_failure_agent_never_sees_an_expert_or_a_success(whole):
    paths = list((whole.folder / "pairs").glob("*-failure.jsonl"))
    assert paths
    for path in paths:
        assert path.stat().st_size
        for line in path.read_text().splitlines():
            pair = json.loads(line)
            assert {pair["chosen"]["source"], pair["rejected"]["source"]} <= {"target", "failure"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.slow
def test_killed_at_every_third_commit_it_ends_in_the_same_numbers(whole, tmp_path, monkeypatch, when):
    kill_at_commits(monkeypatch, when)
    run, kills = coevolve_through_kills(create_run(tiny_config(tmp_path)))
    assert kills >= 4
    assert results(run.folder) == results(whole.folder)
    assert curve(run.folder) == curve(whole.folder)
    run.close()


def test_killed_before_its_first_commit_a_run_can_be_started_again(tmp_path, monkeypatch):
    import coevo_jax.run_folder.folder as folder_module

    def die(folder, manifest):
        raise Killed

    config = tiny_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "write_manifest", die)
        patch.setattr(
            folder_module.shutil, "rmtree", lambda *_, **__: None
        )  # nothing cleans up after kill -9
        with pytest.raises(Killed):
            create_run(config)
    run = create_run(config)
    assert run.manifest == read_manifest(run.folder)
    run.close()


def test_a_finished_run_resumes_to_itself(whole):
    before = (whole.folder / "manifest.json").read_bytes()
    run = open_run(whole.folder)
    coevolve(run)
    run.close()
    assert (whole.folder / "manifest.json").read_bytes() == before


def test_evaluate_leaves_the_run_as_it_is(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole.folder, folder)
    before = contents(folder)
    evaluate_main([str(folder), "--agent", "target", "--split", "dev"])
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    found = json.loads((folder / "evaluations" / "target-dev.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    last = [one for one in results["evaluations"] if one["agent"] == "target"][-1]
    assert found["mean_reward"] == last["mean_reward"]
    with pytest.raises(ConfigError, match="expected a slice"):
        evaluate_main([str(folder), "--tasks", "first"])


def test_a_run_that_cannot_be_written_to_is_not_played(whole, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(whole.folder, folder)
    (folder / "evaluations").write_text("in the way")
    monkeypatch.setattr("coevo_jax.stored.evaluate.build_world", lambda *_: pytest.fail("it is played"))
    with pytest.raises(OSError):
        evaluate_main([str(folder)])


def test_an_agent_that_is_not_there_is_refused_before_anything_is_built(whole, monkeypatch):
    monkeypatch.setattr("coevo_jax.stored.evaluate.build_world", lambda *_: pytest.fail("it is played"))
    with pytest.raises(
        ConfigError, match=r"--agent expert: the run has no such agent \(valid: target, failure\)"
    ):
        evaluate_main([str(whole.folder), "--agent", "expert"])


@pytest.mark.slow
def test_a_run_of_a_mesh_is_evaluated_on_one_device(tmp_path, monkeypatch):
    run = create_run(
        tiny_config(tmp_path, "mesh={fsdp: 2, tensor: 2}", "rounds=0", "rollout.tensor=2", "rollout.slots=4")
    )
    last = coevolve(run)["evaluations"][0]
    run.close()
    monkeypatch.setattr("jax.device_count", lambda: 1)
    evaluate_main([str(run.folder), "--split", "dev"])
    found = json.loads((run.folder / "evaluations" / "target-dev.json").read_text())
    assert found["n"] == last["n"] and abs(found["mean_reward"] - last["mean_reward"]) < 0.1


def test_damage_is_named_and_nothing_is_changed(whole, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole.folder, copy)
    manifest = read_manifest(copy)
    victim = copy / "checkpoints" / str(manifest.checkpoint) / sorted(manifest.checkpoint_files)[0]
    content = victim.read_bytes()
    victim.unlink()
    with pytest.raises(ConfigError, match=f"{victim}: missing"):
        open_run(copy)
    victim.write_bytes(content)
    shard = next((copy / "trajectories" / "round-01").glob("target-00001*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="changed since it was committed"):
        open_run(copy)


def test_an_existing_run_is_never_overwritten(whole):
    before = contents(whole.folder)
    with pytest.raises(ConfigError, match="--resume"):
        create_run(whole.config)
    other = whole.config.model_copy(update={"seed": 7})
    with pytest.raises(ConfigError, match=r"seed: found 0, this config has 7"):
        create_run(other)
    assert contents(whole.folder) == before


@pytest.mark.slow
def test_a_second_agent_learns_from_experts_over_its_own_failures_where_that_is_asked_for(tmp_path):
    short = ("agents.target.epochs=1", "agents.failure.epochs=1")
    run = create_run(tiny_config(tmp_path, "recipe=positive-second-agent", *short))
    coevolve(run)
    run.close()
    path = run.folder / "pairs" / "round-01-failure.jsonl"
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    played = read_trajectories(sorted((run.folder / "trajectories" / "round-01").glob("failure-*.parquet")))
    failed = {(t.task_id, t.sample) for t in played if t.failure}
    assert pairs
    for pair in pairs:
        assert (pair["kind"], pair["chosen"]["source"]) == ("expert_failure", "expert")
        assert pair["rejected"]["source"] == "failure"
        assert (pair["task_id"], pair["rejected"]["sample"]) in failed
    learned = run.manifest.record("round-01/learn_failure")
    assert learned is not None and learned.position > 0 and learned.records["dropped_pairs"] == 0
