"""Options that do nothing: who sets one is told so, who inherits it is not, and every option has decided."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import coevo_jax.coevolution as coevolution
from coevo_jax.config.help import describe
from coevo_jax.config.idle import NEVER_IDLE, RULES, Rule
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config, load_resolved, to_yaml
from coevo_jax.config.remarks import remarks
from coevo_jax.config.strict import ConfigError
from coevo_jax.config.yaml_text import write_yaml

SERVER = {"url": "http://h/v1", "load": "vllm"}


def eto(source: str) -> list[Any]:
    """ETO with another source."""
    options = dict(part.split("=") for part in source.split())
    sources = [{"pairs": "expert_over", "of": "target", "dpo": 0.5} | {**options}]
    phases = [{"explore": {"agent": "target"}}, {"learn": {"agent": "target", "sources": sources}}]
    return [*phases, {"evaluate": {"agent": "target"}}]


def branching(**options: Any) -> dict[str, Any]:
    """A recipe in which nothing is explored from the tasks' starts."""
    phases = [{"branch": {"agent": "target", "into": "own", "at": "expert_turns"} | options}]
    sources = [{"pairs": "expert_over", "of": "own"}]
    phases += [{"learn": {"agent": "target", "sources": sources}}]
    return {"recipe": [*phases, {"evaluate": {"agent": "target"}}]}


# What makes the options of a rule idle, by the name of its reason.
SITUATIONS: dict[str, dict[str, Any]] = {
    "_no_rounds": {"rounds": 0},
    "_no_adapter": {"rounds": 0},
    "greedy": {"explore": {"temperature": 0}},
    "plays_alone": {},
    "no_exploration": branching(),
    "other_temperatures": branching(temperature=0.7),
    "why": {"rounds": 1},  # of a list that is longer
    "never_plays": {"rollout": {"server": SERVER}},
    "_no_process": {},
    "_given_tokenizer": {"tokenizer": {"path": "x"}},
    "_no_data": {},
    "_no_window": {},
    "_all_windows": {
        "model": {"layer_types": ["sliding"], "sliding_window": 8, "sliding_rope_theta": 5.0},
    },
    "_unscaled": {},
    "_linear": {"model": {"rope_scaling": {"kind": "linear", "factor": 2}}},
    "_more_layer_types": {"model": {"num_layers": 2}},
    "_no_pairs_at_all": {"recipe": "rft"},
    "_fits": {},
    "_no_match": {},
    "_no_run": {},
    "_no_pairs_of_lead": {"recipe": "rft"},
    "_match_without_pairs": {"recipe": "rft", "budget": {"run": "x", "match": ["explored_tokens"]}},
    "_no_pairs_of_one": {"recipe": "rft"},
    "_no_preference": {"recipe": "rft"},
    "_own_losses": {"recipe": eto("loss=hinge")},
    "_no_reference": {"agents": {"target": {"loss": "simpo"}}},
    "_no_beta": {"agents": {"target": {"loss": "sft"}}},
    "_other_divergence": {},
    "_no_imitation": {"recipe": eto("")},
    "_steps_by_budget": {"budget": {"learned_tokens": [5, 5, 5]}},
    "_learns_once": {"rounds": 1},
    "no_lone_reinforcement": {},
    "_no_term_with_reference": {"recipe": "rft"},
    "no_reinforcement": {},
    "no_credit": {"recipe": "grpo", "explore": {"samples": 2}},
    "_no_judge": {},
}
VALUES: dict[str, Any] = {
    "rollout.server": SERVER,
    "rollout.server.urls.NAME": "http://b/v1",
    "explore.tasks": ["0:5", "5:9"],
    "explore.samples": 2,
    "explore.temperature": 0.5,
    "explore.top_p": 0.9,
    "explore.top_k": 5,
    "explore.min_p": 0.1,
    "explore.together": False,
    "env.process_memory_mib": 99,
    "tokenizer.vocab_size": 2048,
    "warm_start.data_errors": "skip",
    "warm_start.best_of_task": True,
    "model.lora": {"rank": 4},
    "model.layer_types": ["full", "full", "full"],
    "model.rope_theta": 5.0,
    "model.rope_scaling": {"kind": "llama3", "factor": 1},
    "model.rope_scaling.low_freq_factor": 0.5,
    "model.rope_scaling.high_freq_factor": 5.0,
    "model.rope_scaling.original_max_positions": 64,
    "model.sliding_rope_theta": 5.0,
    "batch.pairs": 8,
    "batch.step_pairs": 8,
    "batch.step_episodes": 8,
    "batch.too_long": "cut",
    "budget.run": "x",
    "budget.match": ["pairs"],
    "budget.pairs": [5, 5, 5],
    "budget.explored_tokens": [5, 5, 5],
    "budget.learned_tokens": [5, 5, 5],
    "agents.NAME.max_pairs_per_kind": 2,
    "agents.NAME.pairs_kept": "drawn",
    "agents.NAME.sft_reduction": "sum",
    "agents.NAME.loss": "ipo",
    "agents.NAME.loss_options": {"sigmoid": {"label_smoothing": 0.1}},
    "agents.NAME.divergence": "js",
    "agents.NAME.divergence_alpha": 0.3,
    "agents.NAME.ld_alpha": 0.5,
    "agents.NAME.wpo": True,
    "agents.NAME.turn_discount": 0.5,
    "agents.NAME.surrogate.clip_low": 0.1,
    "agents.NAME.surrogate.clip_high": 0.3,
    "agents.NAME.surrogate.reduction": "turn",
    "agents.NAME.surrogate.kl": 0.01,
    "agents.NAME.surrogate.skip_zero": True,
    "agents.NAME.beta": [0.2, 0.3],
    "agents.NAME.learning_rate": [1e-3, 1e-4],
    "agents.NAME.warmup_fraction": 0.5,
    "agents.NAME.epochs": 9,
    "agents.NAME.reference": "warm_start",
    "agents.NAME.reference_every": 3,
    "agents.NAME.keep_optimizer": True,
    "judge.learning_rate": [1e-3, 1e-4],
    "judge.warmup_fraction": 0.5,
    "judge.epochs": 2,
    "judge.read": "mean",
}
CASES = [(rule, key) for rule in RULES for key in rule.keys]


def merged(one: Any, other: Any) -> Any:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    return {key: merged(one.get(key), other[key]) if key in other else one[key] for key in one | other}


def case(rule: Rule, pattern: str) -> tuple[dict[str, Any], str, Any, dict[str, Any]]:
    """What makes a key idle; the key, its value, and both as a nested mapping."""
    name = "failure" if "urls" in pattern else "target"
    key, value = pattern.replace("NAME", name), VALUES[pattern]
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return merged({"recipe": "eto"}, SITUATIONS[rule.why.__name__]), key, value, nested


def write(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(write_yaml(data))
    return path


def refusal(*arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*arguments)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("rule", "pattern"), CASES, ids=[f"{rule.why.__name__}-{key}" for rule, key in CASES]
)
def test_an_idle_option_is_refused_of_who_sets_it_and_passes_for_who_inherits_it(rule, pattern, tmp_path):
    situation, key, value, nested = case(rule, pattern)
    whole = merged(situation, nested)
    path = write(tmp_path / "whole.yaml", whole)
    assert refusal(path).startswith(f"{path}: {key}: found "), refusal(path)
    assert "which does nothing: " in refusal(path)
    override = f"{key}={write_yaml(value, inline=True).strip()}"
    alone = write(tmp_path / "alone.yaml", situation)
    load_config(alone)
    assert refusal(alone, [override]).startswith(f"override '{override}': {key}: found ")
    inherits = write(tmp_path / "inherits.yaml", {"extends": "whole.yaml", "seed": 3})
    load_config(inherits)
    write(tmp_path / "base.yaml", nested | {"recipe": "eto"} if "server" not in key else whole)
    load_config(write(tmp_path / "child.yaml", {"extends": "base.yaml"} | situation))


def test_every_option_says_when_it_is_idle_or_that_it_never_is():
    in_rules = {key.removesuffix(".NAME") for rule in RULES for key in rule.keys}
    assert not in_rules & NEVER_IDLE
    options = {row[0] for row in describe(Config)}
    assert in_rules | NEVER_IDLE == options
    assert {key for _, key in CASES} == set(VALUES)
    assert {rule.why.__name__ for rule in RULES} == set(SITUATIONS)


def test_the_config_of_a_run_is_read_with_whatever_is_idle_in_it(tmp_path):
    write(tmp_path / "base.yaml", {"explore": {"top_p": 0.9}, "env": {"process_memory_mib": 99}})
    path = write(
        tmp_path / "run.yaml", {"extends": "base.yaml", "recipe": "rft", "explore": {"temperature": 0}}
    )
    config, resolved = load_config(path), tmp_path / "config.yaml"
    resolved.write_text(to_yaml(config))
    assert load_resolved(resolved) == load_config(resolved) == config
    assert "override 'explore.min_p=0.1'" in refusal(resolved, ["explore.min_p=0.1"])
    of_an_earlier_version = [line for line in resolved.read_text().splitlines() if "seed: " not in line]
    resolved.write_text("\n".join(of_an_earlier_version))
    assert load_resolved(resolved) == config
    with pytest.raises(ConfigError, match="which does nothing"):
        load_config(resolved)


def test_an_option_that_a_later_word_makes_idle_passes(tmp_path):
    path = write(
        tmp_path / "run.yaml",
        {"recipe": "coevo", "explore": {"top_p": 0.9}, "agents": {"target": {"beta": [0.1, 0.2, 0.3]}}},
    )
    for later in (["rounds=1"], ["rounds=0"], ["explore.temperature=0"], ["recipe=rft"]):
        load_config(path, later)
    weights = [
        f"recipe.learn_target.{kind}.dpo=0" for kind in ("expert_target", "expert_failure", "failure_failure")
    ]
    load_config(path, [*weights, "recipe.learn_target.failure_failure.sft=1"])
    message = refusal(path, ["explore.temperature=0", "explore.min_p=0.1"])
    assert message.startswith("override 'explore.min_p=0.1': explore.min_p: found 0.1, which does nothing")


def test_what_branches_sample_by_is_not_idle(tmp_path):
    warm = branching(temperature=0.7)["recipe"]
    both = {"recipe": [{"explore": {"agent": "target"}}, *warm]}
    load_config(write(tmp_path / "warm.yaml", both | {"explore": {"temperature": 0, "top_p": 0.9}}))
    cold = write(tmp_path / "cold.yaml", branching(temperature=0.0))
    assert "which is greedy" in refusal(cold, ["explore.top_p=0.9"])


def test_an_idle_options_default_may_be_said(tmp_path):
    said = {"explore": {"top_p": 1.0, "temperature": 0}, "budget": {"run": None}, "env": {"processes": False}}
    load_config(write(tmp_path / "run.yaml", {"recipe": "eto"} | said))


def test_every_idle_option_is_told_at_once_and_what_lies_in_one_is_not_told_again(tmp_path):
    path = write(tmp_path / "run.yaml", {"rounds": 0, "rollout": {"server": SERVER}, "batch": {"pairs": 3}})
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["rollout.server", "batch.pairs"]


def test_a_reference_made_anew_at_every_step_is_remarked_on(tmp_path, monkeypatch, capsys):
    def said_at_start(config: Config) -> str:
        with pytest.raises(KeyboardInterrupt):
            coevolution.coevolve(SimpleNamespace(config=config))  # pyright: ignore[reportArgumentType]
        return capsys.readouterr().out

    def interrupted(run: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(coevolution, "prepare", interrupted)
    path = write(tmp_path / "run.yaml", {"recipe": "eto", "agents": {"target": {"reference_every": 1}}})
    (remark,) = remarks(load_config(path))
    assert (
        remark.startswith("agents.target.reference_every is 1: ") and "margins in the log will be 0" in remark
    )
    assert f"warning: {remark}" in said_at_start(load_config(path))
    for override in ("agents.target.reference_every=2", "rounds=0"):
        assert not list(remarks(load_config(path, [override])))
