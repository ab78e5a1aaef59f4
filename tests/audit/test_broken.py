"""Every claim of a run, broken by hand: the audit names it, and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from coevo_jax.audit.audit import run_audit
from coevo_jax.audit.reading import open_files
from coevo_jax.audit.whose import Tasks
from coevo_jax.commands.audit import main
from coevo_jax.commands.cli import run_command
from coevo_jax.report.html import write_report
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_lines,
    edit_metrics,
    edit_record,
    edit_rows,
    finished_once,
    manifest,
    put_manifest,
    put_state,
    states,
    write,
)

pytestmark = pytest.mark.usefixtures("letters")

SHORT = ("warm_start.epochs=4", "explore.tasks=['40:52']", "model.num_layers=1", "evaluate.tasks=':9'")
LEARN, PLAY = "round-01/learn_target", "round-01/evaluate_target"
SHARD = "trajectories/round-01/eval-target-00000-of-00002.parquet"
PAIRS, PLAN = "pairs/round-01-target.jsonl", "plans/round-01-target.json"
REFERENCES = "references/round-01-target.npy"


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *SHORT)


def test_everything_holds_in_a_run_that_kept_its_checkpoints(whole, capsys):
    found = states(whole)
    assert set(found.values()) == {"held"}
    kinds = {name.partition("/")[0] for name in found}
    assert kinds == {
        "whose",
        "tokens",
        "logps",
        "pairs",
        "plan",
        "rates",
        "adam",
        "references",
        "loss",
        "pull",
        "report",
    }
    assert main([str(whole), "--scored", "2"]) == 0
    assert f"{len(found)} held, 0 broken, 0 not checkable" in capsys.readouterr().out


def test_what_is_broken_gives_exit_code_1_and_no_run_gives_2(whole, tmp_path, capsys):
    run = copy(whole, tmp_path)
    edit_lines(run, PAIRS, lambda lines: lines.append(lines[-1]))
    assert main([str(run), "--json", "--scored", "0"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in said if one["state"] == "BROKEN"] == [f"pairs/{LEARN}"]
    with pytest.raises(SystemExit) as stop:
        run_command(main, [str(tmp_path / "none")])
    assert stop.value.code == 2
    assert "error:" in (said := capsys.readouterr().err) and "does not exist" in said


# Each edit, and the checks that it breaks: one alone wherever the claim stands in one place only.
EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


@breaks("whose/files")
def changed_file(run: Path) -> None:
    path = run / "tokenizer/tokenizer_config.json"
    content = path.read_bytes() + b"\n"
    path.unlink()
    path.write_bytes(content)


@breaks(f"whose/{PLAY}")
def swapped_agent(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: rows[3].update(agent="failure"))


@breaks(f"whose/{PLAY}")
def episode_of_another_sample(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: rows[3].update(sample=1))


@breaks(f"whose/{PLAY}")
def blocks_in_another_order(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: rows.reverse())


@breaks(f"whose/{PLAY}", f"report/{PLAY}", "report/results.json", "report/report.html")
def lost_block(run: Path) -> None:
    edit_record(run, PLAY, lambda record: record["files"].pop(SHARD))


@breaks(f"whose/{PLAY}", f"report/{PLAY}", "report/results.json")
def success_without_its_reward(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: one(rows, "failed").update(ending="solved"))


@breaks("whose/experts")
def expert_of_a_task_that_nobody_asked_for(run: Path) -> None:
    path = "trajectories/experts.parquet"
    edit_rows(run, path, lambda rows: rows.append(rows[0] | {"task_id": "train/150"}))


@breaks("whose/checkpoints", f"logps/{PLAY}")
def another_agent_played(run: Path) -> None:
    edit_record(run, PLAY, lambda record: record["records"].update(checkpoint=first_checkpoint(run)))


@breaks("whose/phases", "report/results.json")
def phase_that_no_config_asks_for(run: Path) -> None:
    content = manifest(run)
    content["done"].append({"name": "round-09/rest", "position": 0, "seconds": 0, "files": {}, "records": {}})
    put_manifest(run, content)


@breaks(f"tokens/{PLAY}", f"logps/{PLAY}")
def shifted_mask(run: Path) -> None:
    def shift(rows):
        rows[0]["agent_mask"] = [*rows[0]["agent_mask"][1:], False]

    edit_rows(run, SHARD, shift)


@breaks(f"tokens/{PLAY}")
def another_text(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: rows[0]["turns"][0].update(response="So: Action: look"))


@breaks(f"tokens/{PLAY}")
def another_answer(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: rows[0]["turns"][0].update(observation="c c c c c"))


@breaks(f"logps/{PLAY}")
def less_likely_token(run: Path) -> None:
    def lower(rows):
        place = rows[0]["agent_mask"].index(True)
        rows[0]["logps"][place] -= 0.01

    edit_rows(run, SHARD, lower)


@breaks(f"pairs/{LEARN}")
def doubled_pair(run: Path) -> None:
    edit_lines(run, PAIRS, lambda lines: lines.insert(1, lines[0]))


@breaks(f"pairs/{LEARN}")
def pairs_in_another_order(run: Path) -> None:
    edit_lines(run, PAIRS, lambda lines: lines.reverse())


@breaks(f"pairs/{LEARN}")
def pair_with_another_agents_failure(run: Path) -> None:
    def swap(lines):
        pair = json.loads(lines[0])
        pair["rejected"]["source"] = "hard_negatives"
        lines[0] = json.dumps(pair)

    edit_lines(run, PAIRS, swap)


@breaks(f"plan/{LEARN}")
def wrong_denominator(run: Path) -> None:
    def halve(plan):
        for pair in plan["steps"][1][0]["pairs"]:
            pair["weight"] /= 2

    edit_json(run, PLAN, halve)


@breaks(f"plan/{LEARN}")
def token_trained_twice(run: Path) -> None:
    edit_json(run, PLAN, lambda plan: plan["steps"][1][0]["views"][0].update(tokens=12, weight=12.0))


@breaks(f"plan/{LEARN}")
def another_trajectory_in_the_plan(run: Path) -> None:
    edit_json(run, PLAN, lambda plan: plan["trajectories"][1].update(sample=7))


@breaks(f"plan/{LEARN}", f"rates/{LEARN}")
def pair_left_out_of_a_step(run: Path) -> None:
    edit_json(run, PLAN, lambda plan: plan["steps"][later(plan)][0]["pairs"].pop())


@breaks(f"plan/{LEARN}")
def epoch_that_is_too_short(run: Path) -> None:
    edit_json(run, PLAN, lambda plan: plan["order"][1].pop())


@breaks("plan/warm_start")
def expert_imitated_twice(run: Path) -> None:
    def repeat(plan):
        views = plan["steps"][0][0]["views"]
        views[0]["trajectory"] = views[1]["trajectory"]

    edit_json(run, "plans/warm-start.json", repeat)


@breaks(f"references/{LEARN}")
def stale_reference(run: Path) -> None:
    plan, scores = json.loads((run / PLAN).read_text()), np.load(run / REFERENCES)
    scores[later(plan), 0] += 0.01
    place = run / "new.npy"
    np.save(place, scores)
    write(run, REFERENCES, place.read_bytes())
    place.unlink()


@breaks(f"adam/{LEARN}", f"logps/{PLAY}")
def states_of_another_phase(run: Path) -> None:
    number = next(r["records"]["checkpoint"] for r in manifest(run)["done"] if r["name"] == LEARN)
    other = run / "checkpoints" / str(first_checkpoint(run))
    put_state(run, number, "target", other / "target")


@breaks(f"rates/{LEARN}")
def wrong_rate(run: Path) -> None:
    edit_metrics(run, LEARN, "target/learning_rate", lambda rate: 1.001 * rate, place=2)


@breaks(f"rates/{LEARN}")
def wrong_beta(run: Path) -> None:
    edit_metrics(run, LEARN, "target/beta", lambda beta: 0.5, place=2)


@breaks("rates/warm_start")
def wrong_cosine(run: Path) -> None:
    edit_metrics(run, "warm_start", "warm_start/learning_rate", lambda rate: rate + 1e-6, place=-1)


@breaks(f"loss/{LEARN}")
def another_first_loss(run: Path) -> None:
    edit_metrics(run, LEARN, "target/loss/preference", lambda loss: loss + 0.01)


@breaks(f"loss/{LEARN}")
def another_first_reward_of_a_kind(run: Path) -> None:
    edit_metrics(run, LEARN, "target/rewards/margins/expert_target", lambda margin: margin + 0.01)


@breaks(f"loss/{LEARN}")
def another_mean_of_imitated_tokens(run: Path) -> None:
    edit_metrics(run, LEARN, "target/sft/token_logp", lambda logp: logp + 0.01)


@breaks(f"pull/{LEARN}")
def another_pull_in_the_log(run: Path) -> None:
    edit_metrics(run, LEARN, "target/pull/preference", lambda pull: 2 * pull)


@breaks(f"pull/{LEARN}", "report/results.json", "report/report.html")
def another_pull(run: Path) -> None:
    edit_record(run, LEARN, lambda record: record["records"]["pull"].update(sft=0.9))
    edit_metrics(run, LEARN, "target/pull/sft", lambda _: 0.9)


@breaks(f"plan/{LEARN}")
def another_share_of_padding(run: Path) -> None:
    edit_record(run, LEARN, lambda record: record["records"].update(padding=0.01))
    edit_metrics(run, LEARN, "target/plan/padding", lambda _: 0.01)


@breaks(f"plan/{LEARN}")
def another_number_of_cuts_in_the_log(run: Path) -> None:
    edit_metrics(run, LEARN, "target/plan/cut", lambda cut: cut + 1)


@breaks(f"plan/{LEARN}")
def number_of_steps_that_were_not_taken(run: Path) -> None:
    edit_json(run, PLAN, lambda plan: plan.update(steps_taken=plan["steps_taken"] - 1))


@breaks("loss/warm_start")
def another_first_imitation(run: Path) -> None:
    edit_metrics(run, "warm_start", "warm_start/loss", lambda loss: loss + 0.02)


@breaks(f"report/{PLAY}", "report/results.json", "report/report.html")
def changed_reward(run: Path) -> None:
    edit_rows(run, SHARD, lambda rows: one(rows, "failed").update(reward=0.99))


@breaks(f"report/{PLAY}")
def changed_line_of_the_log(run: Path) -> None:
    edit_metrics(run, PLAY, "rollout/mean_reward", lambda reward: reward + 1e-9)


@breaks(f"report/{PLAY}")
def changed_summary(run: Path) -> None:
    summary = next(r["records"]["summary"] for r in manifest(run)["done"] if r["name"] == PLAY)
    low, high = summary["mean_reward_ci"]
    changed = summary | {"mean_reward_ci": [low, high + 1e-9]}
    edit_record(run, PLAY, lambda record: record["records"].update(summary=changed))


@breaks(f"report/{PLAY}")
def another_number_of_written_tokens(run: Path) -> None:
    edit_record(run, PLAY, lambda record: record["records"].update(agent_tokens=1))


@breaks(f"report/{PLAY}")
def another_number_of_errors(run: Path) -> None:
    edit_record(run, PLAY, lambda record: record["records"]["summary"]["after_error"].update(gave_up=1))


@breaks(f"report/{PLAY}")
def another_number_of_errors_in_the_log(run: Path) -> None:
    edit_metrics(run, PLAY, "rollout/after_error/episodes", lambda count: count + 1)


@breaks(f"report/{PLAY}", "report/results.json", "report/report.html")
def answer_that_is_an_error(run: Path) -> None:
    """The last answer, of which a trajectory has no tokens."""

    def refuse(rows):
        row = next(row for row in rows if len(row["turns"]) > 1 and row["ending"] != "fault")
        row["turns"][-1]["observation"] = "Invalid action"

    edit_rows(run, SHARD, refuse)


@breaks("report/results.json")
def another_pull_in_the_results(run: Path) -> None:
    edit_json(run, "results.json", lambda found: found["pulls"][0].update(preference=0.7))


@breaks("report/results.json")
def errors_that_the_results_leave_out(run: Path) -> None:
    edit_json(run, "results.json", lambda found: found["explorations"][0].update(after_error=None))


@breaks("report/report.html")
def edited_table_of_errors(run: Path) -> None:
    edit_cell(run, "errors", "</td>", 3)


@breaks("report/report.html")
def edited_table_of_pulls(run: Path) -> None:
    edit_cell(run, "pulls", "</td>", 3)


@breaks("report/results.json")
def edited_digit(run: Path) -> None:
    edit_json(run, "results.json", lambda found: found["evaluations"][-1].update(mean_turns=2.0000001))


@breaks("report/results.json")
def another_number_of_pairs(run: Path) -> None:
    edit_json(
        run, "results.json", lambda found: found["pairs"][0].update(count=found["pairs"][0]["count"] + 1)
    )


@breaks("report/report.html")
def edited_table(run: Path) -> None:
    edit_cell(run, "rounds", " %</td>")


def edit_cell(run: Path, section: str, end: str, number: int = 1) -> None:
    """Change the last digit before the so-manieth end of a cell in a section's table."""
    text = (run / "report.html").read_text()
    place = text.index("<tbody>", text.index(f'id="{section}"'))
    for _ in range(number):
        place = text.index(end, place + 1)
    while not text[place].isdigit():
        place -= 1
    digit = str((int(text[place]) + 1) % 10)
    write(run, "report.html", (text[:place] + digit + text[place + 1 :]).encode())


def one(rows, ending: str):
    return next(row for row in rows if row["ending"] == ending)


def first_checkpoint(run: Path) -> int:
    """That of the warm start."""
    return next(r["records"]["checkpoint"] for r in manifest(run)["done"] if r["name"] == "warm_start")


def later(plan) -> int:
    """A step that is not the first one taken."""
    return plan["order"][0][1]


# One of each kind of check; the others are as quick, but many.
QUICK = {
    *("swapped_agent", "lost_block", "shifted_mask", "doubled_pair", "wrong_denominator", "stale_reference"),
    *("wrong_rate", "edited_digit"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EDITS]
)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


def test_what_was_pruned_is_said_and_is_not_broken(whole, tmp_path):
    run = copy(whole, tmp_path)
    shutil.rmtree(run / "checkpoints" / str(first_checkpoint(run)))
    found = states(run)
    assert "BROKEN" not in found.values()
    missing = {name for name, state in found.items() if state == "not checkable"}
    assert {
        "adam/warm_start",
        "logps/round-01/explore_target",
        "references/round-01/learn_failure",
    } <= missing
    assert f"references/{LEARN}" not in missing


@pytest.mark.slow
def test_what_an_earlier_version_did_not_record_is_left_out_and_said(whole, tmp_path):
    run = copy(whole, tmp_path)

    def forget(record):
        record["records"].pop("agent_tokens")
        record["records"]["summary"].pop("after_error")
        record["records"]["summary"]["mean_reward_ci"] = [0.0, 1.0]  # drawn otherwise

    def forget_all(results):
        for entry in (*results["evaluations"], *results["explorations"]):
            entry.pop("after_error")
            entry["mean_reward_ci"] = [0.0, 1.0]

    for record in manifest(run)["done"]:
        if "summary" in record["records"]:
            edit_record(run, record["name"], forget)
    edit_json(run, "results.json", forget_all)
    (run / "report.html").unlink()
    write_report(run)
    found = {check.name: check for check in run_audit(run, 0)}
    assert not [name for name, check in found.items() if check.state == "BROKEN"]
    assert "made by an earlier version" in found[f"report/{PLAY}"].words


def test_tasks_that_stand_in_two_splits_are_named(whole):
    tasks = Tasks(open_files(whole).config)
    assert not list(tasks.split_problems())
    tasks.lists["test"].append(tasks.lists["train"][5])
    assert list(tasks.split_problems()) == ["train and test: found train/5 in both (1 tasks), expected none"]
