"""A run under every budget, with lots, discounts and imitation without a pair; what is broken is named."""

import json
from pathlib import Path

import pytest

from coevo_jax.audit.audit import run_audit
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    broken,
    collected,
    copy,
    edit_json,
    edit_lines,
    edit_record,
    edit_rows,
    finished,
    finished_once,
    manifest,
    states,
)
from tests.audit.recipes import AMONG, FIRST, alone, better_over_worse, imitate

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

BUDGETED = (
    *("warm_start.epochs=4", "model.num_layers=1", "evaluate.tasks=':5'"),
    "explore={tasks: ['40:52'], samples: 9, block_tasks: 5, temperature: 1.0}",
    alone(FIRST, better_over_worse("target", **AMONG), imitate("experts", "target", weight=0.3)),
    *("agents.target.max_pairs_per_kind=5", "agents.target.pairs_kept=drawn", "agents.target.ld_alpha=0"),
    *("agents.target.turn_discount=0.5", "batch.step_pairs=8"),
    "budget={pairs: [20], explored_tokens: [900], learned_tokens: [3000]}",
)
EXPLORE, LEARN = "round-01/explore_target", "round-01/learn_target"
PAIRS, PLAN = "pairs/round-01-target.jsonl", "plans/round-01-target.json"


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *BUDGETED)


def test_a_run_under_every_budget_holds(whole):
    found = states(whole)
    assert set(found.values()) == {"held"}, {name for name, state in found.items() if state != "held"}
    assert {f"budget/{EXPLORE}", f"budget/{LEARN}"} <= set(found)
    shards = sorted(whole.glob("trajectories/round-01/target-*.parquet"))
    assert len(shards) == 27  # nine samples of three blocks, the last ones empty
    record = phase(whole, LEARN)
    assert record["records"]["budget"]["pairs"] == {"asked": 20, "reached": 20}


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


@breaks(f"budget/{EXPLORE}")
def explored_tokens_that_were_not_written(run: Path) -> None:
    edit_record(run, EXPLORE, lambda record: budget(record, "explored_tokens").update(reached=899))


@breaks(f"budget/{EXPLORE}")
def budget_that_nobody_asked_for(run: Path) -> None:
    edit_record(run, EXPLORE, lambda record: budget(record, "explored_tokens").update(asked=800))


@breaks(f"budget/{LEARN}")
def learned_tokens_that_were_not_learned(run: Path) -> None:
    edit_record(run, LEARN, lambda record: budget(record, "learned_tokens").update(reached=3001))


@breaks(f"budget/{LEARN}")
def pairs_that_were_not_reached(run: Path) -> None:
    edit_record(run, LEARN, lambda record: budget(record, "pairs").update(reached=19))


@breaks(f"budget/{LEARN}")
def budget_that_is_not_recorded(run: Path) -> None:
    edit_record(run, LEARN, lambda record: record["records"].pop("budget"))


@breaks(f"plan/{LEARN}")
def steps_beyond_the_budget(run: Path) -> None:
    edit_json(run, PLAN, lambda plan: plan.update(steps_taken=plan["steps_taken"] + 1))


@breaks(f"pairs/{LEARN}")
def pair_with_another_lot(run: Path) -> None:
    def swap(lines):
        pair = json.loads(lines[0])
        pair["rejected"]["sample"] = 8
        lines[0] = json.dumps(pair)

    edit_lines(run, PAIRS, swap)


@breaks(f"plan/{LEARN}")
def tokens_with_weight_0_that_do_not_count(run: Path) -> None:
    """As a count of the weights above 0 has it."""

    def count(plan):
        lengths = {}
        for micro in (micro for step in plan["steps"] for micro in step):
            for view in micro["views"]:
                lengths.setdefault(view["trajectory"], []).append(view)
        views = next(own for own in lengths.values() if len({view["weight"] for view in own}) > 1)
        min(views, key=lambda view: view["weight"])["tokens"] -= 1

    edit_json(run, PLAN, count)


@breaks(f"plan/{LEARN}", f"pull/{LEARN}")
def imitation_without_a_pair_as_the_mean_over_pairs(run: Path) -> None:
    def divide(plan):
        step = plan["steps"][plan["order"][0][1]]
        chosen = {pair["chosen"] for pair in step[0]["pairs"]}
        view = next(v for v in step[0]["views"] if v["sft_weight"] and v["n"] not in chosen)
        view["sft_weight"] *= 0.5

    edit_json(run, PLAN, divide)


@breaks(
    *(
        f"whose/{EXPLORE}",
        f"budget/{EXPLORE}",
        f"report/{EXPLORE}",
        "report/results.json",
        "report/report.html",
    )
)
def block_behind_the_last(run: Path) -> None:
    """A whole one, of the next sample with the tokens of the last: of these nothing more is learned."""
    empty = next(number for number in range(27) if not rows_of(run, number))
    rows = rows_of(run, empty - 3)
    for row in rows:
        row["sample"] += 1
    edit_rows(run, shard(empty), lambda found: found.extend(rows))


def budget(record, name: str):
    return record["records"]["budget"][name]


def phase(run: Path, name: str):
    return next(record for record in manifest(run)["done"] if record["name"] == name)


def shard(number: int) -> str:
    return f"trajectories/round-01/target-{number:05d}-of-00027.parquet"


def rows_of(run: Path, number: int):
    found = []
    edit_rows(run, shard(number), found.extend)
    return found


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


def test_too_little_is_held_and_said(tmp_path):
    asked = "budget={pairs: [900], explored_tokens: [90000], learned_tokens: [200]}"
    run = finished(tmp_path, *BUDGETED[:-1], "explore.samples=2", asked)
    found = {one.name: one for one in run_audit(run, 0)}
    assert {one.state for one in found.values()} == {"held"}
    assert "of 90,000 explored tokens asked for, too few" in found[f"budget/{EXPLORE}"].words
    said = found[f"budget/{LEARN}"].words
    assert "of 900 pairs asked for, too few" in said and "of 200 learned tokens asked for" in said


def test_a_run_that_stopped_exploring_too_soon_is_named(whole, tmp_path):
    run = copy(whole, tmp_path)
    last = max(number for number in range(27) if rows_of(run, number))
    edit_rows(run, shard(last), list.clear)
    found = broken(run)
    assert "more to be had, expected 900" in found[f"budget/{EXPLORE}"]
    assert f"whose/{EXPLORE}" in found
