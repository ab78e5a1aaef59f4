"""Runs of stepagent-reward and early-experience: audited, edited and killed; what is broken is named."""

import json

import pytest

import coevo_jax.phases.explore as explore_module
from coevo_jax.audit.audit import run_audit
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs.registry import ENVIRONMENTS, EnvSpec
from coevo_jax.report.html import write_report
from coevo_jax.rollout import QuestionSet, play_together
from coevo_jax.run_folder.run import create_run
from coevo_jax.trajectory import Ending
from tests.audit.breaking import assert_named_alone, copy, edit_json, edit_rows, finished, manifest
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("spelling"), pytest.mark.slow]

SPELLING = EnvSpec(
    options_at="tests.spelling_env:SpellingOptions", make_at="tests.spelling_env:make_spelling"
)
OPTIONS = (
    "env.name=spelling",
    "warm_start.epochs=5",
    "explore.tasks=['40:52']",
    "explore.samples=1",
    "model.num_layers=1",
    "evaluate.tasks=':9'",
    "batch.row_length=384",
    "rollout.max_tokens=384",
    "rollout.max_turn_tokens=32",  # room for the scripted reason, which knows no limit
)
REASON = "Thought: the word shows it."
REASONS = "trajectories/round-01/reasons-00000-of-00002.parquet"


@pytest.fixture(scope="module")
def spelling():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "spelling", SPELLING)
        yield


@pytest.fixture
def reasoning(monkeypatch):
    """An agent that gives one reason for everything, and plays as it does."""

    def with_reasons(engine, pool, chat, casts, **options):
        if isinstance(casts[0], QuestionSet):
            said = {one.task.id: [chat.response_ids(REASON)] for one in casts[0].questions}
            options["script"] = said
        return play_together(engine, pool, chat, casts, **options)

    monkeypatch.setattr(explore_module, "play_together", with_reasons)


def shards(run, name):
    return read_trajectories(sorted((run / "trajectories/round-01").glob(f"{name}-*.parquet")))


def plan(run, name):
    return json.loads((run / f"plans/round-01-{name}.json").read_text())


def first(rows):
    """The first answer."""
    return next(row for row in rows if row["ending"] == "answered")


def assert_held(run):
    others = [one for one in run_audit(run, None) if one.state != "held"]
    assert not others, others


def test_the_experts_step_over_the_agents_own(tmp_path):
    run = finished(tmp_path, *OPTIONS, "recipe=stepagent-reward", "agents.target.max_pairs_per_kind=9")
    assert_held(run)
    experts = {one.task_id: one for one in read_trajectories([run / "trajectories/experts.parquet"])}
    own = {(one.task_id, one.sample): one for one in shards(run, "own")}
    pairs = [json.loads(line) for line in (run / "pairs/round-01-target.jsonl").read_text().splitlines()]
    differ = [
        one
        for one in own.values()
        if one.turns[one.first_own_turn].action != experts[one.task_id].turns[one.first_own_turn].action
    ]
    assert 5 < len(pairs) <= len(differ) < len(own) == 12 * 4
    for pair in pairs:
        branch = own[pair["task_id"], pair["rejected"]["sample"]]
        assert pair.get("chosen_from", 0) == pair.get("rejected_from", 0) == branch.first_own_turn
    edited = copy(run, tmp_path)
    path = next(path.name for path in (run / "trajectories/round-01").glob("own-00000-*"))

    def as_the_expert(rows):
        """An own step that was another becomes the expert's, in words: it may be no pair any more."""
        pair = next(pair for pair in pairs if any(row["task_id"] == pair["task_id"] for row in rows))
        row = next(
            row
            for row in rows
            if (row["task_id"], row["sample"]) == (pair["task_id"], pair["rejected"]["sample"])
        )
        turn = row["branch"]["turns"]
        row["turns"][turn]["action"] = experts[row["task_id"]].turns[turn].action

    edit_rows(edited, f"trajectories/round-01/{path}", as_the_expert)
    named = {one.name for one in run_audit(edited, None) if one.state == "BROKEN"}
    assert {"pairs/round-01/learn_target", "plan/round-01/learn_target"} <= named


def test_what_own_actions_lead_to_is_foretold_and_then_experts_are_imitated(tmp_path):
    run = finished(tmp_path, *OPTIONS, "recipe=early-experience-iwm")
    assert_held(run)
    world, expert = plan(run, "world"), plan(run, "expert")
    assert {one["source"] for one in world["trajectories"]} == {"own"} and len(world["trajectories"]) > 20
    assert {one["source"] for one in expert["trajectories"]} == {"expert"}
    done = {record["name"]: record["records"] for record in manifest(run)["done"]}
    assert done["round-01/learn_expert"]["began_with"] == done["round-01/learn_world"]["checkpoint"]
    edited = copy(run, tmp_path)

    def longer(content):
        view = content["steps"][0][0]["views"][0]
        view["tokens"] += 1

    edit_json(edited, "plans/round-01-world.json", longer)
    named = {one.name for one in run_audit(edited, None) if one.state == "BROKEN"}
    assert "plan/round-01/learn_world" in named


def test_reasons_are_asked_for_and_learned_before_the_experts_actions(reasoning, tmp_path):
    run = finished(tmp_path, *OPTIONS, "recipe=early-experience-sr")
    assert_held(run)
    everything = shards(run, "reasons")
    answers = [one for one in everything if one.ending is Ending.ANSWERED]  # others had no room
    done = {record["name"]: record["records"] for record in manifest(run)["done"]}
    asked = done["round-01/ask_reasons"]
    assert asked["questions"] == len(everything) and asked["endings"]["answered"] == len(answers) > 20
    assert {one.ending for one in everything} <= {Ending.ANSWERED, Ending.TOKEN_LIMIT}
    assert {one.turns[0].response for one in answers} == {REASON}
    assert {one.about.turn for one in answers if one.about} == {0, 1, 2, 3}
    learned = plan(run, "target")
    sources = [one["source"] for one in learned["trajectories"]]
    assert sources.count("reasons") == len(answers) and sources.count("expert") == 12
    weights = {
        tuple(view.get("turns") or ())
        for step in learned["steps"]
        for micro in step
        for view in micro["views"]
        if learned["trajectories"][view["trajectory"]]["source"] == "reasons"
    }
    assert weights == {(), (0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0)}  # all 1 at the first turn

    another = copy(run, tmp_path / "question")
    edit_rows(another, REASONS, lambda rows: first(rows).update(prompt=first(rows)["prompt"] + " "))
    assert_named_alone(another, {"whose/round-01/ask_reasons", "tokens/round-01/ask_reasons"})
    later = copy(run, tmp_path / "turn")
    edit_rows(later, REASONS, lambda rows: first(rows)["about"].update(turn=3))
    named = {one.name for one in run_audit(later, None) if one.state == "BROKEN"}
    assert {"whose/round-01/ask_reasons", "plan/round-01/learn_target"} <= named


def test_a_run_killed_while_it_asks_ends_in_the_same_answers(reasoning, monkeypatch, tmp_path):
    def folder(name):
        return create_run(tiny_config(tmp_path / name, *OPTIONS, "recipe=early-experience-sr"))

    whole, _ = coevolve_through_kills(folder("whole"))
    whole.close()
    kill_at_commits(monkeypatch, "after", first=5, every=2)
    killed, kills = coevolve_through_kills(folder("killed"))
    killed.close()
    assert kills > 2
    write_report(killed.folder)
    assert_held(killed.folder)
    for name in ("reasons", "own"):
        one, other = (
            [(t.task_id, t.sample, t.prompt, t.tokens.tolist()) for t in shards(run.folder, name)]
            for run in (whole, killed)
        )
        assert one == other
    assert (whole.folder / "plans/round-01-target.json").read_bytes() == (
        killed.folder / "plans/round-01-target.json"
    ).read_bytes()
