"""Runs that learn from branches, in an environment of several turns: what is broken in one is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from coevo_jax.run_folder.run import create_run
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_lines,
    edit_record,
    edit_rows,
    end,
    finished_once,
    states,
)
from tests.audit.recipes import evaluate, explore, learn, recipe
from tests.tiny import SPELLING, coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("spelling"), pytest.mark.slow]

SHORT = (
    *("env={name: spelling}", "model.num_layers=1", "evaluate.tasks=':9'"),
    *("warm_start.epochs=14", "explore.tasks=['40:60']"),
)


def branch(agent: str, into: str, at: str, *of: str, **options: Any) -> dict[str, Any]:
    return {"branch": {"agent": agent, "into": into, "at": at, "of": list(of)} | options}


def verified(*of: str, **options: Any) -> dict[str, Any]:
    return {
        "pairs": "verified_branch",
        "of": list(of),
        "kind": "critical_step",
        "dpo": 0.5,
        "sft": 0.5,
    } | options


def refined(only: str, **options: Any) -> dict[str, Any]:
    own = {"of": ["own", "rollouts"], "kind": only, "only": only, "dpo": 1.0, "sft": 1.0}
    return {"pairs": "step_and_outcome"} | own | options


TRIED = (explore("target"), branch("target", "branches", "failed_turns", "target", samples=2))
SCORED = (
    branch("target", "own", "expert_turns", temperature=1.0),
    branch("scorer", "rollouts", "turn_ends", "own", samples=3),
)
DRIFTS = "env.options={drifts: 7}"  # some beginnings do not come back the same
METHODS: dict[str, tuple[str, ...]] = {
    "cso": ("recipe=cso", "explore.block_tasks=2"),
    **{name: (f"recipe={name}",) for name in ("cso-expert", "eef")},
    "ipr": ("recipe=ipr", "warm_start.epochs=4", "agents.target.max_pairs_per_kind=2"),
    "branches of branches, some of each": (
        recipe(
            *TRIED,
            branch("target", "again", "failed_turns", "branches", count=2, first=1),
            learn(
                "target",
                verified("target", "branches", per_failure=2, threshold=0.5),
                verified("branches", "again", kind="second", threshold=0.6),
            ),
            evaluate("target"),
        ),
        DRIFTS,
    ),
    "another agent proposes": (
        recipe(
            explore("target"),
            branch("other", "proposals", "failed_turns", "target", turns=1, samples=2),
            branch("target", "branches", "agent_proposals", "target", "proposals"),
            learn("target", verified("target", "branches")),
            evaluate("target"),
        ),
        DRIFTS,
    ),
    "the agent may win, at any step": (
        recipe(
            *SCORED,
            learn(
                "target",
                refined("outcomes", agent_wins=True),
                refined("steps", agent_wins=True, tau=0.0, first=0, same_steps=True),
            ),
            evaluate("target"),
        ),
        DRIFTS,
    ),
    "all solutions without the experts' turns": (
        recipe(
            explore("target"),
            branch("target", "recovered", "expert_turns", count=3, first=1, samples=2),
            learn(
                "target",
                {
                    "imitate": "beneficial_segments",
                    "of": ["target", "recovered"],
                    "weight": 1.0,
                    "solutions": "all",
                    "beneficial": False,
                },
            ),
            evaluate("target"),
        ),
    ),
}
PLAN, PAIRS = "plans/round-01-target.json", "pairs/round-01-target.jsonl"


@pytest.fixture(scope="module")
def spelling():
    from coevo_jax.envs.registry import ENVIRONMENTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "spelling", SPELLING)
        yield


@pytest.fixture(scope="module")
def runs(spelling, tmp_path_factory):
    """The run of a method, made once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = finished_once(tmp_path_factory, *SHORT, *METHODS[name])
        return made[name]

    return of


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_learns_from_branches_holds_and_learns_something(name, runs):
    run = runs(name)
    found = states(run)
    assert set(found.values()) == {"held"}, {name: state for name, state in found.items() if state != "held"}
    plan = json.loads((run / PLAN).read_text())
    views = [view for step in plan["steps"] for micro in step for view in micro["views"]]
    assert any("turns" in view and 0.0 in view["turns"] for view in views)


def branches(run: Path) -> list[str]:
    """The shards of a run's collection of branches, by their paths in it."""
    return sorted(str(path.relative_to(run)) for path in run.glob("trajectories/round-01/branches-*"))


EDITS: dict[str, dict[str, tuple[Edit, set[str]]]] = {"cso": {}, "cso-expert": {}, "ipr": {}, "eef": {}}
PHASE = "round-01/learn_target"


@collected(EDITS["cso"])(f"pairs/{PHASE}")
def pair_from_another_turn(run: Path) -> None:
    def change(text):
        text[-1] = json.dumps(json.loads(text[-1]) | {"chosen_from": 4, "rejected_from": 4})

    edit_lines(run, PAIRS, change)


@collected(EDITS["cso"])(f"pairs/{PHASE}")
def share_of_other_turns(run: Path) -> None:
    edit_record(run, PHASE, lambda one: one["records"]["pairs"][0].update(critical_turn_share=0.99))


@collected(EDITS["cso-expert"])("whose/round-01/branch_branches", "tokens/round-01/branch_branches")
def step_that_nobody_proposed(run: Path) -> None:
    def change(rows):
        row = next(row for row in rows if row["ending"] != "lost")
        row["turns"][row["branch"]["turns"]]["response"] += "!"
        row["turns"][row["branch"]["turns"]]["action"] = ""

    edit_rows(run, branches(run)[0], change)


@collected(EDITS["ipr"])(f"pairs/{PHASE}")
def step_pair_that_stands_twice(run: Path) -> None:
    def change(text):
        place = next(i for i, line in enumerate(text) if "chosen_from" in line)
        text.insert(place, text[place])

    edit_lines(run, PAIRS, change)


@collected(EDITS["eef"])(f"plan/{PHASE}", f"references/{PHASE}")
def harmful_turn_that_is_learned(run: Path) -> None:
    def change(plan):
        views = (view for step in plan["steps"] for micro in step for view in micro["views"])
        weighed = next(view for view in views if 0.0 in view.get("turns", ()))
        weighed["turns"] = [1.0] * len(weighed["turns"])

    edit_json(run, PLAN, change)


@pytest.mark.parametrize("name, edit", [(name, edit) for name, edits in EDITS.items() for edit in edits])
def test_what_is_broken_is_named_alone(name, edit, runs, tmp_path):
    run = copy(runs(name), tmp_path)
    change, names = EDITS[name][edit]
    change(run)
    assert_named_alone(run, names)


def test_a_run_that_was_killed_while_it_branched_ends_in_the_same_numbers(runs, tmp_path, monkeypatch):
    def of_branches(manifest) -> bool:
        return manifest.running is not None and "branch_" in manifest.running.name

    whole = runs("cso")  # made before anything is killed
    kill_at_commits(monkeypatch, "before", first=1, every=2, counted=of_branches)
    config = tiny_config(tmp_path, *SHORT, *METHODS["cso"], "checkpoint.keep=all")
    run, kills = coevolve_through_kills(create_run(config))
    assert kills >= 1
    killed = end(run)
    assert branches(killed) == branches(whole)
    for path in (PAIRS, PLAN, *branches(whole)):
        assert (killed / path).read_bytes() == (whole / path).read_bytes(), path
    assert set(states(killed).values()) == {"held"}
