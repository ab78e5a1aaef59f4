"""Reading a configuration: what loads, and that every mistake names its place and what was expected."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from coevo_jax.config.check import check, slice_bounds
from coevo_jax.config.help import describe, help_text
from coevo_jax.config.options import Config, EnvConfig
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.recipe_queries import learnings_of
from coevo_jax.config.strict import ConfigError, StrictModel, validate

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
COEVO = """
recipe:
  - explore: {agent: target}
  - explore: {agent: failure}
  - learn:
      agent: failure
      sources: [{pairs: better_over_worse, of: [target, failure], kind: failure_failure}]
  - explore: {agent: failure, into: hard_negatives}
  - learn: {agent: target, sources: [{pairs: expert_over, of: target, kind: expert_target, sft: 0.5}]}
  - evaluate: {agent: target}
agents:
  target:
    epochs: 2
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def message_of(call, *arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


# What loads


def test_values_and_defaults(write):
    config = load_config(write(COEVO + "rounds: 2\nseed: 7\n"))
    assert (config.rounds, config.seed, config.batch.rows) == (2, 7, Config().batch.rows)
    (source,) = learnings_of(config.recipe, "target")[0].pairs
    assert (source.label, source.dpo, source.sft, source.of) == ("expert_target", 0.5, 0.5, ("target",))
    assert list(config.agents) == ["target", "failure"] and config.agents["target"].epochs == 2


def test_yaml_scalars_are_those_of_yaml_1_2(write):
    config = load_config(
        write(
            COEVO.replace("  target:\n", "  target:\n    learning_rate: [1e-4, 1E3, 2, .5]\n")
            + "rounds: 4\nname: no\nevaluate: {tasks: 1:30}\nwarm_start: {tasks: 0:50, learning_rate: 1e-3}\n"
        )
    )
    assert config.agents["target"].learning_rate == (1e-4, 1000.0, 2.0, 0.5)
    assert config.warm_start.learning_rate == 1e-3
    assert (config.name, config.evaluate.tasks, config.warm_start.tasks) == ("no", "1:30", "0:50")


def test_extends_merges_mappings_and_the_child_wins(write, tmp_path):
    write(COEVO + "rounds: 5\nbatch: {rows: 4, pairs: 32}\n", "base.yaml")
    (tmp_path / "sub").mkdir()
    write("extends: ../base.yaml\nbatch: {rows: 2}\n", "sub/middle.yaml")
    path = write("extends: sub/middle.yaml\nrecipe: sft-more\n")
    config = load_config(path)
    assert (config.rounds, config.batch.rows, config.batch.pairs) == (5, 2, 32)
    (learning,) = learnings_of(config.recipe)
    assert [source.imitate for source in learning.imitations] == ["experts"] and not learning.pairs
    assert list(config.agents) == ["target"]  # the failure agent's options came before the recipe


def test_overrides_are_parsed_as_yaml_and_the_last_wins(write):
    path = write(COEVO)
    config = load_config(
        path,
        [
            "rounds=1",
            "rounds=2",
            "agents.target.beta=[0.2, 3e-1]",
            "recipe.learn_failure.failure_failure.dpo=0.25",
            "recipe.learn_target.expert_target.sft=0",
            "env.options={databases: 3}",
            "env.options.seed=4",
            "tokenizer.path=a=b",
        ],
    )
    assert config.rounds == 2 and config.agents["target"].beta == (0.2, 0.3)
    (failure,), (target,) = (learning.pairs for learning in learnings_of(config.recipe))
    assert failure.dpo == 0.25 and target.sft == 0
    assert config.env.options == {"databases": 3, "seed": 4} and config.tokenizer.path == "a=b"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_load_and_start_with_their_command(path):
    config = load_config(path)
    assert load_config(path, ["seed=3"]) == config.model_copy(update={"seed": 3})
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    command = next(line for line in header if "Command:" in line)
    assert path.name in command or path.name == "quickstart.yaml"
    for label in ("Needs:", "Takes:", "Comes out:"):
        assert any(label in line for line in header), label


def test_shipped_configs_have_distinct_run_folders():
    names = [load_config(path).name for path in SHIPPED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_resolved_yaml_reads_back_unchanged(path, write):
    config = load_config(path)
    text = to_yaml(config)
    assert load_config(write(text)) == config
    assert list(yaml.safe_load(text)) == list(Config.model_fields)


@given(text=st.text())
def test_any_text_survives_the_resolved_yaml(text, tmp_path_factory):
    config = Config(rounds=0, method=text, env=EnvConfig(name=text, options={"text": text, "texts": [text]}))
    path = tmp_path_factory.mktemp("resolved") / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8", newline="")
    assert load_config(path) == config
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == config.model_dump(mode="json")  # YAML 1.1


@given(rate=st.floats(min_value=1e-300, max_value=1e300))
def test_any_number_survives_the_resolved_yaml(rate, tmp_path_factory):
    config = validate(Config, {"rounds": 0, "warm_start": {"learning_rate": rate}}, "test")
    path = tmp_path_factory.mktemp("resolved") / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path).warm_start.learning_rate == rate


# Files that cannot be read


def test_missing_file_names_the_nearest(write):
    path = write(COEVO, "quickstart.yaml")
    assert f"did you mean {path}?" in message_of(load_config, path.with_name("quikstart.yaml"))
    assert "YAML files there: quickstart.yaml" in message_of(load_config, path.with_name("zzz.yaml"))
    assert "folder" in message_of(load_config, path.parent / "no" / "run.yaml")


def test_a_folder_or_binary_file_is_refused(tmp_path):
    assert str(tmp_path) in message_of(load_config, tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in message_of(load_config, binary)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (
            "rounds: 1\nseed: [1,\nname: x\n",
            r"line 4, column 1: expected ',' or '\]', .*flow sequence of line 2",
        ),
        ("rounds: 1\nbatch: {rows: 4}\nrounds: 2\n", r"line 3, column 1: found duplicate key .rounds. with"),
        ("batch:\n  rows: 1\n  rows: 1\n", r"line 3, column 3: found duplicate key .rows. with"),
        ("rounds: 1\n2: 3\n", r"line 2, column 1: key 2 is not a string"),
        ("name: !!python/object:os.system {}\n", r"line 1, column 7: could not determine a constructor"),
        ("- rounds\n", r"found a list at the top level, expected a mapping"),
        ("name: \x01\n", r"broken YAML"),
        ("extends: 3\n", r"extends: found 3, expected the name"),
    ],
)
def test_broken_yaml_names_file_line_and_problem(write, text, where):
    message = message_of(load_config, write(text))
    assert re.search(where, message) and "run.yaml" in message, message


def test_extends_takes_several_files_and_the_later_wins(write, tmp_path):
    write(COEVO + "seed: 1\nbatch: {rows: 2, row_length: 640}\n", "a.yaml")
    write("seed: 2\nbatch: {rows: 4}\n", "b.yaml")
    write("extends: b.yaml\nseed: 3\nrounds: 7\n", "c.yaml")
    config = load_config(write("extends: [a.yaml, b.yaml]\n"))
    assert (config.seed, config.batch.rows, config.batch.row_length) == (2, 4, 640)
    config = load_config(write("extends: [c.yaml, a.yaml]\nbatch: {row_length: 600}\n"))
    assert (config.seed, config.rounds, config.batch.rows, config.batch.row_length) == (1, 7, 2, 600)
    write("seed: x\n", "d.yaml")
    assert f"{tmp_path / 'd.yaml'}: seed" in message_of(load_config, write("extends: [a.yaml, d.yaml]\n"))
    assert "extends: found ['a.yaml', 3]" in message_of(load_config, write("extends: [a.yaml, 3]\n"))


def test_extends_refuses_cycles_and_missing_parents(write):
    a = write("extends: b.yaml\n", "a.yaml")
    write("extends: a.yaml\n", "b.yaml")
    assert "a.yaml -> b.yaml -> a.yaml" in message_of(load_config, a)
    assert "no such file" in message_of(load_config, write("extends: gone.yaml\n"))


# Values and keys that are wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rouns: 1", "rouns: unknown key (did you mean 'rounds'?)"),
        ("agents: {target: {epoch: 1}}", "agents.target.epoch: unknown key (did you mean"),
        (
            "batch: {zzz: 1}",
            "batch.zzz: unknown key (valid: rows, row_length, views_per_row, pairs, step_pairs, ",
        ),
        ("rounds: two", 'rounds: found "two" (string), expected an integer'),
        ("rounds: 1.0", "rounds: found 1.0 (number), expected an integer"),
        ("rounds: true", "rounds: found true (boolean), expected an integer"),
        ("rounds: null", "rounds: found null, expected an integer"),
        ("rounds: -1", "rounds: found -1 (integer), expected a value greater than or equal to 0"),
        ("name: 3", "name: found 3 (integer), expected a string"),
        ("batch: 3", "batch: found 3 (integer), expected a mapping of keys"),
        ("agents: {target: null}", "agents.target: found null, expected a mapping of keys"),
        ("env: {options: [1]}", "env.options: found [1] (list), expected a mapping of keys"),
        ("model: {qk_norm: 1}", "model.qk_norm: found 1 (integer), expected true or false"),
        (
            "model: {dtype: bfloat}",
            "model.dtype: found \"bfloat\" (string), expected 'float32' or 'bfloat16'",
        ),
        ("model: {dtype: bfloat}", "(did you mean 'bfloat16'?)"),
        (
            "warm_start: {learning_rate: .inf}",
            "warm_start.learning_rate: found Infinity (number), expected a fin",
        ),
        (
            "warm_start: {learning_rate: .nan}",
            "warm_start.learning_rate: found NaN (number), expected a finite",
        ),
        ("explore: {tasks: [all]}", 'explore.tasks[0]: found "all" (string), expected a string that matches'),
        ("agents: {target: {beta: 0.1}}", "agents.target.beta: found 0.1 (number), expected a list"),
        (
            "agents: {target: {beta: [0.1, x]}}",
            'agents.target.beta[1]: found "x" (string), expected a number',
        ),
        (
            "agents: {target: {loss: 3}}",
            "agents.target.loss: found 3 (integer), expected a string (quote it if it looks like a ",
        ),
        ("agents: {target: {loss: 3}}", "number) or a mapping of keys"),
        (
            "agents: {target: {loss: {ipo: x}}}",
            'agents.target.loss.ipo: found "x" (string), expected a number',
        ),
        (
            "agents: {target: {loss: {ipo: .nan}}}",
            "agents.target.loss.ipo: found NaN (number), expected a finite number",
        ),
        (
            "recipe: [{learn: {agent: a, sources: [{pairs: expert_over, of: b, loss: 3}]}}]",
            "recipe[0].learn.sources[0].loss: found 3 (integer), expected a string",
        ),
        (
            "agents: {target: {loss_options: {ipo: 3}}}",
            "agents.target.loss_options.ipo: found 3 (integer), expected a mapping",
        ),
        (
            "agents: {target: {loss_options: {ipo: {average: [1]}}}}",
            "agents.target.loss_options.ipo.average: found [1] (list), expected true or false or an integer",
        ),
        (
            "agents: {target: {loss_options: {simpo: {gamma: .inf}}}}",
            "agents.target.loss_options.simpo.gamma: found Infinity (number), expected a finite number",
        ),
        (
            "agents: {target: {ld_alpha: .nan}}",
            "agents.target.ld_alpha: found NaN (number), expected a fin",
        ),
        ("agents: {target: {divergence: jss}}", "(did you mean 'js'?)"),
        (
            "agents: {target: {divergence_alpha: 1.5}}",
            "agents.target.divergence_alpha: found 1.5 (number), expected a value les",
        ),
    ],
)
def test_wrong_values_name_key_found_and_expected(write, text, expected):
    path = write(text)
    message = message_of(load_config, path)
    assert message.startswith(f"{path}: ") and expected in message, message


def test_a_value_of_several_types_is_one_problem(write):
    message = message_of(
        load_config, write("agents: {target: {loss: 3, loss_options: {ipo: {average: [1]}}}}")
    )
    assert len(message.splitlines()) == 2


def test_every_problem_is_listed_at_once(write):
    lines = message_of(load_config, write("rounds: x\nseed: y\nbatch: {rows: 0}\n")).splitlines()
    assert len(lines) == 3


def test_a_problem_names_the_file_or_override_that_caused_it(write):
    base = write("batch: {rows: x}\n", "base.yaml")
    child = write("extends: base.yaml\nseed: x\n")
    lines = message_of(load_config, child, ["agents.target.beta=[0.1, x]"]).splitlines()
    assert any(line.startswith(f"{base}: batch.rows") for line in lines)
    assert any(line.startswith(f"{child}: seed") for line in lines)
    assert any(
        line.startswith("override 'agents.target.beta=[0.1, x]': agents.target.beta[1]") for line in lines
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rouns=1", "override 'rouns=1': unknown key 'rouns' (did you mean 'rounds'?)"),
        (
            "agents.target.bta=[1]",
            "override 'agents.target.bta=[1]': unknown key 'bta' (did you mean 'beta'?)",
        ),
        ("seed.x=1", "override 'seed.x=1': seed has no keys of its own"),
        ("rounds", "override 'rounds': expected key=value"),
        ("=1", "override '=1': expected key=value"),
        ("rounds=[1", "override 'rounds=[1': line 1, column 3"),
        ("rounds=x", "override 'rounds=x': rounds: found \"x\" (string), expected an integer"),
        ("batch=3", "override 'batch=3': batch: found 3 (integer), expected a mapping"),
        ("budget.pairs=[5, 0]", "budget.pairs[1]: found 0 (integer), expected a value greater than or equal"),
        (
            "budget.match=[tokens]",
            "budget.match[0]: found \"tokens\" (string), expected 'pairs', 'explored_to",
        ),
    ],
)
def test_wrong_overrides_name_themselves(write, override, expected):
    assert expected in message_of(load_config, write(COEVO), [override])


ODD = {
    'extends: "\\0"': "extends: no file has the name",
    f"seed: {2**32}": "seed: found 4294967296, expected at most 4294967295",
    f"seed: {2**64}": "seed: found an integer of 65 bits, expected one within 64",
    f"seed: {'9' * 5000}": r"line 1, column 7: 9+\.\.\. cannot be read as a number",
    "env: {options: {seed: -99999999999999999999}}": r"env\.options\.seed: found an integer of 67 bits",
    f"name: {'x' * 300}": "name: found 'xxx.* of 300 bytes, expected at most 200, for a folder",
    f"name: {'ä' * 101}": "of 202 bytes",
    'name: "a\\tb"': "expected the name of a folder",
    'name: "\\ud800"': r"name: found half of a character \('\\ud800'\)",
    '"\\ud800": 1': "a key: found half of a character",
    'runs_dir: "\\0"': r"runs_dir: found '\\x00', expected a name without",
    'model: {path: "\\0"}': "embedded null byte",
    f"model: {{path: {'x' * 300}}}": "model.path: File name too long",
    "seed: &a [*a]": "an alias stands inside its own anchor",
    "recipe: &r [{explore: {agent: *r}}]": "an alias stands inside its own anchor",
    f"seed: {'[' * 500}": "nested more than 40 levels deep",
    "env: {options: {a: &a [1, 1, 1, 1], b: &b [*a, *a, *a, *a], c: &c [*b, *b, *b, *b], "
    "d: &d [*c, *c, *c, *c], e: &e [*d, *d, *d, *d], f: &f [*e, *e, *e, *e], g: &g [*f, *f, *f, *f], "
    "h: [*g, *g, *g, *g]}}": "stands for more than 100,000 values",
    "recipe: [3]": r"recipe\[0\]: found 3",
    "recipe: [{explore: 3}]": r"recipe\[0\]\.explore: found 3",
    "recipe: [{learn: {agent: a, sources: [{pairs: expert_over, of: [[a]]}]}}]": r"of\[0\]: found \[\"a\"\]",
}


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_texts_are_refused_in_words(text, write):
    path = write(text)
    message = message_of(load_config, path)
    assert re.search(ODD[text], message) and "run.yaml" in message, message


def test_an_override_of_a_recipe_that_is_not_there_is_refused(write):
    expected = "override 'recipe.learn_a.x.dpo=1': recipe: unknown name 'learn_a'"
    assert message_of(load_config, write(""), ["recipe.learn_a.x.dpo=1"]).startswith(expected)


def test_scalars_that_yaml_1_2_and_its_core_schema_know(write):
    text = "rounds: 0\nseed: 0o17\nmethod: 2026-01-31\nname: =\ncheckpoint: {keep: 0x10}\n"
    config = load_config(write(text))
    assert (config.seed, config.method, config.name, config.checkpoint.keep) == (15, "2026-01-31", "=", 16)
    text = "%YAML 1.1\n---\nrounds: 0\nmethod: no\nwarm_start: {learning_rate: 1e-3}\n"
    assert load_config(write(text)).warm_start.learning_rate == 1e-3


class Options(StrictModel):
    databases: int = Field(default=8, ge=1)
    """How many databases."""
    mode: Literal["a", "b"] = "a"
    """Which mode."""
    path: str
    """Where the data lies."""


def test_validate_is_for_any_record():
    assert validate(Options, {"path": "x"}, "f.yaml").databases == 8
    message = message_of(validate, Options, {"databses": 1}, "f.yaml", "env.options")
    assert "f.yaml: env.options.databses: unknown key (did you mean 'databases'?)" in message
    assert "f.yaml: env.options.path: missing" in message
    message = message_of(validate, Options, [1], "f.yaml", "env.options")
    assert message == "f.yaml: env.options: found [1] (list), expected a mapping of keys"
    assert "not plain YAML data" in message_of(validate, Options, {"path": object()}, "f.yaml")


# Combinations that cannot work

ALONE = ["recipe=eto"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["model.num_heads=6", "model.num_kv_heads=4"],
            "num_heads 6 is not a multiple of model.num_kv_heads 4",
        ),
        (["model.head_dim=33"], "model.head_dim 33 is odd"),
        (["rollout.max_tokens=1024"], "rollout.max_tokens 1024 exceeds batch.row_length 512"),
        (["rollout.max_turn_tokens=512"], "max_turn_tokens 512 leaves no room"),
        (["mesh.data=2", "mesh.fsdp=3"], "batch.rows 8 is not a multiple of mesh.data * mesh.fsdp = 6"),
        (["mesh.tensor=8"], "model.num_heads 4 cannot be split over mesh.tensor 8"),
        (
            ["mesh.tensor=4", "model.num_heads=12", "model.num_kv_heads=6"],
            "model.num_kv_heads 6 cannot be split over mesh.tensor 4",
        ),
        (["rollout.tensor=8"], "model.num_heads 4 cannot be split over rollout.tensor 8"),
        (["mesh.fsdp=3"], "model.hidden_size 128 cannot be split over mesh.fsdp 3"),
        (["mesh.tensor=2", "model.intermediate_size=33"], "model.intermediate_size 33 cannot be split"),
        (["mesh.tensor=2", "tokenizer.vocab_size=1025"], "tokenizer.vocab_size 1025 cannot be split"),
        (["recipe.learn_target.expert_target.dpo=0", "recipe.learn_target.expert_target.sft=0"], "both 0"),
        (["agents.target.beta=[]"], "agents.target.beta: the list is empty"),
        (["agents.failure.learning_rate=[]"], "agents.failure.learning_rate: the list is empty"),
        (["agents.target.beta=[0.1, 0]"], "agents.target.beta: found [0.1, 0.0], expected values above 0"),
        (
            ["agents.target.learning_rate=[-1]"],
            "agents.target.learning_rate: found [-1.0], expected values above 0",
        ),
        (["explore.tasks=['50:50']"], "explore.tasks[0]: the slice 50:50 is empty"),
        (["evaluate.tasks=':0'"], "evaluate.tasks: the slice :0 is empty"),
        (["name=a/b"], "name: found 'a/b', expected the name of a folder"),
        (["name=''"], "name: found '', expected the name of a folder"),
        (
            ["budget.run=x"],
            'budget.run: found "x", which does nothing: budget.match is empty, expected some of pairs',
        ),
        (["budget.match=[pairs]"], 'found ["pairs"], which does nothing: budget.run names no run'),
        (
            ["budget={run: x, match: [pairs], learned_tokens: [1, 2, 3]}", *ALONE],
            "budget.run and budget.learned_tokens: expected a run or numbers, not both",
        ),
        (["budget.pairs=[5, 5]"], "budget.pairs: found 2 values, expected one for each of the 3 rounds"),
        (
            ["rounds=0", "budget={run: x, match: [learned_tokens]}"],
            'budget.run: found "x", which does nothing: rounds is 0, so nothing is explored',
        ),
        (
            ["budget.explored_tokens=[5, 5, 5]"],
            "budget.explored_tokens is what all agents of a run take together, all for one agent alone",
        ),
        (["budget={run: x, match: [learned_tokens]}"], "budget.learned_tokens is what all agents of a run"),
        (
            ["budget.pairs=[5, 5, 5]", "recipe=sft-more"],
            "budget.pairs: found [5, 5, 5], which does nothing: the agent target learns from no pairs",
        ),
        (
            ["explore.samples=2", "explore.temperature=0"],
            "explore.samples 2 at explore.temperature 0 are identical",
        ),
        (
            ["batch.rows=1", "batch.views_per_row=1"],
            "= 1 views in a microbatch cannot hold the 2 that one pair of the target agent may take",
        ),
        (
            [
                "batch.rows=1",
                "batch.views_per_row=2",
                "agents.target.ld_alpha=0.5",
                "recipe.learn_target.expert_target.sft=1",
            ],
            "= 2 views in a microbatch cannot hold the 3 that one pair of the target agent may take",
        ),
        (
            ["agents.target.divergence_alpha=0.3"],
            "agents.target.divergence_alpha: found 0.3, which does nothing: agents.target.divergence is re",
        ),
        (
            ["recipe.learn_target.expert_target.dpo=0", "recipe.learn_target.expert_target.loss=ipo"],
            "recipe.learn_target.expert_target.loss does nothing: dpo is 0",
        ),
        (
            ["agents.target.loss=ipo", "recipe.learn_target.expert_target.loss=hinge"],
            'agents.target.loss: found "ipo", which does nothing: every kind of pair that it',
        ),
        *(
            (
                [f"agents.target.{option}", "recipe=rft"],
                "which does nothing: no pairs that it learns from have a",
            )
            for option in (
                "loss=ipo",
                "loss_options={sigmoid: {label_smoothing: 0.1}}",
                "divergence=js",
                "ld_alpha=0.5",
                "wpo=true",
                "reference_every=3",
            )
        ),
    ],
)
def test_impossible_combinations_are_refused(write, overrides, expected):
    path = write(COEVO)
    load_config(path)
    message = message_of(load_config, path, overrides)
    assert expected in message and any(who in message for who in (str(path), *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["warm_start.tasks='0:500'", "explore.tasks=['0:500']"],
        ["rounds=0", "recipe=sft"],
        ["recipe=frozen-failure"],
        ["recipe=positive-second-agent", "agents.failure.pairs_kept=drawn"],
        ["mesh.tensor=2", "tokenizer.path=x"],
        ["explore.samples=4", "batch.pairs=1", "recipe=coevo"],
        ["batch.step_pairs=1", "explore.samples=4", "agents.target.loss=aot"],
        ["batch.rows=1", "batch.views_per_row=2", "recipe.learn_target.expert_target.sft=1"],
        ["agents.target.loss={sigmoid: 0.8, sft: 0.2}", "agents.target.loss_options={sft: {average: sum}}"],
        ["agents.target.loss_options={ipo: {average: false}}", "agents.target.loss=ipo"],
        [
            "agents.target.ld_alpha=0.5",
            "agents.target.wpo=true",
            "agents.target.divergence=js",
            "agents.target.reference_every=10",
        ],
        ["agents.target.divergence=alpha", "agents.target.divergence_alpha=0.3"],
        ["rounds=0"],
        ["mesh.data=2", "mesh.fsdp=4"],
        ["budget.pairs=[5, 5, 5]", "recipe=frozen-failure"],
        ["budget={explored_tokens: [5, 5, 5], learned_tokens: [5, 5, 5]}", *ALONE],
        ["budget={run: x, match: [pairs]}"],
    ],
)
def test_possible_combinations_pass(write, overrides):
    load_config(write(COEVO), overrides)


def test_check_lists_every_problem():
    config = validate(Config, {"rounds": 0, "name": "a/b", "model": {"head_dim": 3}}, "test")
    assert len(message_of(check, config).splitlines()) == 2


@given(st.one_of(st.none(), st.integers(0, 99)), st.one_of(st.none(), st.integers(0, 99)))
def test_slice_bounds(start, stop):
    text = f"{'' if start is None else start}:{'' if stop is None else stop}"
    assert slice_bounds(text) == (start, stop)


# Help


def test_help_covers_every_option_with_its_doc():
    rows = describe(Config)
    keys = [row[0] for row in rows]
    assert len(set(keys)) == len(keys)
    assert {"rounds", "recipe", "agents.NAME.beta", "agents.NAME.reference"} <= set(keys)
    undocumented = [key for key, _, _, doc in rows if not doc.endswith(".")]
    assert not undocumented
    assert ("agents.NAME.beta", "list of number", "[0.1, 0.5]") in [row[:3] for row in rows]
    assert ("rounds", "integer >=0", "3") in [row[:3] for row in rows]


def test_help_text_is_aligned_and_names_environment_options():
    text = help_text({"toy": Options})
    assert "env.options of toy:" in text
    line = next(line for line in text.splitlines() if "env.options.path" in line)
    assert re.fullmatch(r"  env\.options\.path +string +required +Where the data lies\.", line)
    column = text.splitlines()[2].index("string")
    assert line.index("string") == column
