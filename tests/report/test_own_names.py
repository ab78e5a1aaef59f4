"""Runs of any recipe: agents, collections, learnings and kinds stand under the names that they have there."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from coevo_jax.commands.report import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.report.browser import AFTERWARDS, browser_payload, find_groups
from coevo_jax.report.cast import Cast, agent_name, cast_of, kind_name, mark_lines
from coevo_jax.report.comparison import (
    best_evaluation,
    compare,
    final_evaluation,
    lead_words,
    measures_of,
    reward_of,
)
from coevo_jax.report.html import write_report
from coevo_jax.report.paired import pair_with_baseline, read_task_rewards
from coevo_jax.report.run_page import rounds_section
from coevo_jax.report.terminal import rounds_table
from coevo_jax.run_folder.results import Evaluation, evaluation_label, load_results, main_evaluations
from coevo_jax.run_folder.tensorboard import round_scalars
from tests.report.made_run import THREE, make_run


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three agents, of which the lead learns twice a round: read it, do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "three-0"
    return make_run(folder, method="three", rounds=2, tasks=12, recipe=THREE)


def payload_of(folder: Path) -> dict:
    return browser_payload(folder, cast_of(load_results(folder)), 0.6)


def test_no_page_speaks_of_agents_that_a_recipe_does_not_have(three, tmp_path, capsys):
    page = write_report(three, tmp_path / "page.html").read_text()
    main([str(three), "--out", str(tmp_path / "page.html")])
    shown = capsys.readouterr().out
    body = page.partition("<body>")[2].partition("<script")[0]
    for text in (body, shown):
        assert not re.search(r"[Tt]arget|[Ff]ailure agent|[Hh]ard negatives \(", text)
        for name in ("Second critic", "First tries", "Near misses", "Student learns: from experts"):
            assert name in text
    assert "expert over failure</td>" in body and "less wrong</td>" in body
    assert "Beta per round, second critic" in body and "<dt>Learning rate</dt>" in body


def test_the_browser_follows_the_recipe(three):
    payload = payload_of(three)
    first = [(g["source"], g["name"]) for g in payload["groups"] if g["round"] == 1]
    assert first == [
        ("first_tries", "First tries (student)"),
        ("helper", "Helper explores"),
        ("near_misses", "Near misses (second critic)"),
        ("eval-student", "Evaluation: student"),
        ("eval-helper", "Evaluation: helper"),
        ("eval-second_critic", "Evaluation: second critic"),
    ]
    assert [g["name"] for g in payload["groups"]][:2] == ["Experts", "Evaluation: student"]
    pairs = [(g["learning"], g["name"], g["kinds"]) for g in payload["pairs"] if g["round"] == 2]
    assert pairs == [
        ("from_experts", "Student: from experts", {"expert_over": "expert over failure"}),
        ("student", "Student", {"expert_near": "expert near"}),
        ("second_critic", "Second critic", {"less_wrong": "less wrong"}),
    ]
    sides = [payload["trajectories"][p["rejected"]] for p in payload["pairs"][0]["items"]]
    assert {payload["groups"][t["group"]]["source"] for t in sides} == {"first_tries"}


def test_the_classic_names_keep_their_words(run_dir):
    cast = cast_of(load_results(run_dir))
    assert [agent_name(agent) for agent in cast.agents] == ["Target", "Failure agent"]
    words = {
        "round-01/explore_failure": "Round 1 · Failure agent explores",
        "round-01/explore_hard_negatives": "Round 1 · Hard negatives",
        "round-02/learn_target": "Round 2 · Target learns",
        "round-00/evaluate_target": "Warm start · Evaluation: target",
        "warm_start": "Warm start",
        "prepare": "Prepare",
    }
    assert {name: cast.phase_name(name) for name in words} == words
    assert cast.source_name("hard_negatives", "failure") == "Hard negatives (failure agent)"
    assert kind_name("expert_failure") == "expert over failure-agent failure"


def test_colours_are_by_place_and_a_second_collection_has_one_of_its_own(run_dir, three):
    classic, own = cast_of(load_results(run_dir)), cast_of(load_results(three))
    assert [classic.collection_tone(n) for n in ("target", "failure", "hard_negatives")] == ["c1", "c2", "c4"]
    assert [own.tone(agent) for agent in own.agents] == ["c1", "c2", "c3"]
    assert [own.collection_tone(n) for n in ("first_tries", "helper", "near_misses")] == ["c1", "c2", "c3"]
    many = Cast(agents=tuple("abcdefgh"), collections={}, learnings={})
    assert many.tone("h") == "c2"


def test_evaluations_beside_the_agents_own_stand_apart(three):
    """Under other marks an agent is another series, and no number that runs are compared by."""
    results = load_results(three)
    last = next(e for e in results["evaluations"] if (e["round"], e["agent"]) == (2, "student"))
    worst = {**last, "name": "under_the_worst", "mark": "{task} Wrong.", "mean_reward": 2.0}
    results["evaluations"].append(cast(Evaluation, worst))
    results["config"]["recipe"].append({"evaluate": {"agent": "student", "name": "under_the_worst"}})
    cast_of_all = cast_of(results)
    name = "under_the_worst"
    assert cast_of_all.evaluation_name(name) == "Student, under the worst"
    assert cast_of_all.evaluation_name("student") == "Student"
    tones = [cast_of_all.evaluation_tone(one) for one in ("student", "helper", "second_critic", name)]
    assert tones == ["c1", "c2", "c3", "c4"]
    assert (
        cast_of_all.phase_name(f"round-01/evaluate_{name}")
        == "Round 1 · Evaluation: student, under the worst"
    )
    assert cast_of_all.source_name(f"eval-{name}", "student") == "Evaluation: student, under the worst"
    assert mark_lines(cast_of_all, results["evaluations"]) == [
        "Student, under the worst: under the mark “{task} Wrong.”."
    ]
    assert evaluation_label(worst) == name and evaluation_label(last) == "student"
    assert worst not in main_evaluations(results, "student")
    assert final_evaluation(results) == last and best_evaluation(results) != worst
    assert ("eval/under_the_worst/mean_reward", 2, 2.0) in list(round_scalars(results))
    page = rounds_section(results)
    assert page.count(">Student, under the worst</td>") == 1 and page.count(">Student</td>") == 3
    assert list(rounds_table(results).columns[1].cells)[-1] == "student, under the worst"


def test_every_agent_beyond_the_lead_is_compared(three, run_dir):
    runs = [load_results(run_dir), load_results(three)]
    found = compare(runs)
    assert (found["leads"], found["others"]) == (
        ["target", "student"],
        ["failure", "helper", "second_critic"],
    )
    assert list(measures_of(found).values())[-3:] == [
        "Failure agent: mean reward, last round",
        "Helper: mean reward, last round",
        "Second critic: mean reward, last round",
    ]
    assert lead_words(found) == "each run's lead (target, student)"
    assert lead_words(compare(runs[:1])) == "the target agent"
    rows = {row["method"]: row["measures"] for row in found["methods"]}
    last = {e["agent"]: e["mean_reward"] for e in runs[1]["evaluations"] if e["round"] == 2}
    assert rows["three"]["final_reward"]["mean"] == last["student"]
    assert rows["three"][reward_of("second_critic")]["mean"] == last["second_critic"]
    assert rows["coevo"][reward_of("helper")]["mean"] is None


def test_rewards_by_task_are_the_leads(three):
    played = read_trajectories(find_groups(three)[(2, "eval-student")])
    rewards = read_task_rewards(three, load_results(three)).rewards
    whole = {one.task_id: one.reward for one in played if one.ending != "fault"}
    assert {task: rewards[task] for task in whole} == whole and len(whole) > 6


def test_two_runs_of_a_method_and_a_seed_stand_under_their_names(tmp_path, capsys):
    first = make_run(tmp_path / "plain", method="eto", rounds=1, tasks=8)
    second = make_run(tmp_path / "longer", method="eto", rounds=2, tasks=8)
    alone = make_run(tmp_path / "coevo", rounds=1, tasks=8)
    again = make_run(tmp_path / "elsewhere" / "plain", method="eto", rounds=1, tasks=8)
    page = str(tmp_path / "page.html")
    main([str(first), str(second), str(alone), "--out", page, "--baseline", "longer"])
    shown = capsys.readouterr().out
    assert "coevo − longer" in shown and "plain − longer" in shown and "eto" not in shown
    main([str(first), str(again), "--out", page])
    shown = Path(page).read_text()
    assert f"{first} − {again}" in shown or f"{again} − {first}" in shown
    with pytest.raises(ConfigError, match=r"2 runs of method .*plain have seed 0"):
        main([str(first), str(first), "--out", page])
    rewards = [read_task_rewards(folder, load_results(folder)) for folder in (first, alone)]
    assert [row["method"] for row in pair_with_baseline(rewards)["rows"]] == ["coevo"]


def test_evaluations_of_the_stored_run_can_be_browsed(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    played = read_trajectories(find_groups(three)[(2, "eval-helper")])
    record = {"agent": "helper", "split": "dev", "tasks": 12, "temperature": 0.7}
    write_trajectories(folder / "evaluations" / "helper-dev.parquet", played)
    write_trajectories(folder / "evaluations" / "student-dev.parquet", played[:3])  # interrupted: no record
    (folder / "evaluations" / "helper-dev.json").write_text(json.dumps(record))
    *_, helper, student = payload_of(folder)["groups"]
    assert (helper["round"], helper["place"], helper["total"]) == (AFTERWARDS, "Evaluated afterwards", 12)
    assert helper["name"] == "Helper on dev, 12 tasks, temperature 0.7"
    assert (student["name"], student["total"], len(student["items"])) == ("student-dev", 3, 3)
    (folder / "evaluations" / "helper-dev.json").write_text('{"agent": "helper"}')
    with pytest.raises(
        ConfigError, match=r"helper-dev\.json: expected a JSON object with agent, split, tasks"
    ):
        payload_of(folder)


def test_a_run_from_before_recipes_is_shown_with_its_settings(tmp_path):
    shutil.copy(Path(__file__).parent / "earlier_results.json", tmp_path / "results.json")
    results = load_results(tmp_path)
    cast = cast_of(results)
    assert (cast.agents, dict(cast.collections)) == (("target", "failure"), {"target": "target"})
    page = write_report(tmp_path).read_text()
    assert "<dt>Beta per round</dt><dd>0.1, 0.5</dd>" in page
    assert "<dt>Learning rate</dt><dd>0.0001</dd>" in page
    assert "Between phases" not in page  # which such a run did not measure
    assert "<b>4 min 50 s</b><span>wall time</span>" in page  # of its phases


def test_the_browser_shows_what_was_suggested_before_a_turn(three, tmp_path):
    folder = tmp_path / "hinted"
    shutil.copytree(three, folder)
    path = next(path for path in sorted(folder.glob("trajectories/round-01/*.parquet")))
    first, *others = read_trajectories([path])
    path.unlink()
    hinted = [f"try {number}" for number in range(len(first.turns))]
    write_trajectories(path, [replace(first, hints=tuple(hinted)), *others])
    payload = payload_of(folder)
    lengths = {len(turn) for one in payload["trajectories"] for turn in one["turns"]}
    assert lengths == {3, 4}
    shown = [turn[3] for one in payload["trajectories"] for turn in one["turns"] if len(turn) == 4]
    assert shown == hinted
