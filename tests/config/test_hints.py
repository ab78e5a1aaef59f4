"""Suggestions in a recipe: how they are read, and what is refused with the reason."""

from pathlib import Path

import pytest

from coevo_jax.config import hints as said
from coevo_jax.config.check_hints import hinting_phases, wordings_of
from coevo_jax.config.hints import HintOptions
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.strict import ConfigError
from coevo_jax.methods import distortion
from coevo_jax.methods.corrections import corrections
from coevo_jax.methods.hints import WORDING
from coevo_jax.methods.table import builder_options
from coevo_jax.recipe import find_phase

PLAY = "{explore: {agent: a}}"
TEACH = "{learn: {agent: c, sources: [{imitate: corrections, of: a, weight: 1.0}]}}"
HINTED = "{explore: {agent: c, into: done, hints: {}}}"
KEEP = "{learn: {agent: a, sources: [{imitate: kept_corrections, of: done, weight: 1.0}]}}"
WHOLE = (PLAY, TEACH, HINTED, KEEP)


def load(tmp_path: Path, *phases: str, overrides: tuple[str, ...] = ()):
    path = tmp_path / "own.yaml"
    path.write_text(f"recipe: [{', '.join(phases)}]\n")
    return load_config(path, list(overrides))


def test_a_config_names_the_operations_and_the_wording_that_there_are():
    assert said.OPERATIONS == distortion.OPERATIONS
    assert said.WORDING == WORDING


def test_suggestions_are_read_and_overridden_and_read_again(tmp_path):
    own = ("recipe.explore_done.hints.share=0.5", "recipe.explore_done.hints.operations=[swap_words]")
    config = load(tmp_path, *WHOLE, overrides=own)
    phase = find_phase(config, "round-01/explore_done")
    assert phase.hints == HintOptions(share=0.5, operations=("swap_words",))
    assert find_phase(config, "round-01/explore_a").hints is None
    assert hinting_phases(config) == ["recipe.learn_c", "recipe.explore_done"]
    assert list(wordings_of(config)) == ["{text}\nSuggested action: {action}"]
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_the_shipped_recipe_plays_with_what_it_teaches():
    config = load_config(Path("configs/quickstart-daug.yaml"))
    options = builder_options(corrections)
    for name, default in HintOptions().model_dump().items():
        assert name == "while_same" or options[name][1] == default
    assert len(wordings_of(config)) == 1


def hinted(options: str, more: str = "") -> str:
    return f"{{explore: {{agent: c, into: done, hints: {{{options}}}{more}}}}}"


def teach(options: str) -> str:
    return f"{{learn: {{agent: c, sources: [{{imitate: corrections, of: a, weight: 1.0, {options}}}]}}}}"


def of(source: str) -> str:
    return f"{{learn: {{agent: a, sources: [{{{source}, of: done}}]}}}}"


OTHER = "wording: 'Do {action}? {text}'"
WRONG = {
    "a share above 1": ((PLAY, TEACH, hinted("share: 1.5"), KEEP), "share"),
    "an unknown operation": ((PLAY, TEACH, hinted("operations: [shout]"), KEEP), "operations"),
    "no operation": ((PLAY, teach("operations: []"), HINTED, KEEP), "operations"),
    "an operation twice": (
        (PLAY, TEACH, hinted("operations: [drop_word, drop_word]"), KEEP),
        r"recipe\.explore_done\.hints\.operations: drop_word stands twice",
    ),
    "an operation twice in what is learned": (
        (PLAY, teach("operations: [drop_word, drop_word]"), HINTED, KEEP),
        r"recipe\.learn_c\.corrections\.operations: drop_word stands twice",
    ),
    "operations of nothing": (
        (PLAY, TEACH, hinted("share: 0, operations: [drop_word]"), KEEP),
        r"hints\.operations does nothing: share is 0",
    ),
    "copies that are the same": (
        (PLAY, teach("share: 0"), HINTED, KEEP),
        r"corrections\.copies does nothing: share is 0, so all copies are the same",
    ),
    "nothing to learn": (
        (PLAY, teach("share: 0, copies: 1, plain_weight: 0"), HINTED, KEEP),
        r"corrections learns nothing: share is 0",
    ),
    "a wording without the action": (
        (PLAY, TEACH, hinted("wording: '{text}'"), KEEP),
        r"hints\.wording: found '\{text\}', expected \{action\} once",
    ),
    "a wording that is not learned": (
        (PLAY, TEACH, hinted(OTHER), KEEP),
        r"found the wording 'Do \{action\}\? \{text\}', under which the agent c learns nothing; its sources "
        r"have '\{text\}",
    ),
    "an agent that nobody trains": (
        (PLAY, HINTED, KEEP),
        r"under which the agent c learns nothing; its sources have no corrections",
    ),
    "another agent that plays": (
        (PLAY, TEACH, "{explore: {agent: d, into: done, hints: {}}}", "{explore: {agent: c}}", KEEP),
        r"under which the agent d learns nothing; its sources have no corrections",
    ),
    "a mark beside": (
        (PLAY, TEACH, hinted("", ", mark: '{task} Well.'"), KEEP),
        r"recipe\.explore_done\.mark: found '\{task\} Well\.' beside hints, expected one of both",
    ),
    "kept of what was played without": (
        (PLAY, TEACH, "{explore: {agent: c, into: done}}", KEEP),
        r"kept_corrections\.of: done is played without hints, expected what explore plays with them",
    ),
    "kept of branches": (
        (PLAY, TEACH, HINTED, "{branch: {agent: c, into: b, at: expert_turns}}", KEEP.replace("done", "b")),
        r"kept_corrections\.of: branch plays into b, of which it makes nothing; expected explore",
    ),
    "successes with the suggestions in them": (
        (*WHOLE[:3], of("imitate: successes, weight: 1.0")),
        r"successes\.of: done is played with hints, which stand in its tokens; expected kept_corrections",
    ),
    "pairs with the suggestions in them": (
        (*WHOLE[:3], of("pairs: expert_over, dpo: 0.5")),
        r"expert_over\.of: done is played with hints",
    ),
    "branches of what was played with them": (
        (*WHOLE, "{branch: {agent: a, into: b, at: failed_turns, of: done}}"),
        r"recipe\.branch_b\.of: done is played with hints",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_with_the_reason(name, tmp_path):
    phases, why = WRONG[name]
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, *phases)


def test_experts_of_what_was_played_with_suggestions_and_own_builders_pass(tmp_path):
    load(tmp_path, *WHOLE[:3], of("imitate: experts, weight: 1.0"))
    load(tmp_path, *WHOLE[:3], of("imitate: 'tests.audit.own_builders:first_samples', weight: 1.0"))
    own = TEACH.replace("corrections", "'tests.audit.own_builders:first_samples'")
    load(tmp_path, PLAY, own, hinted(OTHER), KEEP)
