"""What is reinforced, in configs: what cannot be is refused with the reason, what seems otherwise is said."""

from pathlib import Path
from typing import Any

import pytest

from coevo_jax.config.reading import load_config
from coevo_jax.config.remarks import remarks
from coevo_jax.config.strict import ConfigError
from coevo_jax.config.yaml_text import write_yaml
from coevo_jax.learning.agent_loss import agent_losses
from coevo_jax.learning.surrogate import Surrogate

SOURCE = {"reinforce": "gigpo", "of": ["target"]}


def written(folder: Path, *sources: dict[str, Any], before: tuple[Any, ...] = (), **learn: Any) -> Path:
    phases = [
        {"explore": {"agent": "target"}},
        *before,
        {"learn": {"agent": "target", "sources": list(sources)} | learn},
    ]
    path = folder / "run.yaml"
    path.write_text(write_yaml({"recipe": phases, "explore": {"samples": 4}}))
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        agent_losses(load_config(path, overrides))
    (line,) = str(caught.value).splitlines()
    return line


def test_an_override_names_a_source_by_its_builder_and_the_surrogate_is_the_agents(tmp_path):
    path = written(tmp_path, SOURCE)
    config = load_config(path, ["recipe.learn_target.gigpo.omega=0.5", "agents.target.surrogate.kl=0.01"])
    (source,) = config.recipe[1].learn.reinforcements
    assert source.options == {"omega": 0.5} and source.weight == 1.0
    loss = agent_losses(config)["target"]
    assert loss.surrogate == Surrogate(clip_low=0.2, clip_high=0.2, kl=0.01)
    assert agent_losses(load_config(path, ["recipe=eto"]))["target"].surrogate is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("explore.samples=1", "recipe.learn_target.gigpo needs two trajectories of a task"),
        ("recipe.learn_target.gigpo.omega=0", "omega: found 0 (integer), expected a value greater than 0"),
        ("recipe.learn_target.gigpo.gamma=1.5", "gamma: found 1.5 (number), expected a value less than"),
        ("recipe.learn_target.gigpo.anchor=state", "expected 'observation' or 'history'"),
        ("recipe.learn_target.gigpo.reinforce=gigp", "(did you mean 'gigpo'?)"),
        ("recipe.learn_target.gigpo.weight=0", "expected a value greater than 0"),
        ("agents.target.surrogate.clip_low=1", "expected a value less than 1"),
        ("agents.target.turn_discount=0.5", "which does nothing: what is reinforced has a weight of its own"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tmp_path, override, words):
    assert words in refusal(written(tmp_path, SOURCE), override)


def test_a_loss_that_couples_pairs_is_refused_beside_it(tmp_path):
    pairs = {"pairs": "better_over_worse", "of": "target"}
    path = written(tmp_path, SOURCE, pairs)
    load_config(path)
    assert "agents.target.loss: found one that looks at all pairs of a step" in refusal(
        path, "agents.target.loss=kto"
    )
    agent_losses(load_config(written(tmp_path, SOURCE)))


def test_branches_and_a_weak_model_beside_it_are_refused(tmp_path):
    branch = {"branch": {"agent": "target", "of": ["target"], "into": "later", "at": "failed_turns"}}
    path = written(tmp_path, SOURCE | {"of": ["later"]}, before=(branch,))
    assert "later is played from the middle of episodes" in refusal(path)
    path = written(tmp_path, SOURCE, beside={"weak": "warm_start"})
    assert "mixed logits are for imitation: found gigpo, which reinforces" in refusal(path)


def test_another_distribution_than_the_policys_own_is_remarked_on(tmp_path):
    path = written(tmp_path, SOURCE)
    assert not list(remarks(load_config(path)))
    (remark,) = remarks(load_config(path, ["explore.temperature=0.7", "explore.top_p=0.9"]))
    assert remark.startswith("explore draws tokens with temperature 0.7, top_p 0.9, and what is reinforced")
    assert not list(remarks(load_config(path, ["explore.temperature=0.7", "recipe=eto"])))
