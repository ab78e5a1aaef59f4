"""Runs that learn from the turn where two sides part: what the audit derives, and what it finds broken."""

import json
from pathlib import Path

import pytest

from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    broken,
    collected,
    copy,
    edit_lines,
    edit_rows,
    finished_once,
    states,
)
from tests.audit.recipes import alone

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

SHORT = (
    *("warm_start.epochs=9", "explore.tasks=['40:60']", "explore.samples=6", "model.num_layers=1"),
    *("evaluate.tasks=':9'", "agents.target.max_pairs_per_kind=9"),
    *("batch.row_length=256", "rollout.max_tokens=256"),  # room for a turn behind one of nonsense
)
KEPT = {"of": ["target"], "dpo": 0.5, "sft": 0.5}
SOURCES = alone(
    {"pairs": "expert_over_at_parting", "kind": "expert_target", "error_discount": 0.5} | KEPT,
    {"pairs": "success_over_failure_at_parting", "kind": "success_failure", "cut_after_error": 0} | KEPT,
)
PHASE, PAIRS = "round-01/learn_target", "pairs/round-01-target.jsonl"


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *SHORT, SOURCES)


def lines(run: Path):
    return [json.loads(line) for line in (run / PAIRS).read_text().splitlines()]


def test_a_run_from_where_sides_part_holds(whole):
    found = states(whole)
    assert set(found.values()) == {"held"}, {name: state for name, state in found.items() if state != "held"}
    pairs = lines(whole)
    assert {line["kind"] for line in pairs} == {"expert_target", "success_failure"}
    assert {line.get("chosen_from", 0) for line in pairs} == {0, 1}
    assert all(line.get("chosen_from") == line.get("rejected_from") for line in pairs)
    discounted = [line["rejected_turns"] for line in pairs if "rejected_turns" in line]
    assert discounted and all(weights[-1] < 1 for weights in discounted)


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


def change_line(run: Path, key: str, **values) -> None:
    def change(text):
        place = next(i for i, line in enumerate(text) if key in line)
        text[place] = json.dumps(json.loads(text[place]) | values)

    edit_lines(run, PAIRS, change)


@breaks(f"pairs/{PHASE}")
def a_pair_from_an_earlier_turn(run: Path) -> None:
    change_line(run, "rejected_from", rejected_from=7)


@breaks(f"pairs/{PHASE}")
def a_failure_that_weighs_as_much_behind_its_error(run: Path) -> None:
    change_line(run, "rejected_turns", rejected_turns=[1.0, 1.0])


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


def test_another_first_response_of_an_expert_moves_where_its_pairs_part(whole, tmp_path):
    """The pairs are derived from the texts: they part in the first turn where one was changed."""
    run = copy(whole, tmp_path)
    task = next(line["task_id"] for line in lines(run) if line.get("chosen_from"))

    def change(rows):
        row = next(row for row in rows if row["task_id"] == task)
        row["turns"][0]["response"] = "Action: lock"

    edit_rows(run, "trajectories/experts.parquet", change)
    assert f"pairs/{PHASE}" in broken(run)
