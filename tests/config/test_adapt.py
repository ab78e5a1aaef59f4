"""An evaluation that adapts, as a recipe says it: what is read, overridden and refused."""

from pathlib import Path

import pytest

from coevo_jax.config.adapt import AdaptOptions
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.recipe_queries import adapts, evaluations_of, mark_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.recipe import find_phase, schedule

QUICKSTART = Path(__file__).parents[2] / "configs/quickstart-atena.yaml"
LEARN = "{explore: {agent: a}}, {learn: {agent: a, sources: [{imitate: experts, of: a, weight: 1.0}]}}"


def load(tmp_path: Path, *evaluations: str, more: str = ""):
    path = tmp_path / "own.yaml"
    phases = ", ".join([LEARN, *(f"{{evaluate: {one}}}" for one in evaluations)])
    path.write_text(f"recipe: [{phases}]\n{more}")
    return load_config(path)


def test_the_shipped_recipe_has_the_released_scripts_numbers_and_they_are_the_defaults():
    config = load_config(QUICKSTART, ["recipe=atena"])
    plain, adapted = evaluations_of(config.recipe)
    assert (plain.label, plain.adapt, adapted.label) == ("target", None, "adapted")
    assert adapted.adapt == AdaptOptions()
    assert adapted.adapt.model_dump() == {
        "mixing": 0.5,
        "head_weight": 0.25,
        "head_bias": 0.0,
        "query_above": 0.1,
        "learning_rate_queried": 5e-6,
        "learning_rate_predicted": 1e-7,
        "weight_decay": 0.01,
    }
    assert adapts(config.recipe) and not adapts(load_config(QUICKSTART, ["recipe=eto"]).recipe)


def test_overrides_reach_it_by_its_key_and_a_resolved_config_says_the_same(tmp_path):
    config = load_config(QUICKSTART, ["recipe=atena", "recipe.evaluate_adapted.adapt.mixing=0.75"])
    assert evaluations_of(config.recipe)[1].adapt == AdaptOptions(mixing=0.75)
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_one_phase_of_a_round_adapts_and_the_warm_start_is_evaluated_as_it_is():
    config = load_config(QUICKSTART)
    found = [phase.name for phase in schedule(config) if phase.adapting is not None]
    assert found == [f"round-{n:02d}/evaluate_adapted" for n in range(1, config.rounds + 1)]
    phase = find_phase(config, found[0])
    assert (phase.kind, phase.collection, phase.stem) == ("evaluate", "eval-adapted", "round-01-adapted")


def test_an_agents_mark_is_that_of_its_plain_evaluation(tmp_path):
    config = load(tmp_path, "{agent: a}", "{agent: a, name: b, adapt: {}}")
    assert mark_of(config.recipe, "a") == ""


WRONG = {
    "without a name": (
        ["{agent: a, adapt: {}}"],
        r"recipe\.evaluate_a\.adapt: its numbers use test feedback, .* such as name: adapted",
    ),
    "alone": (["{agent: a, name: b, adapt: {}}"], "expected one evaluation without a name"),
    "no step": (
        ["{agent: a}", "{agent: a, name: b, adapt: {learning_rate_queried: 0, learning_rate_predicted: 0}}"],
        r"recipe\.evaluate_b\.adapt: both learning rates are 0",
    ),
    "twice": (
        ["{agent: a}", "{agent: a, name: b, adapt: {}}", "{agent: a, name: c, adapt: {mixing: 0.5}}"],
        "recipe.evaluate_c plays the very episodes of evaluate_b",
    ),
    "nothing but the choice": (
        ["{agent: a}", "{agent: a, name: b, adapt: {mixing: 1.0}}"],
        "mixing.*less than 1",
    ),
    "a negative rate": (
        ["{agent: a}", "{agent: a, name: b, adapt: {learning_rate_queried: -1.0}}"],
        "learning_rate_queried",
    ),
    "an unknown key": (["{agent: a}", "{agent: a, name: b, adapt: {mxing: 0.5}}"], "did you mean 'mixing'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_with_the_reason(case, tmp_path):
    evaluations, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, *evaluations)


def test_two_adaptations_that_differ_stand_side_by_side(tmp_path):
    config = load(
        tmp_path, "{agent: a}", "{agent: a, name: b, adapt: {}}", "{agent: a, name: c, adapt: {mixing: 0.0}}"
    )
    assert [one.label for one in evaluations_of(config.recipe)] == ["a", "b", "c"]
