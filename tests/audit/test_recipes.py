"""Runs of recipes that nobody ships: what is broken is named, what is not known is said to be so."""

import json
from pathlib import Path

import pytest

from coevo_jax.audit.audit import run_audit
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
    finished,
    finished_once,
    manifest,
    put_state,
)
from tests.audit.recipes import (
    FIRST,
    alone,
    better_over_worse,
    evaluate,
    expert_over,
    explore,
    imitate,
    learn,
    recipe,
)

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

SHORT = ("warm_start.epochs=5", "explore.tasks=['40:52']", "model.num_layers=1", "evaluate.tasks=':9'")
TWICE = recipe(
    explore("student", "homework"),
    explore("helper"),
    learn("helper", better_over_worse("homework", "helper", across=True)),
    learn(
        "student", expert_over("homework", "helper"), imitate("experts", "homework", weight=0.4), name="first"
    ),
    explore("helper", "traps"),
    learn("student", expert_over("traps", kind="over_traps", sft=0.0), name="second"),
    evaluate("student"),
    evaluate("helper"),
)
HELPER, FIRSTLY, SECONDLY = "round-01/learn_helper", "round-01/learn_first", "round-01/learn_second"


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *SHORT, TWICE)


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


@breaks("whose/round-01/explore_homework")
def played_by_the_other_agent(run: Path) -> None:
    path = "trajectories/round-01/homework-00000-of-00002.parquet"
    edit_rows(run, path, lambda rows: rows[2].update(agent="helper"))


@breaks(f"pairs/{HELPER}")
def side_of_another_collection(run: Path) -> None:
    def swap(lines):
        pair = json.loads(lines[0])
        pair["rejected"]["source"] = pair["chosen"]["source"]
        lines[0] = json.dumps(pair)

    edit_lines(run, "pairs/round-01-helper.jsonl", swap)


@breaks(f"pairs/{SECONDLY}")
def kind_of_another_source(run: Path) -> None:
    def rename(lines):
        lines[0] = json.dumps(json.loads(lines[0]) | {"kind": "expert_over"})

    edit_lines(run, "pairs/round-01-second.jsonl", rename)


@breaks(f"plan/{SECONDLY}", f"pull/{SECONDLY}")
def weight_of_the_other_learning(run: Path) -> None:
    """Its pairs are not imitated; those of the first learning are."""

    def imitated(plan):
        micro = plan["steps"][plan["order"][0][-1]][0]
        place = micro["pairs"][0]["chosen"]
        next(view for view in micro["views"] if view["n"] == place)["sft_weight"] = 0.01

    edit_json(run, "plans/round-01-second.json", imitated)


@breaks("whose/checkpoints", f"references/{SECONDLY}")
def second_learning_that_began_before_the_first(run: Path) -> None:
    number = record(run, FIRSTLY)["began_with"]
    edit_record(run, SECONDLY, lambda one: one["records"].update(began_with=number))


@breaks(f"adam/{FIRSTLY}", f"references/{SECONDLY}")
def states_of_the_other_agent(run: Path) -> None:
    """The helper's, after the first learning: it took other steps, and the second did not begin with it."""
    number = record(run, FIRSTLY)["checkpoint"]
    put_state(run, number, "student", run / "checkpoints" / str(number) / "helper")


@breaks(f"loss/{SECONDLY}")
def another_margin_of_a_kind(run: Path) -> None:
    edit_metrics(run, SECONDLY, "student/rewards/margins/over_traps", lambda margin: margin + 0.01)


@breaks(f"rates/{FIRSTLY}")
def another_beta(run: Path) -> None:
    edit_metrics(run, FIRSTLY, "student/beta", lambda beta: 2 * beta, place=1)


@breaks("report/results.json")
def warm_start_of_another_agent(run: Path) -> None:
    """All agents are the same there."""

    def change(results):
        entry = results["evaluations"][1]
        assert (entry["round"], entry["agent"]) == (0, "helper")
        entry["mean_turns"] += 1

    edit_json(run, "results.json", change)


@breaks("report/results.json")
def another_lead(run: Path) -> None:
    edit_json(run, "results.json", lambda results: results["agents"].reverse())


def record(run: Path, name: str):
    return next(one["records"] for one in manifest(run)["done"] if one["name"] == name)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


OWN = "tests.audit.own_builders:late_over_early"
OWN_IMITATION = "tests.audit.own_builders:first_samples"


@pytest.mark.parametrize(
    "sources, unknown, kinds",
    [
        (
            [FIRST, {"pairs": OWN, "of": "target", "gap": 1, "sft": 0.1}],
            OWN,
            {"pairs", "plan", "references", "loss", "pull"},
        ),
        (
            [FIRST, {"imitate": OWN_IMITATION, "of": "target", "weight": 0.2}],
            OWN_IMITATION,
            {"plan", "references", "loss", "pull"},
        ),
    ],
    ids=["pairs", "imitation"],
)
def test_what_a_builder_of_the_users_own_makes_is_not_checkable(sources, unknown, kinds, tmp_path):
    found = {one.name: one for one in run_audit(finished(tmp_path, *SHORT, alone(*sources)))}
    others = {name: one for name, one in found.items() if one.state != "held"}
    assert set(others) == {f"{kind}/round-01/learn_target" for kind in kinds}, others
    assert all(one.state == "not checkable" and unknown in one.words for one in others.values())
