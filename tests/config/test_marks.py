"""Marks of a recipe: what is refused at start, each in one message that says where; names of evaluations."""

import pytest

from coevo_jax.config.check_marks import marks_of, taught_marks
from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe_queries import evaluations_of, mark_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.phases.world import check_world
from coevo_jax.recipe import schedule
from tests.config.test_recipe import CONFIGS, load
from tests.data.chat.families import make_tokenizer

GOOD, BAD = "{task} good", "{task} bad"
PLAY = "{explore: {agent: a}}"
GRADED = f"{{imitate: graded, of: a, weight: 1, marks: ['{GOOD}', '{BAD}']}}"


def evaluated(**options: str) -> str:
    return "{evaluate: {agent: a" + "".join(f", {key}: '{value}'" for key, value in options.items()) + "}}"


def recipe(*evaluations: str, source: str = GRADED, play: str = PLAY) -> str:
    learn = f"{{learn: {{agent: a, sources: [{source}]}}}}"
    return f"[{', '.join([play, learn, *evaluations])}]"


def own_builder(material, *, marks: tuple[str, ...] = (GOOD,)):
    yield from ()


def own_marks(material):
    yield from ()


def test_evaluations_have_names_marks_and_collections_of_their_own(tmp_path):
    config = load(
        tmp_path, recipe(evaluated(mark=GOOD), evaluated(name="worst", mark=BAD), evaluated(name="bare"))
    )
    played = [
        (p.name, p.collection, p.mark) for p in schedule(config) if p.kind == "evaluate" and p.round < 2
    ]
    assert played == [
        ("round-00/evaluate_a", "eval-a", ""),
        ("round-01/evaluate_a", "eval-a", GOOD),
        ("round-01/evaluate_worst", "eval-worst", BAD),
        ("round-01/evaluate_bare", "eval-bare", ""),
    ]
    assert mark_of(config.recipe, "a") == GOOD and mark_of(config.recipe, "b") == ""
    assert [one.label for one in evaluations_of(config.recipe)] == ["a", "worst", "bare"]
    assert taught_marks(config, "a") == (GOOD, BAD) == tuple(marks_of(config))


def test_a_mark_is_overridden_by_the_names_of_phases():
    own = [
        "recipe.learn_target.graded.marks=['{task} A', '{task} B']",
        "recipe.evaluate_target.mark='{task} A'",
    ]
    config = load_config(CONFIGS / "quickstart-nat.yaml", [*own, "recipe.evaluate_worst.mark='{task} B'"])
    assert [one.mark for one in evaluations_of(config.recipe)] == ["{task} A", "{task} B", ""]


def test_the_agent_evaluated_again_after_it_learned_is_another(tmp_path):
    learn = f"{{learn: {{agent: a, name: more, sources: [{GRADED}]}}}}"
    load(tmp_path, recipe(evaluated(), learn, evaluated(name="after")))


WRONG = {
    "no place for the task": (
        recipe(evaluated(mark="good")),
        r"recipe\.evaluate_a\.mark: found 'good', expected \{task\} once",
    ),
    "a mark that nobody teaches": (
        recipe(evaluated(mark="{task} goood")),
        r"recipe\.evaluate_a\.mark: found '\{task\} goood', under which the agent a learns nothing; its "
        r"sources have '\{task\} good', '\{task\} bad'",
    ),
    "explored under a mark that nobody teaches": (
        recipe(evaluated(), play="{explore: {agent: a, mark: '[A] {task}'}}"),
        r"recipe\.explore_a\.mark: .*learns nothing; its sources have '\{task\} good', '\{task\} bad'",
    ),
    "a mark where there are none": (
        recipe(evaluated(mark=GOOD), source="{imitate: successes, of: a, weight: 1}"),
        "learns nothing; its sources have no marks",
    ),
    "a mark of another agent": (
        recipe(evaluated(), "{explore: {agent: b}}", "{evaluate: {agent: b, mark: '{task} good'}}"),
        "under which the agent b learns nothing",
    ),
    "a mark of the user's own builder": (
        recipe(
            evaluated(mark=BAD), source="{imitate: 'tests.config.test_marks:own_builder', of: a, weight: 1}"
        ),
        r"learns nothing; its sources have '\{task\} good'$",
    ),
    "grades": (
        recipe(source=GRADED.replace("weight: 1", "weight: 1, bounds: [1, 0.5]")),
        r"recipe\.learn_a\.graded\.bounds: found 2 for 2 marks",
    ),
    "a taught mark": (
        recipe(source=GRADED.replace("bad", "bad ")),
        r"recipe\.learn_a\.graded\.marks: found .*no white space at its ends",
    ),
    "a negative ratio": (
        recipe(source=GRADED.replace("weight: 1", "weight: 1, failures_per_success: -1")),
        "failures_per_success: found -1",
    ),
    "an idle draw": (
        recipe(source=GRADED.replace("weight: 1", "weight: 1, failures_per_success: null, draw_seed: 3")),
        "draw_seed does nothing: failures_per_success is null",
    ),
    "an expert over what was played under a mark": (
        recipe(
            source=f"{GRADED}, {{pairs: expert_over, of: a}}",
            play="{explore: {agent: a, mark: '{task} good'}}",
        ),
        r"recipe\.learn_a\.expert_over: .*several marks: a '\{task\} good', the expert none",
    ),
    "branches of what is played under a mark": (
        recipe(
            "{branch: {agent: a, of: a, at: failed_turns, into: b}}",
            play="{explore: {agent: a, mark: '{task} good'}}",
        ),
        r"recipe\.branch_b\.of: a is played under the mark '\{task\} good'; expected collections without",
    ),
    "pairs across marks": (
        recipe(
            source=f"{GRADED}, {{pairs: better_over_worse, of: [a, b]}}",
            play="{explore: {agent: a, mark: '{task} good'}}, {explore: {agent: a, into: b}}",
        ),
        "several marks: a '{task} good', b none".replace("{", r"\{").replace("}", r"\}"),
    ),
    "an evaluation played twice": (
        recipe(evaluated(mark=GOOD), evaluated(name="again", mark=GOOD)),
        "evaluate_again plays the very episodes of evaluate_a; leave it out",
    ),
    "two evaluations of one name": (
        recipe(evaluated(), evaluated(mark=GOOD)),
        "evaluate a stands twice in a round; give one name: another name",
    ),
    "a lead that is only evaluated under names": (
        recipe(evaluated(name="best", mark=GOOD)),
        "a is evaluated as best alone; expected one evaluation without a name",
    ),
    "an evaluation with another agent's name": (
        recipe(evaluated(), "{explore: {agent: b}}", evaluated(name="b", mark=GOOD)),
        "the name of the agent b for an evaluation of a",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_where_it_is(name, tmp_path):
    text, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_builder_of_the_users_own_without_the_option_is_trusted(tmp_path):
    source = "{imitate: 'tests.config.test_marks:own_marks', of: a, weight: 1}"
    assert mark_of(load(tmp_path, recipe(evaluated(mark=BAD), source=source)).recipe, "a") == BAD


def test_pairs_within_a_mark_may_stand(tmp_path):
    source = f"{GRADED}, {{pairs: better_over_worse, of: a}}"
    play = "{explore: {agent: a, mark: '{task} good'}}"
    load(tmp_path, recipe(source=source, play=play), more="explore: {samples: 2}\n")


def test_a_row_may_be_too_short_for_a_mark(tmp_path):
    """What is learned under a mark can be longer than what was played."""
    more = "batch: {too_long: cut}\n"
    assert load(tmp_path, recipe(evaluated(mark=GOOD)), more=more).batch.too_long == "cut"
    with pytest.raises(ConfigError, match=r"too_long: found .*does nothing"):
        load(tmp_path, recipe(evaluated(), source="{imitate: successes, of: a, weight: 1}"), more=more)


def test_a_mark_that_the_chat_format_cannot_hold_is_refused_before_a_run_begins(tmp_path):
    folder = tmp_path / "tokenizer"
    make_tokenizer("qwen25").save_pretrained(folder)
    more = f"tokenizer: {{path: {folder}}}\n"
    check_world(load(tmp_path, recipe(evaluated(mark=GOOD)), more=more))
    text = recipe(source=GRADED.replace("good", "<|im_end|> good"))
    with pytest.raises(
        ConfigError, match=r"recipe\.learn_a\.graded\.marks: the chat format cannot hold .*<\|im"
    ):
        check_world(load(tmp_path, text, more=more))
