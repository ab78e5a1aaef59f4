"""config.json of each family as options of `model`, and what is refused."""

import json

import pytest

from coevo_jax.config.architectures import read_architecture
from coevo_jax.config.options import ModelConfig
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.strict import ConfigError
from tests.models.families import FAMILIES

PLAIN = {
    "vocab_size": 131,
    "max_positions": 256,
    "hidden_size": 54,
    "num_layers": 3,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 10,
    "intermediate_size": 75,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "qk_norm": False,
    "tie_embeddings": False,
}
LLAMA3 = {
    "kind": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_positions": 32,
}
LINEAR = {"kind": "linear", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_positions": 8192}
EXPECTED = {
    "llama2": {"num_kv_heads": 6, "hidden_size": 60},
    "llama3": {"rope_theta": 5e5},
    "llama31": {"rope_scaling": LLAMA3},
    "llama32": {"rope_scaling": LLAMA3, "tie_embeddings": True},
    "llama_linear": {"rope_scaling": LINEAR | {"factor": 2.0}},
    "qwen2": {"hidden_size": 60, "qkv_bias": True, "tie_embeddings": True},
    "qwen25": {
        "hidden_size": 60,
        "qkv_bias": True,
        "layer_types": ("full", "sliding", "sliding"),
        "sliding_window": 9,
    },
    "qwen3": {"qk_norm": True},
    "mistral": {"layer_types": ("sliding",), "sliding_window": 11},
    "gemma3": {
        "num_layers": 5,
        "layer_types": ("sliding", "sliding", "full"),
        "sliding_window": 7,
        "rope_theta": 1e6,
        "rope_scaling": LINEAR | {"factor": 8.0},
        "sliding_rope_theta": 1e4,
        "qk_norm": True,
        "norm_offset": 1.0,
        "post_norms": True,
        "query_scale": 17**-0.5,
        "activation": "gelu_tanh",
        "embedding_scale": True,
        "tie_embeddings": True,
    },
}


def save(folder, name, **changes):
    """A folder with the config.json of a family, some of its keys changed; None leaves a key out."""
    FAMILIES[name]().save_pretrained(folder)
    path = folder / "config.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value != "absent"}))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_told_by_its_switches(name, tmp_path):
    found = ModelConfig.model_validate_json(json.dumps(read_architecture(save(tmp_path, name))))
    expected = ModelConfig(**{**PLAIN, **EXPECTED[name]})
    assert found == expected


def test_the_spellings_of_older_versions_are_read(tmp_path):
    old = {
        "rope_parameters": "absent",
        "rope_theta": 5e5,
        "rope_scaling": {
            "type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    }
    found = read_architecture(save(tmp_path, "llama31", **old))
    assert found["rope_theta"] == 5e5 and found["rope_scaling"] == LLAMA3


REFUSED = {
    "gemma2": ({"model_type": "gemma2"}, r"found 'gemma2', which is not supported.*\(nearest: gemma3_text\)"),
    "vision": ({"model_type": "gemma3"}, r"expected one of llama, mistral, qwen2, qwen3, gemma3_text"),
    "none": ({"model_type": "absent"}, r"model_type: found None"),
    "yarn": (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        r"rope_type: found 'yarn', expected one of default, linear, llama3",
    ),
    "bias": ({"attention_bias": True}, "attention_bias: found True, expected False"),
    "relu": ({"hidden_act": "relu"}, r"hidden_act: found 'relu', expected one of silu"),
    "a list": ({"model_type": ["llama"]}, r"model_type: found \['llama'\], which is not supported"),
    "layers": (
        {"model_type": "mistral", "layer_types": ["full_attention"] * 2 + ["sliding_attention"]},
        r"layer_types: found full_attention, sliding_attention, expected no such key: all layers",
    ),
    "auto": ({"dtype": "auto"}, "dtype: found 'auto', expected a type such as bfloat16, or no dtype at all"),
    "heads": ({"num_attention_heads": 7}, r"transformers cannot read it"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_named(case, tmp_path):
    changes, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message) as error:
        read_architecture(save(tmp_path, "llama2", **changes))
    assert str(error.value).startswith(str(tmp_path / "config.json"))


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ConfigError, match=r"config\.json: is a pointer of git-lfs"):
        read_architecture(tmp_path)


def test_folders_that_are_no_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; expected a checkpoint"):
        read_architecture(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"the folder has no config\.json"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text('["llama"]')
    with pytest.raises(ConfigError, match=r"cannot be read as a JSON mapping"):
        read_architecture(tmp_path)


def config_with(folder, *overrides):
    path = folder / "run.yaml"
    path.write_text(f"rounds: 0\nmodel: {{path: {folder / 'checkpoint'}}}\nrollout: {{max_tokens: 128}}\n")
    return load_config(path, overrides)


def test_a_config_takes_its_shape_from_the_checkpoint_and_keeps_it(tmp_path):
    save(tmp_path / "checkpoint", "gemma3")
    config = config_with(tmp_path)
    assert config.model.layer_types == ("sliding", "sliding", "full") and config.model.vocab_size == 131
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(to_yaml(config))
    assert load_config(resolved) == config
    (tmp_path / "checkpoint").rename(tmp_path / "moved")
    assert load_config(resolved) == config
    with pytest.raises(ConfigError, match="no such folder"):
        config_with(tmp_path)


def test_contradictions_and_contexts_too_long_are_refused(tmp_path):
    save(tmp_path / "checkpoint", "llama2")
    with pytest.raises(ConfigError, match=r"override 'model\.num_layers=4'.* found 4, but .*says 3"):
        config_with(tmp_path, "model.num_layers=4")
    with pytest.raises(ConfigError, match=r"rollout\.max_tokens 512 exceeds the model's context of 256"):
        config_with(tmp_path, "rollout.max_tokens=512")


IDLE = {
    "sliding_window: 4": "expected a window where a layer is sliding",
    "layer_types: [sliding]": "expected a window where a layer is sliding",
    "layer_types: []": "the list is empty",
    "sliding_rope_theta: 5.0": "sliding_rope_theta: found 5.0, which does nothing",
    "vocab_size: 300": "vocab_size 300 without model.path",
    "rope_scaling: {kind: llama3, factor: 2, low_freq_factor: 4}": "is not below high_freq_factor",
    "lora: {base_dtype: bfloat16}": "needs model.lora.warm_start adapter",
}


@pytest.mark.parametrize("option", IDLE)
def test_options_that_contradict_each_other(option, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(f"rounds: 0\nmodel: {{{option}}}\n")
    with pytest.raises(ConfigError, match=IDLE[option]):
        load_config(path)
