"""Configs of format 1, before recipes: translated whole, or refused with the new words for each old key."""

import tarfile
from pathlib import Path

import pytest

from coevo_jax.config.old_form import is_old, new_words, translated
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
# Every shipped config as the last commit before recipes resolved it; a name's folders are parted by "--".
ARCHIVE = Path(__file__).parent / "old_configs.tar.xz"
with tarfile.open(ARCHIVE) as _archive:
    SHIPPED = {
        member.name: file.read().decode()
        for member in _archive.getmembers()
        if (file := _archive.extractfile(member))
    }


def load(folder: Path, text: str, *overrides: str):
    path = folder / "old.yaml"
    path.write_text(text)
    return load_config(path, overrides)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "--" in name else ()) for name in SHIPPED]
)
def test_every_config_that_was_shipped_is_todays_of_that_name(name, tmp_path):
    assert load(tmp_path, SHIPPED[name]) == load_config(CONFIGS / name.replace("--", "/"))


def test_the_archive_has_every_kind_of_config():
    assert len(SHIPPED) == 44
    assert {name.partition("--")[0] for name in SHIPPED if "--" in name} == {"paper"}


SHORT = """\
rounds: 1
explore: {samples: 2}
"""
ETO = """\
target:
  pairs: {expert_target: {sft: 0.5}}
  beta: [0.2]
failure: {explore: false}
"""


def test_a_chain_of_old_files_is_translated_as_a_whole_and_said_so_once(tmp_path, capsys):
    (tmp_path / "parent.yaml").write_text(SHORT + "target: {pairs: {expert_target: {dpo: 0.25}}}\n")
    config = load(tmp_path, f"extends: parent.yaml\n{ETO}")
    path = tmp_path / "new.yaml"
    path.write_text(
        SHORT + "format: 2\nrecipe: eto\nagents: {target: {beta: [0.2]}}\n",
    )
    assert config == load_config(path, ["recipe.learn_target.expert_target.dpo=0.25"])
    load_config(tmp_path / "old.yaml")
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"{tmp_path / 'old.yaml'}: was read as a config of format 1")
    assert "CHANGELOG.md" in line


def test_a_config_of_todays_form_is_left_as_it_is():
    data = {"recipe": "eto", "evaluate": {"split": "dev"}, "rollout": {"server": {"url": "http://a/v1"}}}
    assert translated(data, {}, "new.yaml") is data
    assert not is_old({"rounds": 0})


def sources(config, phase: str) -> list[dict]:
    (found,) = [one for one in config.recipe if one.name == phase]
    return [source.model_dump(exclude_defaults=True) for source in found.learn.sources]


def test_what_an_agent_learned_from_becomes_its_sources_in_the_old_order(tmp_path):
    text = SHORT + (
        "target:\n"
        "  sft_experts: 0.3\n"
        "  sft_successes: 0.2\n"
        "  max_extra_turns: 2\n"
        "  cross_agent_only: true\n"
        "  pairs: {failure_failure: {dpo: 0.1}, expert_failure: {loss: ipo}, expert_target: {sft: 0.4}}\n"
        "failure:\n"
        "  cross_agent_only: true\n"
        "  max_extra_turns: 2\n"
        "  pairs: {failure_failure: {dpo: 1.0}}\n"
        "evaluate: {failure_agent: false}\n"
    )
    config = load(tmp_path, text)
    of_target = [
        {"of": ("target",), "kind": "expert_target", "sft": 0.4, "max_extra_turns": 2},
        {"of": ("hard_negatives",), "kind": "expert_failure", "loss": "ipo", "max_extra_turns": 2},
        {
            "of": ("target", "hard_negatives"),
            "kind": "failure_failure",
            "dpo": 0.1,
            "across": True,
            "max_extra_turns": 2,
        },
        {"imitate": "successes", "of": ("target",), "weight": 0.2},
        {"imitate": "experts", "of": ("target",), "weight": 0.3},
    ]
    for one, builder in zip(of_target, ["expert_over", "expert_over", "better_over_worse"], strict=False):
        one["pairs"] = builder
    assert sources(config, "learn_target") == of_target
    # No expert was at hand to cut by where the failure agent learned from failures alone.
    assert sources(config, "learn_failure") == [
        {
            "pairs": "better_over_worse",
            "of": ("target", "failure"),
            "kind": "failure_failure",
            "dpo": 1.0,
            "across": True,
        }
    ]
    assert [phase.name for phase in config.recipe] == [
        "explore_target",
        "explore_failure",
        "learn_failure",
        "explore_hard_negatives",
        "learn_target",
        "evaluate_target",
    ]


def test_a_failure_agent_with_experts_is_cut_by_them(tmp_path):
    text = SHORT + (
        "target: {pairs: {expert_target: {}}}\n"
        "failure:\n"
        "  pairs: {expert_target: {}, expert_failure: {}, failure_failure: {}}\n"
        "  max_extra_turns: null\n"
    )
    assert sources(load(tmp_path, text), "learn_failure") == [
        {"pairs": "expert_over", "of": ("target",), "kind": "expert_target", "max_extra_turns": None},
        {"pairs": "expert_over", "of": ("failure",), "kind": "expert_failure", "max_extra_turns": None},
        {"pairs": "better_over_worse", "of": ("target", "failure"), "kind": "failure_failure"},
    ]


def test_without_rounds_and_without_learning_there_are_no_options_of_agents(tmp_path):
    assert load(tmp_path, f"rounds: 0\n{ETO}").agents == {}
    frozen = load(
        tmp_path, SHORT + "target: {pairs: {expert_failure: {}}}\nfailure: {learn: false, epochs: 1}\n"
    )
    assert list(frozen.agents) == ["target"]
    assert "learn_failure" not in [phase.name for phase in frozen.recipe]


def test_the_failure_agents_server_is_found_by_its_name(tmp_path):
    server = "rollout: {server: {url: 'http://a/v1', failure_url: 'http://b/v1', load: vllm}}\n"
    pairs = "target: {pairs: {expert_target: {}}}\nfailure: {learn: false}\n"
    config = load(tmp_path, SHORT + server + pairs)
    assert config.rollout.server is not None
    assert config.rollout.server.urls == {"failure": "http://b/v1"}


def test_a_recipe_may_be_put_over_an_old_file(tmp_path):
    config = load(
        tmp_path, SHORT + "target: {pairs: {expert_target: {}}}\n" + "failure: {learn: false}\n", "recipe=rft"
    )
    assert [phase.name for phase in config.recipe] == ["explore_target", "learn_target", "evaluate_target"]


def test_keys_of_both_forms_are_refused_each_with_its_new_words_and_its_file(tmp_path):
    (tmp_path / "new.yaml").write_text(SHORT + "recipe: eto\n")
    text = (
        "extends: new.yaml\n"
        "target: {beta: [0.1], pairs: {expert_failure: null, expert_target: {dpo: 0.3}}}\n"
        "failure: {explore: false}\n"
        "evaluate: {failure_agent: false}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    lines = str(error.value).splitlines()
    path = tmp_path / "old.yaml"
    assert [line.split(": ")[:2] for line in lines] == [
        [str(path), key]
        for key in (
            "target.beta",
            "target.pairs.expert_failure",
            "target.pairs.expert_target.dpo",
            "failure.explore",
            "evaluate.failure_agent",
        )
    ]
    assert "agents.target.beta" in lines[0]
    assert "recipe.learn_target.expert_target.dpo" in lines[2]
    assert "recipe: eto" in lines[3]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("target.beta=[0.1]", "target.beta is now agents.target.beta"),
        ("failure.loss_options={simpo: {gamma: 1.0}}", "is now agents.failure.loss_options"),
        ("failure.explore=false", "failure.explore is now a recipe: eto"),
        ("failure.learn=false", "failure.learn is now a recipe: frozen-failure"),
        ("target.pairs.expert_failure.dpo=1", "recipe.learn_target.expert_failure.dpo"),
        ("target.pairs.expert_failure=null", "has no source of kind expert_failure"),
        ("target.pairs={expert_target: {}}", "recipe.learn_target.KIND.dpo"),
        ("failure.cross_agent_only=true", "recipe.learn_failure.failure_failure.across"),
        ("target.max_extra_turns=2", "recipe.learn_target.expert_target.max_extra_turns"),
        ("target.sft_successes=0.5", "{imitate: successes, of: target, weight: 0.5}, as in recipe: rft"),
        ("target.sft_experts=0.5", "{imitate: experts, of: target, weight: 0.5}, as in recipe: sft-more"),
        ("evaluate.failure_agent=false", "evaluate: {agent: failure}"),
        ("rollout.server.failure_url=http://b/v1", "rollout.server.urls: {failure: http://b/v1}"),
        ("target={epochs: 2}", "target is now agents.target"),
    ],
)
def test_an_override_in_old_words_is_refused_with_the_new_ones(override, words):
    with pytest.raises(ConfigError) as error:
        load_config(CONFIGS / "quickstart.yaml", [override])
    assert str(error.value).startswith(f"override '{override}': {override.partition('=')[0]} ")
    assert words in str(error.value)


@pytest.mark.parametrize("recipe", ["rft", "sft-more", "eto", "frozen-failure"])
def test_the_recipes_that_new_words_name_exist(recipe):
    load_config(CONFIGS / "quickstart.yaml", [f"recipe={recipe}", "explore.samples=2"])


def test_other_keys_have_no_new_words():
    assert new_words("rounds", 1) is None
    assert new_words("agents.target.beta", [0.1]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target: 5\n", "target: found 5, expected a mapping of keys"),
        ("failure: {explore: maybe}\n", "failure.explore: found 'maybe', expected true or false"),
        ("target: {pairs: {expert_targt: {}}}\n", "did you mean 'expert_target'?"),
        (
            "target: {pairs: {expert_target: {dp: 1}}}\nfailure: {explore: false}\n",
            "recipe.learn_target.expert_target: dp: unknown key",
        ),
        (
            "target: {bta: [0.1], pairs: {expert_target: {}}}\nfailure: {explore: false}\n",
            "agents.target.bta: unknown key (did you mean 'beta'?)",
        ),
        (
            "target: {pairs: {expert_target: {}}}\nfailure: {sft_experts: 1.0}\n",
            "failure.sft_experts: the failure agent",
        ),
        ("target: {beta: [0.1]}\nfailure: {explore: false}\n", "target: nothing to learn from"),
        ("target: {pairs: {expert_target: {}}}\n", "failure: nothing to learn from"),
    ],
)
def test_what_was_wrong_in_the_old_form_still_is(text, words, tmp_path):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert words in str(error.value)
