"""A weak model beside an agent, as a recipe says it: what is read, overridden and refused."""

from pathlib import Path

import pytest

from coevo_jax.config.beside import BesideOptions, DrawOptions
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.recipe_queries import learnings_of
from coevo_jax.config.remarks import remarks
from coevo_jax.config.strict import ConfigError
from coevo_jax.recipe import find_phase
from coevo_jax.run_folder.manifest import Manifest, PhaseRecord
from coevo_jax.run_folder.weak_models import needed_checkpoints, previous_of

QUICKSTART = Path(__file__).parents[2] / "configs/quickstart-wmss.yaml"
IMITATE = "{imitate: experts, of: a, weight: 1.0}"


def load(tmp_path: Path, beside: str, *overrides: str, sources: str = IMITATE, more: str = ""):
    path = tmp_path / "own.yaml"
    learn = f"{{learn: {{agent: a, beside: {beside}, sources: [{sources}]}}}}"
    path.write_text(f"recipe: [{{explore: {{agent: a}}}}, {learn}]\n{more}")
    return load_config(path, overrides)


def test_the_shipped_recipe_has_the_papers_numbers_and_they_are_the_defaults():
    (learning,) = learnings_of(load_config(QUICKSTART).recipe)
    assert learning.beside == BesideOptions(
        weak="previous_round", mix=0.5, sampling=DrawOptions(alpha=0.1, beta=0.8, gamma=0.1)
    )
    assert learning.beside == BesideOptions()


def test_overrides_reach_it_by_its_key(tmp_path):
    own = ["mix=0.42", "sampling.draws=40", "train_weak=true"]
    config = load_config(QUICKSTART, [f"recipe.learn_target.beside.{one}" for one in own])
    (learning,) = learnings_of(config.recipe)
    assert learning.beside == BesideOptions(mix=0.42, train_weak=True, sampling=DrawOptions(draws=40))
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config
    plain = load_config(QUICKSTART, ["recipe.learn_target.beside=null"])
    assert learnings_of(plain.recipe)[0].beside is None
    fresh = load_config(QUICKSTART, ["recipe=rft", "recipe.learn_target.beside.mix=0.3"])
    assert learnings_of(fresh.recipe)[0].beside == BesideOptions(mix=0.3)
    with pytest.raises(ConfigError, match="mix has no keys of its own"):
        load_config(QUICKSTART, ["recipe.learn_target.beside.mix.share=1"])


WRONG = {
    "a share of all": ("{mix: 1.0}", "mix"),
    "an unknown model": ("{weak: weakest}", "weak"),
    "an unknown key": ("{mux: 0.5}", r"mux.*did you mean 'mix'"),
    "no draws": ("{sampling: {draws: 0}}", "draws"),
    "a negative weight": ("{sampling: {beta: -1}}", "beta"),
    "draws by nothing": (
        "{sampling: {alpha: 0, beta: 0, gamma: 0}}",
        r"recipe\.learn_a\.beside\.sampling: alpha, beta and gamma are all 0, expected one above 0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_refused(name, tmp_path):
    beside, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, beside)


def test_pairs_are_refused_beside_it(tmp_path):
    with pytest.raises(
        ConfigError, match=r"learn_a\.beside: mixed logits are for imitation: found the pairs"
    ):
        load(tmp_path, "{mix: 0.5}", sources=f"{IMITATE}, {{pairs: expert_over, of: a}}")


def test_adapters_on_a_warm_start_have_no_model_before_it(tmp_path):
    full = "model: {lora: {rank: 4}}\n"
    for weak in ("initial", "previous_round"):
        with pytest.raises(
            ConfigError, match=rf"beside\.weak: found {weak}, expected warm_start: under model"
        ):
            load(tmp_path, f"{{weak: {weak}}}", more=full)
        load(tmp_path, f"{{weak: {weak}}}", more="model: {lora: {rank: 4, warm_start: adapter}}\n")
    load(tmp_path, "{weak: warm_start}", more=full)


def test_a_first_learning_beside_the_warm_start_is_remarked(tmp_path):
    (remark,) = remarks(load(tmp_path, "{weak: warm_start}"))
    assert remark.startswith("recipe.learn_a.beside.weak is warm_start: in round 1 that is the agent itself")
    assert not list(remarks(load(tmp_path, "{weak: previous_round}")))


def begun(name: str, number: int) -> PhaseRecord:
    return PhaseRecord(name=name, records={"began_with": number})


def test_a_weak_models_checkpoint_is_kept_until_the_round_after_the_next_learning():
    config = load_config(QUICKSTART)
    done = tuple(begun(f"round-0{number}/learn_target", 10 * number) for number in (1, 2))
    manifest = Manifest(config_sha256="", done=done)
    assert needed_checkpoints(config, manifest) == {10, 20}
    running = begun("round-03/learn_target", 30)
    assert needed_checkpoints(config, Manifest(config_sha256="", done=done, running=running)) == {20, 30}
    other = load_config(QUICKSTART, ["recipe.learn_target.beside.weak=warm_start"])
    assert needed_checkpoints(other, manifest) == set()
    assert previous_of(config, find_phase(config, "round-01/learn_target")) is None
    before = previous_of(config, find_phase(config, "round-03/learn_target"))
    assert before is not None and before.name == "round-02/learn_target"
