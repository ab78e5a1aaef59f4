"""Parameters as files that transformers, vLLM and PEFT load: safetensors in shards, and descriptions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.numpy import save_file

from coevo_jax.config.options import LoraConfig, ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.huggingface.names import PROJECTION_NAMES, entries
from coevo_jax.models.huggingface.shards import INDEX
from coevo_jax.models.transformer import PROJECTIONS, Params

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
SHARD_BYTES = 5_000_000_000  # as transformers writes them


def check_exportable(config: ModelConfig) -> None:
    """Refuse a model from scratch that Qwen3ForCausalLM cannot compute; imported ones keep their own form.

    Raises:
      ConfigError: the model has no norm on queries and keys, or a switch that Qwen3 does not know.
    """
    if config.path is not None:
        return
    known = {"rope_scaling", "layer_types", "sliding_window", "sliding_rope_theta", "norm_offset"}
    known |= {"post_norms", "qkv_bias", "query_scale", "activation", "embedding_scale"}
    wanted = {name: ModelConfig.model_fields[name].default for name in sorted(known)} | {"qk_norm": True}
    for name, value in wanted.items():
        found = dict(config)[name]
        if found != value:
            raise ConfigError(
                f"model.{name}: found {json.dumps(found, default=str)}, expected {json.dumps(value)}: "
                "Qwen3ForCausalLM, the form in which a model from scratch is exported, knows no other"
            )


def save_params(
    folder: Path, params: Params, config: ModelConfig, *, dtype: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a whole model's weights; the host holds one shard at a time.

    Args:
      dtype: "float32" keeps every bit of the master weights; "bfloat16" halves the files.
    """
    places = {
        name: (entry, layer)
        for entry in entries(config, params["embedding"].shape[0])
        for layer, name in entry.tensors()
    }
    size = jnp.dtype(dtype).itemsize
    sizes = {name: size * int(np.prod(entry.tensor_shape)) for name, (entry, _) in places.items()}
    plan: Any = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda bytes_: bytes_,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    for file, names in plan.filename_to_tensors.items():
        tensors = {}
        for name in names:
            entry, layer = places[name]
            leaf = entry.leaf(params)
            one = leaf if layer is None else leaf[layer]
            tensors[name] = entry.theirs(np.asarray(jax.device_get(one.astype(dtype))))
        write_tensors(folder / file, tensors)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / INDEX, index)


def with_head(params: Params) -> Params:
    """The parameters with an output head, which is the embedding where they have none."""
    return params if "head" in params else params | {"head": params["embedding"]}


def adapter_tensors(adapters: Params) -> dict[str, np.ndarray]:
    """An agent's adapters by the names of PEFT: `lora_A` [r, in] and `lora_B` [out, r]."""
    tensors: dict[str, np.ndarray] = {}
    for name, factors in adapters["layers"].items():
        into, theirs = len(PROJECTIONS[name][0]), PROJECTION_NAMES[name]
        for factor, axes, suffix in (("a", into, "lora_A"), ("b", 1, "lora_B")):
            for layer, tensor in enumerate(np.asarray(factors[factor])):
                rows = int(np.prod(tensor.shape[:axes]))
                full = f"base_model.model.model.layers.{layer}.{theirs}.{suffix}.weight"
                tensors[full] = tensor.reshape(rows, -1).T
    return tensors


def scratch_config(
    config: ModelConfig, *, vocab_size: int, max_tokens: int, end_id: int, pad_id: int
) -> dict[str, Any]:
    """The `config.json` of a model that began at random; both spellings of the rotary base, old and new."""
    check_exportable(config)
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "max_position_embeddings": max_tokens,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


def for_all_releases(described: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's config.json so that other programs and transformers 4 read it as transformers 5 does.

    4 knows no `rope_parameters`, and would compute with other rotary positions without a word; other programs
    go by the architecture's name.
    """
    config = dict(described)
    if config.get("model_type") in ARCHITECTURES and not config.get("architectures"):
        config["architectures"] = [ARCHITECTURES[config["model_type"]]]
    rotary = config.get("rope_parameters")
    if isinstance(rotary, dict):
        full = rotary.get("full_attention", rotary)
        if "rope_theta" in full:
            config.setdefault("rope_theta", full["rope_theta"])
        if full.get("rope_type", "default") != "default":
            scaling = {key: value for key, value in full.items() if key != "rope_theta"}
            config.setdefault("rope_scaling", scaling)
        if "sliding_attention" in rotary:
            config.setdefault("rope_local_base_freq", rotary["sliding_attention"]["rope_theta"])
    return config


def adapter_config(lora: LoraConfig, base: str) -> dict[str, Any]:
    """The `adapter_config.json` of PEFT; `base` is where the base model lies."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,  # PEFT's own type is int
        "target_modules": [PROJECTION_NAMES[name].rpartition(".")[2] for name in lora.target_modules],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "inference_mode": True,
    }


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file that PyTorch's readers accept."""
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, {"format": "pt"}
    )
    path.chmod(0o644)  # the library leaves it to its owner alone, who may not be the one that serves it


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write data as an indented JSON file."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
