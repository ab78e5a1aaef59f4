"""Runs with a discriminator: audited, edited and killed; what is broken is named."""

import pytest

from coevo_jax.audit.audit import run_audit
from coevo_jax.envs.registry import ENVIRONMENTS
from coevo_jax.run_folder.run import create_run
from tests.audit.breaking import (
    assert_named_alone,
    broken,
    collected,
    copy,
    edit_json,
    edit_metrics,
    edit_record,
    finished,
    finished_once,
    manifest,
)
from tests.audit.recipes import evaluate, explore, override, recipe
from tests.measured import curve
from tests.tiny import LETTERS, coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

OPTIONS = (
    "explore.samples=1",
    "explore.tasks=['40:48']",
    "evaluate.tasks=':5'",
    "warm_start.epochs=8",
    "judge.learning_rate=[3e-3]",
    "judge.read=mean",
    "batch.step_episodes=12",
    "batch.views_per_row=12",
    "agents.target.epochs=1",
)
INVERSE = ("recipe=stepagent-inverse", *OPTIONS)
TIED = ("agents.target.reference=warm_start", "agents.target.surrogate.kl=0.1")
JUDGE, LEARN = "round-01/judge_judged", "round-01/learn_target"
FILE = "judgements/round-01-judged.json"


def two_times() -> str:
    """Whole episodes, judged and learned from, then single steps by the discriminator as it has become."""
    learn = {"reinforce": "judged_steps", "of": "praise", "reward": "airl", "gamma": 0.5, "among": "task"}
    again = {"reinforce": "judged_steps", "of": "judged", "norm": "sample_std"}
    return recipe(
        explore("target"),
        {"judge": {"of": ["target"], "into": "praise"}},
        {"learn": {"agent": "target", "name": "first", "sources": [learn]}},
        {"branch": {"agent": "target", "at": "expert_turns", "turns": 1, "samples": 3, "into": "own"}},
        {"judge": {"of": ["own"], "into": "judged"}},
        {"learn": {"agent": "target", "name": "second", "sources": [again]}},
        evaluate("target"),
    )


VARIANTS = {
    "the shipped recipe, tied to the warm start": ("rounds=2", *TIED),
    "read at the end, without counted steps": (
        "judge.read=end",
        "batch.step_episodes=null",
        "judge.epochs=2",
    ),
    "alternating twice": (two_times(), "explore.samples=2"),
    "adapters": (override("model.lora", {"rank": 2, "alpha": 4.0}),),
    "turns weigh alike, and idle ones are skipped": (
        "agents.target.surrogate.reduction=turn",
        "agents.target.surrogate.skip_zero=true",
    ),
}


@pytest.fixture(scope="module")
def letters():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "letters", LETTERS)
        yield


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_with_a_discriminator_is_derived(name, tmp_path):
    run = finished(tmp_path, *INVERSE, *VARIANTS[name])
    others = [one for one in run_audit(run, None) if one.state != "held"]
    assert not others, others
    judged = [record for record in manifest(run)["done"] if "/judge_" in record["name"]]
    assert judged and all(record["position"] > 0 for record in judged)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, letters):
    return finished_once(tmp_path_factory, *INVERSE)


EDITS = {}
breaks = collected(EDITS)


@breaks(f"plan/{JUDGE}")
def another_probability(run):
    edit_json(run, FILE, lambda content: content["steps"][0].update(probability=0.9))


@breaks(f"plan/{JUDGE}")
def a_weight_of_the_other_side(run):
    def edit(content):
        view = content["steps"][0][0]["views"][0]
        name = "own_weight" if "own_weight" in view else "expert_weight"
        view["own_weight" if name == "expert_weight" else "expert_weight"] = view.pop(name)

    edit_json(run, "plans/round-01-judge-judged.json", edit)


@breaks(f"plan/{JUDGE}")
def another_count(run):
    edit_record(run, JUDGE, lambda record: record["records"].update(own=1))


@breaks(f"plan/{JUDGE}")
def another_accuracy(run):
    edit_record(run, JUDGE, lambda record: record["records"]["judged"].update(accuracy=0.99))


@breaks(f"loss/{JUDGE}")
def another_first_loss(run):
    edit_metrics(run, JUDGE, "judge/loss", lambda loss: loss + 0.05)


@breaks(f"rates/{JUDGE}")
def another_rate(run):
    edit_metrics(run, JUDGE, "judge/learning_rate", lambda rate: rate * 2)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    edit, names = EDITS[name]
    edited = copy(whole, tmp_path)
    edit(edited)
    assert_named_alone(edited, names)


def test_another_logit_breaks_all_that_follows_from_it(whole, tmp_path):
    def edit(content):
        own = next(one for one in content["steps"] if one["source"] == "own")
        own["logit"] += 1.0

    edited = copy(whole, tmp_path)
    edit_json(edited, FILE, edit)
    named = {f"plan/{JUDGE}", f"judgements/{JUDGE}", f"reinforced/{LEARN}"}
    assert named <= set(broken(edited)) <= {*named, f"loss/{LEARN}"}  # the step may be in the first one


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_judges_it_ends_in_the_same_bytes(when, whole, tmp_path, monkeypatch):
    def judges(one):
        return one.running is not None and "/judge_" in one.running.name

    options = ("checkpoint.every_steps=1", "checkpoint.keep=all", *INVERSE)
    kill_at_commits(monkeypatch, when, first=1, every=2, counted=judges)
    run, kills = coevolve_through_kills(create_run(tiny_config(tmp_path, *options)))
    run.close()
    assert kills >= 2
    for path in (FILE, "plans/round-01-judge-judged.json", "plans/round-01-target.json"):
        assert (run.folder / path).read_bytes() == (whole / path).read_bytes()
    assert curve(run.folder) == curve(whole)
