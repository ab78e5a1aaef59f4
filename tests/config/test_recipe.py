"""Recipes: the shipped ones, overrides by name, and one message for everything that is wrong with one."""

from pathlib import Path

import pytest
import yaml

from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.recipe_queries import (
    agents_of,
    kinds_of,
    lead_of,
    learners_of,
    learnings_of,
    together_of,
)
from coevo_jax.config.strict import ConfigError

CONFIGS = Path(__file__).parent.parent.parent / "configs"
RECIPES = sorted((CONFIGS / "recipes").glob("*.yaml"))
MOST_LINES = 15

PLAY = "{explore: {agent: a}}"
LEARN = "{learn: {agent: a, sources: [{pairs: expert_over, of: a}]}}"


def load(tmp_path: Path, recipe: str, *overrides: str, more: str = ""):
    path = tmp_path / "own.yaml"
    path.write_text(f"recipe: {recipe}\n{more}")
    return load_config(path, overrides)


def learning(sources: str) -> str:
    return f"[{PLAY}, {{learn: {{agent: a, sources: [{sources}]}}}}]"


def own_builder(material, *, least: int = 0, share: float):
    yield from ()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_short_and_some_config_uses_it(path):
    text = path.read_text()
    assert sum(not line.startswith("#") for line in text.splitlines()) <= MOST_LINES
    configs = [*CONFIGS.glob("*.yaml"), *CONFIGS.glob("paper/parts/*.yaml"), *CONFIGS.glob("study/*.yaml")]
    assert any(yaml.safe_load(one.read_text()).get("recipe") == path.stem for one in configs)


def test_what_a_recipe_says_of_its_agents():
    recipe = load_config(CONFIGS / "quickstart.yaml").recipe
    assert agents_of(recipe) == learners_of(recipe) == ("target", "failure") and lead_of(recipe) == "target"
    assert kinds_of(recipe) == ("expert_target", "expert_failure", "failure_failure")
    assert [phase.explore.collection for phase in together_of(recipe)] == ["target", "failure"]
    frozen = load_config(CONFIGS / "quickstart-frozen-failure.yaml")
    assert agents_of(frozen.recipe) == ("target", "failure") and list(frozen.agents) == ["target"]
    assert len(together_of(frozen.recipe)) == 2  # the failure agent's second exploration is another one
    sft = load_config(CONFIGS / "quickstart-sft.yaml")
    assert agents_of(sft.recipe) == ("target",) and learners_of(sft.recipe) == ()


def test_overrides_reach_phases_and_sources_by_their_names(tmp_path):
    own = ["recipe.learn_target.expert_failure.dpo=0.3", "recipe.learn_target.failure_failure.across=true"]
    more = ["recipe.explore_failure.into=wrong", "recipe.learn_failure.failure_failure.of=[target, wrong]"]
    config = load_config(CONFIGS / "quickstart.yaml", [*own, *more])
    failure, target = learnings_of(config.recipe)
    assert [source.dpo for source in target.pairs] == [0.5, 0.3, 0.5]
    assert target.pairs[2].options == {"across": True, "max_extra_turns": 5}
    assert failure.pairs[0].of == ("target", "wrong")
    (rft,) = learnings_of(
        load_config(CONFIGS / "quickstart-rft.yaml", ["recipe.learn_target.successes.weight=2"]).recipe
    )
    assert rft.imitations[0].weight == 2


def test_a_name_in_an_override_gives_the_shipped_recipe_and_leaves_out_idle_agents(tmp_path):
    config = load_config(CONFIGS / "quickstart.yaml", ["recipe=eto"])
    assert config.recipe == load_config(CONFIGS / "quickstart-eto.yaml").recipe
    assert list(config.agents) == ["target"]
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_any_names_and_any_number_of_agents(tmp_path):
    recipe = """
  - explore: {agent: student}
  - explore: {agent: helper, into: tries}
  - explore: {agent: third}
  - learn: {agent: helper, sources: [{pairs: better_over_worse, of: [student, tries, third], across: true}]}
  - learn:
      agent: student
      sources:
        - {pairs: expert_over, of: [tries, third]}
        - {imitate: successes, of: third, weight: 0.5}
  - explore: {agent: student, into: again}
  - learn:
      agent: student
      name: second
      sources: [{pairs: better_over_worse, of: [student, again], kind: own}]
  - evaluate: {agent: student}
"""
    config = load(tmp_path, recipe)
    assert agents_of(config.recipe) == ("student", "helper", "third")
    assert list(config.agents) == ["student", "helper"]
    assert kinds_of(config.recipe) == ("expert_over", "own", "better_over_worse")
    names = [phase.name for phase in config.recipe]
    assert names[4] == "learn_student" and names[6] == "learn_second"


WRONG = {
    "an agent that only plays for nothing": (
        f"[{PLAY}, {LEARN}, {{evaluate: {{agent: b}}}}]",
        "the agent b is evaluated, but no phase lets it play or learn",
    ),
    "an agent that learns out of sight": (
        f"[{PLAY}, {LEARN}, {{learn: {{agent: b, sources: [{{pairs: expert_over, of: a}}]}}}}]",
        "the agent b learns, but no phase lets it play",
    ),
    "a lead that learns nothing": (
        f"[{{explore: {{agent: b}}}}, {PLAY}, {LEARN}]",
        "the agent b, the first one that it names, learns nothing",
    ),
    "a collection learned from too early": (
        f"[{LEARN}, {PLAY}]",
        r"recipe\.learn_a\.expert_over\.of: a is learned from before it is played",
    ),
    "a collection that is never played": (
        learning("{pairs: expert_over, of: tired}").replace(PLAY, PLAY.replace("a}", "a, into: tried}")),
        r"no phase plays tired \(did you mean 'tried'\?\)",
    ),
    "one played twice": (
        f"[{PLAY}, {PLAY}, {LEARN}]",
        "explore a stands twice in a round; give one into: another collection",
    ),
    "two learnings of one name": (
        f"[{PLAY}, {LEARN}, {LEARN}]",
        "learn a stands twice in a round; give one name: another name",
    ),
    "a builder": (
        learning("{pairs: expert_ovr, of: a}"),
        r"pairs: unknown builder 'expert_ovr' \(did you mean 'expert_over'\?\)",
    ),
    "a builder of the other kind": (
        learning("{imitate: expert_over, of: a, weight: 1}"),
        r"imitate: unknown builder 'expert_over' \(did you mean 'experts'\?\)",
    ),
    "an option of a builder": (
        learning("{pairs: expert_over, of: a, max_extra_turn: 1}"),
        r"max_extra_turn: unknown key \(did you mean 'max_extra_turns'\?\)",
    ),
    "an option's value": (
        learning("{pairs: better_over_worse, of: a, only: succeses}"),
        "only: found .*, expected 'failures' or 'all'",
    ),
    "an idle option": (
        learning("{pairs: better_over_worse, of: a, across: true}"),
        "across leaves out every pair: it names one collection, a",
    ),
    "a kind twice": (
        learning("{pairs: expert_over, of: a}, {pairs: expert_over, of: a}"),
        "expert_over stands twice; give one of them a kind: of its own",
    ),
    "one sample in pairs of two": (
        learning("{pairs: better_over_worse, of: a}"),
        "needs two trajectories of a task: explore.samples is 1",
    ),
    "no weight": (
        learning("{pairs: expert_over, of: a, dpo: 0}"),
        "dpo and sft are both 0",
    ),
    "a reserved name": (
        learning("{pairs: expert_over, of: expert}").replace(PLAY, PLAY.replace("a}", "a, into: expert}")),
        "the name expert is taken",
    ),
    "no sources": (learning(""), r"sources: found \[\]"),
    "nothing": ("[]", "found no phases, and rounds is 3"),
    "a name": ("coevoo", r"unknown recipe 'coevoo' \(did you mean 'coevo'\?\)"),
    "two kinds of phase in one": (
        "[{explore: {agent: a}, evaluate: {agent: a}}]",
        "expected a mapping with one of the keys explore, branch, ask, judge, learn, evaluate",
    ),
    "a key": (
        "[{explore: {agnt: a}}]",
        r"recipe\[0\]\.explore\.agnt: unknown key \(did you mean 'agent'\?\)",
    ),
    "no such function": (
        learning("{pairs: 'tests.config.test_recipe:nothing', of: a}"),
        "has no function 'nothing'",
    ),
    "an own builder without its option": (
        learning("{pairs: 'tests.config.test_recipe:own_builder', of: a}"),
        "share: missing",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_wrong_recipe_is_refused_in_one_message(case, tmp_path):
    recipe, words = WRONG[case]
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, recipe)
    message = str(caught.value)
    assert "own.yaml" in message and len(message.splitlines()) <= 2


def test_an_own_builder_is_checked_by_its_signature(tmp_path):
    source = "{pairs: 'tests.config.test_recipe:own_builder', of: a, share: 0.5, least: 2}"
    config = load(tmp_path, learning(source))
    assert learnings_of(config.recipe)[0].pairs[0].label == "own_builder"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("agents: {b: {epochs: 1}}", r"agents\.b: the recipe has no such agent \(valid: a, c\)"),
        ("agents: {c: {epochs: 1}}", r"agents\.c does nothing: the agent c learns in no phase"),
    ],
)
def test_options_of_an_agent_that_the_recipe_has_no_use_for_are_refused(more, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, f"[{PLAY}, {{explore: {{agent: c}}}}, {LEARN}]", more=more)
