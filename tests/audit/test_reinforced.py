"""Runs that reinforce: the audit derives advantages, weights and the first step, and names what is broken."""

from pathlib import Path

import pytest

from coevo_jax.audit.audit import run_audit
from coevo_jax.audit.reinforced_plans import advantage_problems
from coevo_jax.coevolution import coevolve
from coevo_jax.run_folder.run import create_run
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_metrics,
    edit_record,
    edit_rows,
    finished,
    finished_once,
    states,
)
from tests.audit.recipes import FIRST, alone, evaluate, explore, imitate, learn, override, recipe
from tests.measured import curve
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

SHORT = ("warm_start.epochs=5", "explore.tasks=['40:52']", "model.num_layers=1", "evaluate.tasks=':9'")
SAMPLED = (*SHORT, "explore.samples=4")
LEARN, PLAN = "round-01/learn_target", "plans/round-01-target.json"


def reinforce(builder: str, *of: str, **options) -> dict:
    return {"reinforce": builder, "of": list(of or ("target",))} | options


def surrogate(**options) -> str:
    return override("agents.target.surrogate", options)


OPTIONS = {
    "grpo": (alone(reinforce("grpo")), surrogate(reduction="trajectory", skip_zero=True)),
    "history, tied to the warm start, refreshed": (
        alone(
            reinforce(
                "gigpo",
                anchor="history",
                norm="population_std",
                over="turns",
                omega=0.5,
                gamma=0.8,
                weight=0.7,
            )
        ),
        surrogate(kl=0.5, reduction="turn", clip_low=0.05, clip_high=0.1),
        *("agents.target.reference=warm_start", "agents.target.reference_every=3", "rounds=2"),
        *("batch.step_episodes=10", "agents.target.learning_rate=[1e-3]"),
    ),
    "beside pairs and imitation": (
        alone(reinforce("gigpo"), FIRST, imitate("experts", "target", weight=0.3)),
        surrogate(kl=0.1),
        "batch.step_pairs=12",
    ),
    "beside pairs without a tie, two sources": (
        alone(reinforce("gigpo"), reinforce("grpo", weight=0.2), FIRST),
        "agents.target.epochs=1",
    ),
    "samples of two agents": (
        recipe(
            explore("target"),
            explore("helper"),
            learn("helper", reinforce("grpo", "helper")),
            learn("target", reinforce("gigpo", "target", "helper", norm="sample_std")),
            evaluate("target"),
            evaluate("helper"),
        ),
    ),
    "in bfloat16": (alone(reinforce("gigpo")), "model.dtype=bfloat16"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_reinforced_holds(name, tmp_path):
    run = finished(tmp_path, *SAMPLED, *OPTIONS[name])
    found = states(run)
    assert set(found.values()) == {"held"}, {one: state for one, state in found.items() if state != "held"}
    assert f"reinforced/{LEARN}" in found and f"loss/{LEARN}" in found


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *SAMPLED, alone(reinforce("gigpo")), "agents.target.epochs=1")


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


def test_what_rounding_leaves_where_two_terms_cancel_is_no_advantage():
    found = [[0.0, 2], [-1.1e-16, 1], [0.5, 1]]
    assert not [*advantage_problems("n 0", found, [0.0, 0.0, 0.0, 0.5])]
    assert [*advantage_problems("n 0", found, [0.0, 0.1, 0.1, 0.5])] == [
        "n 0: advantage: found 0, expected 0.1"
    ]
    assert [*advantage_problems("n 0", found, [0.0] * 3)] == [
        "n 0: advantages: found [[0.0, 2], [-1.1e-16, 1], [0.5, 1]], expected [[0.0, 3]]"
    ]


def first_view(plan) -> dict:
    """A view of the first step that is taken, with an advantage."""
    views = [view for micro in plan["steps"][plan["order"][0][0]] for view in micro["views"]]
    return next(view for view in views if view["advantages"][0][0])


@breaks(f"reinforced/{LEARN}")
def advantage_of_the_other_sign(run: Path) -> None:
    def turn(plan):
        first_view(plan)["advantages"][0][0] *= -1

    edit_json(run, PLAN, turn)


@breaks(f"reinforced/{LEARN}")
def advantage_of_a_token_more(run: Path) -> None:
    def widen(plan):
        first_view(plan)["advantages"][0][1] += 1

    edit_json(run, PLAN, widen)


@breaks(f"reinforced/{LEARN}")
def weight_of_a_smaller_step(run: Path) -> None:
    def weigh(plan):
        first_view(plan)["reinforce_weight"] *= 1.01

    edit_json(run, PLAN, weigh)


@breaks(f"reinforced/{LEARN}")
def imitated_beside(run: Path) -> None:
    def imitated(plan):
        first_view(plan)["sft_weight"] = 0.01

    edit_json(run, PLAN, imitated)


@breaks(f"reinforced/{LEARN}")
def share_of_anchor_groups(run: Path) -> None:
    def change(record):
        record["records"]["reinforced"][0]["anchored"] += 0.01

    edit_record(run, LEARN, change)


@breaks(f"reinforced/{LEARN}")
def logged_deviation(run: Path) -> None:
    edit_metrics(run, LEARN, "target/reinforced/gigpo/advantage_std", lambda value: value + 0.01)


@breaks(f"loss/{LEARN}")
def another_surrogate(run: Path) -> None:
    edit_metrics(run, LEARN, "target/loss/surrogate", lambda loss: loss + 0.02)


@breaks(f"loss/{LEARN}")
def another_ratio(run: Path) -> None:
    edit_metrics(run, LEARN, "target/ratio", lambda ratio: ratio + 0.02)


@breaks(f"loss/{LEARN}")
def clipped_tokens(run: Path) -> None:
    edit_metrics(run, LEARN, "target/clip_ratio/region_mean", lambda share: share + 0.02)


@breaks("logps/round-01/explore_target", f"loss/{LEARN}")
def stored_log_probabilities(run: Path) -> None:
    """Those that ratios divide by."""

    def lower(rows):
        for row in rows:
            row["logps"] = [
                logp - 0.5 * own for logp, own in zip(row["logps"], row["agent_mask"], strict=True)
            ]

    for number in range(2):
        edit_rows(run, f"trajectories/round-01/target-0000{number}-of-00002.parquet", lower)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


OWN = "tests.audit.own_builders:only_the_last_turn"


def test_what_a_builder_of_the_users_own_reinforces_is_not_checkable(tmp_path):
    found = {
        one.name: one for one in run_audit(finished(tmp_path, *SAMPLED, alone(reinforce(OWN, bonus=0.5))))
    }
    others = {name: one for name, one in found.items() if one.state != "held"}
    assert set(others) == {f"{kind}/{LEARN}" for kind in ("plan", "reinforced", "loss")}, others
    assert all(one.state == "not checkable" and OWN in one.words for one in others.values())


KILLED = (
    alone(reinforce("gigpo")),
    surrogate(kl=0.5, reduction="turn"),
    *("agents.target.reference_every=3", "batch.step_episodes=10", "checkpoint.every_steps=2"),
    "agents.target.learning_rate=[1e-3]",
)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_run_ends_in_the_same_bits(when, tmp_path, monkeypatch):
    """Killed at commits in the middle of learning, with references of tokens that are read again."""
    unhurt = create_run(tiny_config(tmp_path / "whole", *SAMPLED, *KILLED))
    coevolve(unhurt)
    kill_at_commits(monkeypatch, when, first=5, every=3)
    run, kills = coevolve_through_kills(create_run(tiny_config(tmp_path / "killed", *SAMPLED, *KILLED)))
    assert kills > 2
    assert curve(run.folder) == curve(unhurt.folder)
    for pattern in ("trajectories/**/*.parquet", "plans/*.json", "references/*.npy"):
        names = sorted(path.relative_to(unhurt.folder) for path in unhurt.folder.glob(pattern))
        assert names
        for name in names:
            assert (run.folder / name).read_bytes() == (unhurt.folder / name).read_bytes(), name
    assert len(list(run.folder.glob("references/*-tokens.npy"))) > 1
    unhurt.close()
    run.close()
