"""Runs of agent-r: searched, judged by a scripted actor, audited, edited and killed in mid-search."""

import json
from pathlib import Path

import pytest

import coevo_jax.phases.explore as explore_module
from coevo_jax.config.recipe import BranchPhase
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.rollout import QuestionSet, play_together
from coevo_jax.run_folder.run import create_run
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_record,
    edit_rows,
    end,
    finished_once,
    manifest,
    states,
)
from tests.audit.recipes import evaluate, explore, imitate, learn, recipe
from tests.tiny import SPELLING, coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("spelling"), pytest.mark.slow]

SHORT = (
    *("env={name: spelling}", "model.num_layers=1", "evaluate.tasks=':9'"),
    *("warm_start.epochs=14", "explore.tasks=['40:52']", "explore.samples=1"),
    *("batch.row_length=384", "rollout.max_tokens=384", "explore.temperature=1.3"),
)
SEARCHED, JUDGED, LEARNED = "round-01/branch_tree", "round-01/ask_verdicts", "round-01/learn_target"
PLAN = "plans/round-01-target.json"


def searched(**options):
    branch = {"agent": "target", "of": ["target"], "into": "tree", "at": "promising_nodes", "samples": 2}
    return {"branch": branch | {"iterations": 3} | options}


def asked(**options):
    ask = {"agent": "target", "of": ["target", "tree"], "question": "good_or_bad", "into": "verdicts"}
    return {"ask": ask | options}


METHODS: dict[str, tuple[str, ...]] = {
    "agent-r": ("recipe=agent-r", "recipe.branch_tree.iterations=3", "recipe.branch_tree.samples=2"),
    "agent-r-reward": (
        *("recipe=agent-r-reward", "env.options={drifts: 5}"),
        *("recipe.learn_target.revisions.threshold=0.7", "recipe.branch_tree.iterations=5"),
    ),
    "direct, other options": (
        recipe(
            explore("target"),
            searched(depth=3, exploration=1.0),
            learn(
                "target",
                imitate(
                    *("revisions", "target", "tree"),
                    **{
                        "weight": 0.7,
                        "transition": "direct",
                        "alpha": [0.3, 0.6],
                        "beta": 0.1,
                        "per_task": 3,
                    },
                    **{"thoughts": ["No.", "Not so."], "action": "look", "answer": "fine", "draw_seed": 7},
                ),
                imitate("good_paths", "tree", weight=0.3, alpha=[0.4], per_task=1),
            ),
            evaluate("target"),
        ),
        "rounds=2",
        "explore.tasks=['40:46', '46:52']",
    ),
    "one iteration": (
        recipe(
            explore("target"),
            searched(iterations=1, samples=4),
            asked(alpha=[0.3], beta=0.0, instruction="Bad?"),
            learn(
                "target",
                imitate("revisions", "target", "tree", "verdicts", weight=1.0, alpha=[0.3], beta=0.0),
            ),
            evaluate("target"),
        ),
    ),
}


@pytest.fixture(scope="module")
def spelling():
    from coevo_jax.envs.registry import ENVIRONMENTS

    def judging(engine, pool, chat, casts, **options):
        """An agent that finds every second action that it is asked about bad, and plays as it does."""
        if isinstance(casts[0], QuestionSet):
            own: dict[str, list[list[int]]] = {}
            for one in casts[0].questions:
                own[one.task.id] = [chat.response_ids("Bad" if len(one.asked.text) % 2 else "Good")]
            options["script"] = own
        return play_together(engine, pool, chat, casts, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "spelling", SPELLING)
        patch.setattr(explore_module, "play_together", judging)
        yield


@pytest.fixture(scope="module")
def runs(spelling, tmp_path_factory):
    """The run of a method, made once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = finished_once(tmp_path_factory, *SHORT, *METHODS[name], world="judging")
        return made[name]

    return of


def record(run: Path, name: str):
    return next(one["records"] for one in manifest(run)["done"] if one["name"] == name)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_searches_holds_and_learns_revisions(name, runs):
    run = runs(name)
    found = states(run)
    assert set(found.values()) == {"held"}, {name: state for name, state in found.items() if state != "held"}
    noted = record(run, LEARNED)["noted"]["revisions"]
    made = sum(count for what, count in noted.items() if what.startswith("cut behind"))
    plan = json.loads((run / PLAN).read_text())
    views = [view for step in plan["steps"] for micro in step for view in micro["views"]]
    weighed = sum("turns" in view for view in views)
    left_out = len(record(run, LEARNED)["too_long"])
    assert 3 < weighed <= made <= weighed + left_out + 3  # two good paths may end alike
    assert noted["pairs"] >= made
    trees = record(run, SEARCHED).get("trees")
    assert name == "one iteration" or (trees["depth"] >= 2 and trees["expanded"] > 12)


def tree(run: Path) -> list[str]:
    """The shards of a run's search."""
    return sorted(str(path.relative_to(run)) for path in run.glob("trajectories/round-01/tree-*"))


def test_a_search_goes_deeper_where_rewards_are_higher(runs):
    run = runs("agent-r-reward")
    branches = read_trajectories([run / path for path in tree(run)])
    assert len(tree(run)) == 5 * 2
    left = [one.branch for one in branches if one.branch]
    assert len(left) == len(branches) and {one.collection for one in left} == {"target", "tree"}
    assert [one.turns for one in left[:28]] == [0] * 28  # the first iteration is at the tasks' starts
    assert max(one.turns for one in left) > 2
    assert {one.task_id for one in branches if one.ending == "lost"} == {"train/40", "train/45", "train/50"}


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


@breaks(f"plan/{LEARNED}", f"references/{LEARNED}")
def bad_turn_that_is_learned(run: Path) -> None:
    def change(plan):
        views = (view for step in plan["steps"] for micro in step for view in micro["views"])
        weighed = next(view for view in views if 0.0 in view.get("turns", ()))
        weighed["turns"] = [1.0] * len(weighed["turns"])

    edit_json(run, PLAN, change)


@breaks(f"plan/{LEARNED}")
def pairs_that_nobody_dropped(run: Path) -> None:
    edit_record(run, LEARNED, lambda one: one["records"]["noted"]["revisions"].pop("no bad action"))


@breaks(f"whose/{SEARCHED}")
def tree_of_another_size(run: Path) -> None:
    edit_record(run, SEARCHED, lambda one: one["records"]["trees"].update(nodes=3))


@breaks(f"whose/{JUDGED}", f"tokens/{JUDGED}")
def question_of_another_turn(run: Path) -> None:
    path = "trajectories/round-01/verdicts-00000-of-00002.parquet"
    edit_rows(run, path, lambda rows: rows[0].update(prompt=rows[0]["prompt"] + "!"))


@breaks(f"plan/{LEARNED}", f"tokens/{JUDGED}")
def verdict_that_was_another(run: Path) -> None:
    """What an action was called decides where a path is cut."""
    path = "trajectories/round-01/verdicts-00000-of-00002.parquet"

    def change(rows):
        for row in rows:
            if row["turns"]:
                row["turns"][0]["response"] = "Good"

    edit_rows(run, path, change)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, runs, tmp_path):
    run = copy(runs("agent-r"), tmp_path)
    change, names = EDITS[name]
    change(run)
    assert_named_alone(run, names)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_was_killed_in_mid_search_ends_in_the_same_bytes(when, runs, tmp_path, monkeypatch):
    def of_search(found) -> bool:
        return found.running is not None and "branch_tree" in found.running.name

    whole = runs("agent-r")  # made before anything is killed
    kill_at_commits(monkeypatch, when, first=2, every=2, counted=of_search)
    config = tiny_config(tmp_path, *SHORT, *METHODS["agent-r"], "checkpoint.keep=all")
    assert any(isinstance(phase, BranchPhase) and phase.branch.iterations == 3 for phase in config.recipe)
    run, kills = coevolve_through_kills(create_run(config))
    assert kills >= 2
    killed = end(run)
    assert tree(killed) == tree(whole)
    for path in (PLAN, *tree(whole)):
        assert (killed / path).read_bytes() == (whole / path).read_bytes(), path
    assert set(states(killed).values()) == {"held"}
