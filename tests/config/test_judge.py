"""A discriminator as a recipe says it: what is read, overridden and refused."""

from pathlib import Path

import pytest

from coevo_jax.config.check_judge import judges_experts
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.recipe_queries import agents_of, judgings_of, played_of, players_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.recipe import find_phase, schedule

QUICKSTART = Path(__file__).parents[2] / "configs/quickstart-stepagent-inverse.yaml"
BRANCH = "{branch: {agent: a, into: own, at: expert_turns, turns: 1, samples: 2}}"
JUDGE = "{judge: {of: own, into: rewards}}"
LEARN = "{learn: {agent: a, sources: [{reinforce: judged_steps, of: rewards}]}}"


def load(tmp_path: Path, *phases: str, more: str = ""):
    path = tmp_path / "own.yaml"
    path.write_text(f"recipe: [{', '.join(phases)}, {{evaluate: {{agent: a}}}}]\n{more}")
    return load_config(path)


def test_a_discriminator_is_no_agent_and_has_a_phase_of_its_own(tmp_path):
    config = load_config(QUICKSTART)
    assert agents_of(config.recipe) == players_of(config.recipe) == tuple(config.agents) == ("target",)
    assert played_of(config.recipe) == {"own": "branch_own", "judged": "judge_judged"}
    phase = find_phase(config, "round-02/judge_judged")
    assert (phase.kind, phase.agent, phase.stem) == ("judge", "judge", "round-02-judge-judged")
    assert [one.kind for one in schedule(config)][2:6] == ["branch", "judge", "learn", "evaluate"]
    assert judges_experts(config) == ["recipe.judge_judged"]
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_overrides_reach_it_by_its_collection():
    config = load_config(QUICKSTART, ["recipe.branch_own.into=mine", "recipe.judge_judged.of=mine"])
    assert judgings_of(config.recipe)[0].judge.of == ("mine",)
    among = load_config(QUICKSTART, ["recipe.learn_target.judged_steps.among=round", "judge.epochs=2"])
    assert among.judge.epochs == 2


def test_it_may_alternate_with_the_agent_several_times_in_a_round(tmp_path):
    again = [one.replace("own", "more") for one in (BRANCH, JUDGE.replace("rewards", "praise"))]
    second = LEARN.replace("rewards", "praise").replace("agent: a,", "agent: a, name: second,")
    config = load(tmp_path, BRANCH, JUDGE, LEARN, *again, second)
    assert [phase.name for phase in judgings_of(config.recipe)] == ["judge_rewards", "judge_praise"]
    stems = {phase.stem for phase in schedule(config) if phase.kind in ("judge", "learn")}
    assert len(stems) == 4 * config.rounds


WRONG = {
    "nobody learns": (
        (BRANCH, JUDGE, "{learn: {agent: a, sources: [{pairs: expert_step_over, of: own}]}}"),
        r"recipe\.judge_rewards: nobody learns from rewards",
    ),
    "not played": ((JUDGE, LEARN), r"recipe\.judge_rewards\.of: no phase plays own"),
    "too early": ((JUDGE, BRANCH, LEARN), r"recipe\.judge_rewards\.of: own is learned from before it is"),
    "no collection": (
        (BRANCH, "{judge: {into: rewards}}", LEARN),
        r"judge\.of: missing, and it has no default",
    ),
    "an agent": ((BRANCH, "{judge: {of: own, into: rewards, agent: a}}", LEARN), "agent"),
    "answers": (
        (
            BRANCH,
            "{ask: {agent: a, of: own, question: why_expert, into: why}}",
            "{judge: {of: why, into: rewards}}",
            LEARN,
        ),
        r"recipe\.judge_rewards\.of: why is what ask makes; expected what explore or branch plays into",
    ),
    "proposals": (
        (
            "{explore: {agent: a}}",
            "{branch: {agent: a, of: a, into: own, at: expert_proposals, samples: 2}}",
            JUDGE,
            LEARN,
        ),
        r"recipe\.judge_rewards\.of: own begins with proposals, which no agent drew",
    ),
    "unjudged": (
        (BRANCH, JUDGE, LEARN.replace("of: rewards", "of: [rewards, own]")),
        r"judged_steps\.of: branch plays into own, of which it makes nothing; expected judge",
    ),
    "judged pairs": (
        (BRANCH, JUDGE, LEARN.replace("]}}", ", {pairs: expert_over, of: rewards}]}}")),
        r"expert_over\.of: rewards are judged, of which it makes nothing",
    ),
    "one sample": (
        (BRANCH.replace("samples: 2", "samples: 1"), JUDGE, LEARN),
        r"judged_steps\.among is state, and recipe\.branch_own\.samples is 1: .* every advantage would be 0",
    ),
    "one episode": (
        ("{explore: {agent: a, into: own}}", JUDGE, LEARN),
        r"judged_steps\.among is state, and explore\.samples is 1",
    ),
    "a name of its own": (
        (one.replace("agent: a", "agent: judge") for one in (BRANCH, JUDGE, LEARN)),
        r"recipe: the name judge is the discriminator's in logs",
    ),
    "an unknown option": (
        (BRANCH, JUDGE, LEARN.replace("of: rewards", "of: rewards, rewards: gail")),
        r"rewards.*did you mean 'reward'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_judged_or_does_nothing_is_refused(name, tmp_path):
    phases, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, *phases)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("judge: {learning_rate: [0.0]}", r"judge\.learning_rate: found \[0.0\], expected values above 0"),
        ("judge: {learning_rate: []}", r"judge\.learning_rate: found \[\]"),
        (
            "budget: {learned_tokens: [5, 5, 5]}",
            r"budget\.learned_tokens: found judge_rewards in the recipe, whose tokens no budget holds back",
        ),
    ],
)
def test_options_beside_it_are_checked(more, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, BRANCH, JUDGE, LEARN, more=more)


def test_whole_episodes_are_judged_with_several_samples_or_another_group(tmp_path):
    explore = "{explore: {agent: a, into: own}}"
    load(tmp_path, explore, JUDGE, LEARN, more="explore: {samples: 2}")
    load(tmp_path, explore, JUDGE, LEARN.replace("of: rewards", "of: rewards, among: round"))
