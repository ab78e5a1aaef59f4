"""Phases that ask in a recipe, and builders that make nothing of what they name."""

from pathlib import Path

import pytest

from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.recipe import AskPhase
from coevo_jax.config.recipe_queries import played_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.recipe import find_phase

PLAY = "{explore: {agent: a, into: tried}}"
BRANCH = "{branch: {agent: a, at: expert_turns, turns: 1, into: own}}"
FAILED = "{branch: {agent: a, at: failed_turns, of: tried, turns: 1, into: lost}}"
ASK = "{ask: {agent: a, of: own, question: why_expert, into: reasons}}"


def load(tmp_path: Path, *phases: str, sources: str, overrides: tuple[str, ...] = ()):
    path = tmp_path / "own.yaml"
    learn = f"{{learn: {{agent: a, sources: [{sources}]}}}}"
    path.write_text(f"recipe: [{', '.join((*phases, learn))}]\n")
    return load_config(path, list(overrides))


LEARN = "{imitate: reflections, of: reasons, weight: 1.0}"


def test_a_phase_that_asks_is_named_by_its_answers_and_read_again(tmp_path):
    own = ("recipe.ask_reasons.instruction=Why?", "recipe.ask_reasons.temperature=0")
    config = load(tmp_path, BRANCH, ASK, sources=LEARN, overrides=own)
    phase = config.recipe[1]
    assert isinstance(phase, AskPhase) and phase.ask.options == {"instruction": "Why?"}
    assert played_of(config.recipe) == {"own": "branch_own", "reasons": "ask_reasons"}
    scheduled = find_phase(config, "round-01/ask_reasons")
    assert (scheduled.kind, scheduled.collection, scheduled.asking) == ("ask", "reasons", phase.ask)
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


WRONG = {
    "an unknown question": (
        (BRANCH, "{ask: {agent: a, of: own, question: why_exprt, into: reasons}}"),
        LEARN,
        r"question: unknown builder 'why_exprt' \(did you mean 'why_expert'\?\)",
    ),
    "an empty instruction": (
        (BRANCH, "{ask: {agent: a, of: own, question: why_expert, into: reasons, instruction: ''}}"),
        LEARN,
        "instruction",
    ),
    "a question about nothing": (
        (BRANCH, "{ask: {agent: a, question: why_expert, into: reasons}}"),
        LEARN,
        r"why_expert\.of: found no collection, expected what branch plays into",
    ),
    "a question about whole episodes": (
        (PLAY, "{ask: {agent: a, of: tried, question: why_expert, into: reasons}}"),
        LEARN,
        r"why_expert\.of: explore plays into tried, of which it makes nothing; expected branch",
    ),
    "reasons of what is no answer": (
        (BRANCH, ASK),
        "{imitate: reflections, of: own, weight: 1.0}",
        r"reflections\.of: branch plays into own, of which it makes nothing; expected ask",
    ),
    "episodes of what are answers": (
        (BRANCH, ASK),
        "{imitate: successes, of: reasons, weight: 1.0}",
        r"successes\.of: reasons are answers, of which it makes nothing; expected what was played",
    ),
    "own steps that leave no expert": (
        (PLAY, FAILED),
        "{pairs: expert_step_over, of: lost}",
        r"expert_step_over\.of: lost leaves failures, expected branches of expert_turns",
    ),
    "own steps of whole episodes": (
        (PLAY,),
        "{imitate: next_observations, of: tried, weight: 1.0}",
        r"next_observations\.of: explore plays into tried, of which it makes nothing; expected branch",
    ),
    "an option of another builder": (
        (BRANCH,),
        "{pairs: expert_step_over, of: own, same: thought}",
        "same",
    ),
    "answers before they are asked for": (
        (BRANCH,),
        LEARN,
        r"reflections\.of: no phase plays reasons",
    ),
    "two phases into one collection": (
        (BRANCH, "{ask: {agent: a, of: own, question: why_expert, into: own}}"),
        "{imitate: experts, of: own, weight: 1.0}",
        "phases of two kinds play into own; give one into: another collection",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_would_make_nothing_is_refused(case, tmp_path):
    phases, sources, words = WRONG[case]
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, *phases, sources=sources)


def test_an_own_builder_may_look_at_answers(tmp_path):
    own = "{imitate: 'tests.config.test_ask:of_answers', of: reasons, weight: 1.0}"
    load(tmp_path, BRANCH, ASK, sources=own)


def of_answers(material):
    yield from ()
