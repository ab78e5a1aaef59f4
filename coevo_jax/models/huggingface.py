"""Our parameters under Hugging Face's names: a Qwen3 model, and a PEFT adapter of one.

A Hugging Face weight is [out, in], ours is [*in, *out] with all layers stacked. Rotary layout and norms
agree.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from coevo_jax.config import ConfigError, LoraConfig, ModelConfig
from coevo_jax.models.transformer import PROJECTIONS, Params

PROJECTION_NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
NORM_NAMES = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}


def check_exportable(config: ModelConfig) -> None:
    """Refuse what Qwen3ForCausalLM cannot compute.

    Raises:
      ConfigError: the model has no norm on queries and keys.
    """
    if not config.qk_norm:
        raise ConfigError(
            "model.qk_norm: found false, expected true: Qwen3ForCausalLM, the form of an export, always "
            "normalises queries and keys"
        )


def model_tensors(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """A whole model's weights by the names of Qwen3ForCausalLM, in the types they have here."""
    check_exportable(config)
    tensors = {
        "model.embed_tokens.weight": np.asarray(params["embedding"]),
        "model.norm.weight": np.asarray(params["final_norm"]["scale"]),
    }
    if not config.tie_embeddings:
        tensors["lm_head.weight"] = np.asarray(params["head"])
    layers = params["layers"]
    for name, theirs in NORM_NAMES.items():
        _spread(tensors, f"{theirs}.weight", np.asarray(layers[name]["scale"]))
    for name, theirs in PROJECTION_NAMES.items():
        into = len(PROJECTIONS[name][0])
        _spread(tensors, f"{theirs}.weight", _transposed(np.asarray(layers[name]), into))
    return tensors


def adapter_tensors(adapters: Params) -> dict[str, np.ndarray]:
    """An agent's adapters by the names of PEFT: `lora_A` [r, in] and `lora_B` [out, r]."""
    tensors: dict[str, np.ndarray] = {}
    for name, factors in adapters["layers"].items():
        into = len(PROJECTIONS[name][0])
        theirs = PROJECTION_NAMES[name]
        _spread(tensors, f"{theirs}.lora_A.weight", _transposed(np.asarray(factors["a"]), into))
        _spread(tensors, f"{theirs}.lora_B.weight", _transposed(np.asarray(factors["b"]), 1))
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def model_config(
    config: ModelConfig, *, vocab_size: int, max_tokens: int, end_id: int, pad_id: int
) -> dict[str, Any]:
    """The `config.json` of an exported model; both spellings of the rotary base, old and new."""
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
        "torch_dtype": "float32",
    }


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
    """A safetensors file that PyTorch's readers accept."""
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, {"format": "pt"}
    )


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _transposed(stacked: np.ndarray, into: int) -> np.ndarray:
    """[L, *in, *out] with `into` axes in -> [L, out, in]."""
    layers, sizes_in = stacked.shape[0], stacked.shape[1 : 1 + into]
    return stacked.reshape(layers, int(np.prod(sizes_in)), -1).swapaxes(1, 2)


def _spread(tensors: dict[str, np.ndarray], name: str, stacked: np.ndarray) -> None:
    """Give every layer's slice a name of its own."""
    for layer, tensor in enumerate(stacked):
        tensors[f"model.layers.{layer}.{name}"] = tensor
