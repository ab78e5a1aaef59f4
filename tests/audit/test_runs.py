"""The audit over finished runs of every method and every way a run comes to its end."""

import json
from pathlib import Path

import pytest

from coevo_jax.audit.order import expected_phases
from coevo_jax.audit.reading import open_files
from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe_queries import judgings_of, learnings_of
from coevo_jax.phases import material as material_phase
from coevo_jax.recipe import find_phase
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.fork import fork_run
from coevo_jax.run_folder.run import create_run
from tests.audit.breaking import broken, copy, edit_lines, end, finished, finished_once, states
from tests.audit.recipes import (
    ALONE,
    BEST,
    RECIPES,
    SUCCESSES,
    alone,
    better_over_worse,
    evaluate,
    expert_over,
    explore,
    learn,
    mixed,
    override,
    recipe,
)
from tests.hosts.runs import run_of_one, run_of_two
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

CONFIGS = Path(__file__).parents[2] / "configs"
# Audited in files of their own, on tasks of several turns where letters have two.
ELSEWHERE = (
    "cso",
    "cso-expert",
    "ipr",
    "eef",
    "stepagent-reward",
    "early-experience-iwm",
    "early-experience-sr",
    "agent-r",  # with scripted verdicts
)
METHODS = sorted(
    {path.name for path in CONFIGS.glob("quickstart*.yaml")} - {f"quickstart-{one}.yaml" for one in ELSEWHERE}
)
SHORT = ("warm_start.epochs=5", "explore.tasks=['40:50']", "evaluate.tasks=':9'", "model.num_layers=1")
SOLVES = "warm_start.epochs=30"  # so that there are successes to imitate
WAVERS = ("warm_start.epochs=16", "explore.temperature=1.3")  # so that there are failures near success
TOTALS = {"pairs": [9], "explored_tokens": [500], "learned_tokens": [1500]}


def method(name: str) -> tuple[str, ...]:
    """What makes a shipped config's method, as options of the tiny run."""
    config = load_config(CONFIGS / name)
    keys = {"pairs_kept", "max_pairs_per_kind", "sft_reduction", "loss", "reference", "surrogate"}
    options = [override("recipe", config.model_dump(mode="json")["recipe"])]
    for agent, one in config.agents.items():
        learnings = learnings_of(config.recipe, agent)
        sources = [source for learning in learnings for source in learning.pairs]
        imitates = any(source.sft > 0 for source in sources) or any(one.imitations for one in learnings)
        own = keys if imitates else keys - {"sft_reduction"}  # which would be refused as doing nothing
        values = one.model_dump(mode="json", include=own)
        options += [override(f"agents.{agent}.{key}", value) for key, value in values.items()]
    later = any(one.reference == "warm_start" for one in config.agents.values())  # tells in round 2 first
    options += [f"method={config.method}", f"rounds={2 if later else min(config.rounds, 1)}"]
    options += [f"explore.samples={config.explore.samples}"]
    options += [SOLVES] if "successes" in options[0] or "graded" in options[0] else []
    options += WAVERS if "verified_branch" in options[0] or "revisions" in options[0] else []
    if config.budget.match:  # of a run that is not here: numbers in its place
        options.append(override("budget", {name: TOTALS[name] for name in config.budget.match}))
    if config.model.lora is not None:
        options.append("model.lora.rank=4")
    if config.batch.step_pairs is not None:
        options += ["batch.step_pairs=12", "batch.step_demonstrations=9"]
    return tuple(options)


def assert_holds(run: Path) -> None:
    found = states(run)
    assert set(found.values()) == {"held"}, {name: state for name, state in found.items() if state != "held"}


@pytest.mark.parametrize("name", METHODS)
def test_every_shipped_method_holds(name, tmp_path_factory):
    config = load_config(CONFIGS / name)
    short = [text for text in SHORT if config.rounds > 0 or not text.startswith("explore.")]
    run = finished_once(tmp_path_factory, *short, *method(name))
    assert_holds(run)
    plans = {path.stem for path in (run / "plans").glob("round-*.json")}
    learned = [one.name or one.agent for one in learnings_of(config.recipe)]
    learned += [f"judge-{one.judge.into}" for one in judgings_of(config.recipe)]
    rounds = range(1, open_files(run).config.rounds + 1)
    # One that had nothing to learn from would show nothing.
    assert plans == {f"round-{number:02d}-{name}" for number in rounds for name in learned}


OPTIONS = {
    "references": (
        *("rounds=2", "agents.target.reference=warm_start", "agents.target.reference_every=3"),
        "model.num_layers=2",
        *("agents.failure.keep_optimizer=true", "agents.target.loss=aot", "agents.failure.loss=kto"),
        *("agents.failure.max_pairs_per_kind=1", "batch.share_prefixes=false"),
    ),
    "weights": (
        mixed(extra=0, across=True),
        *("agents.target.ld_alpha=0.5", "agents.target.turn_discount=0.9", "agents.target.wpo=true"),
        *("agents.target.loss={ipo: 0.5, simpo: 0.5}", "batch.step_pairs=20"),
        "agents.target.sft_reduction=sum",
    ),
    "other pairs": (
        *("agents.target.pairs_kept=drawn", "agents.target.max_pairs_per_kind=1"),
        *("agents.failure.pairs_kept=smallest_gap", "agents.failure.max_pairs_per_kind=1"),
        *(
            "agents.target.warmup_fraction=0.07",
            "agents.target.turn_discount=0.5",
            "agents.target.ld_alpha=0",
        ),
        *("agents.target.loss={sigmoid: 0.5, ipo: 0.5}", "budget.pairs=[7]"),
    ),
    "the shorter side alone": ("agents.target.ld_alpha=0",),
    "a loss of a source's own": (
        *("recipe.learn_target.expert_failure.loss=hinge", "recipe.learn_target.failure_failure.loss=kto"),
        "recipe.learn_failure.failure_failure.sft=0.3",
    ),
    "bfloat16": ("model.dtype=bfloat16",),
    "adapters of the initial model": (
        *("model.lora={rank: 4, warm_start: adapter}", "agents.target.divergence=js"),
    ),
    "apart": ("explore.together=false",),
    "one block": ("explore.block_tasks=50",),
    "imitation by steps": (alone(SUCCESSES, BEST), SOLVES, "batch.step_demonstrations=3"),
    "beside the warm start": (
        *("recipe=wmss", SOLVES, "rounds=2", "recipe.learn_target.beside.weak=warm_start"),
        *("recipe.learn_target.beside.mix=0.3", "recipe.learn_target.beside.sampling.draws=7"),
        *("model.lora.rank=4", "agents.target.turn_discount=0.8"),
    ),
    "beside a trained model": (
        *("recipe=wmss", SOLVES, "rounds=2", "recipe.learn_target.beside.train_weak=true"),
        *("batch.step_demonstrations=5", "agents.target.keep_optimizer=true"),
    ),
    "beside it without draws": ("recipe=wmss", SOLVES, "recipe.learn_target.beside.sampling=null"),
    "beside it with nothing to learn": (
        alone(SUCCESSES),
        *("recipe.learn_target.beside={mix: 0.5}", "warm_start.learning_rate=1e-9"),
    ),
    "nothing to learn": (alone(SUCCESSES), "warm_start.learning_rate=1e-9"),
    "moments kept after a learning of nothing": (
        recipe(
            explore("target"),
            learn("target", SUCCESSES),
            explore("target", "again"),
            learn("target", expert_over("again"), name="second"),
            evaluate("target"),
        ),
        *("agents.target.keep_optimizer=true", "warm_start.learning_rate=1e-9"),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_runs_with_other_options_hold(name, tmp_path):
    assert_holds(finished(tmp_path, *SHORT, *OPTIONS[name]))


def test_a_run_that_was_killed_and_resumed_holds(tmp_path, monkeypatch):
    kill_at_commits(monkeypatch, "before", every=4)
    run, kills = coevolve_through_kills(create_run(tiny_config(tmp_path, *SHORT, "checkpoint.keep=all")))
    assert kills >= 3
    assert_holds(end(run))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_other_names_hold(name, tmp_path):
    run = finished(tmp_path, *SHORT, *RECIPES[name])
    assert_holds(run)
    learned = [phase for phase in expected_phases(open_files(run).config) if phase.kind == "learn"]
    assert learned and all((run / phase.plan).exists() for phase in learned)


WITH_HELPER = recipe(
    explore("target"),
    explore("helper"),
    learn("helper", better_over_worse("target", "helper", across=True)),
    learn("target", expert_over("target", "helper")),
    evaluate("target"),
    evaluate("helper"),
)


@pytest.mark.parametrize(
    "begun, options",
    [
        ((), ("agents.target.epochs=1",)),
        ((ALONE,), ("agents.target.epochs=1",)),
        ((WITH_HELPER,), ("agents.target.epochs=1",)),
        ((), (WITH_HELPER,)),
        ((), ("explore.block_tasks=4",)),
    ],
    ids=["alike", "by one agent alone", "beside another name", "of another name", "in other blocks"],
)
def test_a_fork_holds(begun, options, tmp_path, tmp_path_factory):
    source = finished_once(tmp_path_factory, *SHORT, *begun)
    config = tiny_config(tmp_path / "fork", *SHORT, "checkpoint.keep=all", "name=fork", *options)
    assert_holds(end(fork_run(source, config)))


def test_where_checkpoints_are_pruned_the_rest_holds(tmp_path):
    found = states(finished(tmp_path, *SHORT, "checkpoint.keep=1"))
    assert set(found.values()) == {"held", "not checkable"}
    gone = {name for name, state in found.items() if state == "not checkable"}
    assert {name.partition("/")[0] for name in gone} == {"logps", "adam", "references"}
    assert "logps/round-01/explore_target" not in gone  # the warm start's checkpoint is always kept


@pytest.mark.parametrize("made", [run_of_one, run_of_two])
def test_a_run_of_several_processes_holds(made, tmp_path_factory):
    """Both keep more checkpoints than they write."""
    assert_holds(made(tmp_path_factory))


def test_a_second_agent_that_gets_more_than_it_may_is_named(tmp_path, tmp_path_factory):
    """It learns from experts over its own failures; the target's are not its own."""
    made = finished_once(tmp_path_factory, *SHORT, *method("quickstart-positive-second-agent.yaml"))
    run = copy(made, tmp_path)
    path, phase = "pairs/round-01-failure.jsonl", "round-01/learn_failure"
    kinds = {json.loads(line)["kind"] for line in (run / path).read_text().splitlines()}
    assert kinds == {"expert_failure"}

    def swap(lines):
        pair = json.loads(lines[0])
        pair["rejected"]["source"] = "target"
        lines[0] = json.dumps(pair)

    edit_lines(run, path, swap)
    assert set(broken(run)) == {f"pairs/{phase}"}


def test_a_target_that_learns_from_the_other_agents_failures_is_named(tmp_path, monkeypatch):
    """One phase commits what both agents play side by side: all of it was once read as the target's."""

    def read_all(folder, manifest, phase, *rows):
        found = read_collection(folder, manifest, phase, *rows)
        if phase.name.endswith("/explore_target"):
            other = find_phase(load_config(folder / "config.yaml"), phase.name.replace("_target", "_failure"))
            found += read_collection(folder, manifest, other, *rows)
        return found

    monkeypatch.setattr(material_phase, "read_collection", read_all)
    found = broken(finished(tmp_path, *SHORT))
    names = {f"{kind}/round-01/learn_{who}" for kind in ("pairs", "plan") for who in ("target", "failure")}
    assert names - {"plan/round-01/learn_failure"} <= set(found)
    assert not any(name.startswith(("whose/", "tokens/", "logps/")) for name in found)
    assert "hard_negatives" in found["pairs/round-01/learn_target"]
