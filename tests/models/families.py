"""Small configs of every supported family, and random models of them in PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers  # which imports a class, and PyTorch with it, once it is asked for

VOCAB = 131  # odd sizes, heads whose widths do not add up to the residual stream, grouped heads
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 54,
    "intermediate_size": 75,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
IMPLICIT = {key: value for key, value in SMALL.items() if key != "head_dim"} | {"hidden_size": 60}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

FAMILIES: dict[str, Callable[[], Any]] = {
    "llama2": lambda: transformers.LlamaConfig(**{**IMPLICIT, "num_key_value_heads": 6}),
    "llama3": lambda: transformers.LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    ),
    "llama31": lambda: transformers.LlamaConfig(**SMALL, rope_parameters=LLAMA3_ROPE),
    "llama32": lambda: transformers.LlamaConfig(
        **SMALL, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True
    ),
    "llama_linear": lambda: transformers.LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    ),
    "qwen2": lambda: transformers.Qwen2Config(**IMPLICIT, tie_word_embeddings=True),
    "qwen25": lambda: transformers.Qwen2Config(
        **IMPLICIT,
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=1,
    ),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL),
    "mistral": lambda: transformers.MistralConfig(**SMALL, sliding_window=11),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **{**SMALL, "num_hidden_layers": 5},
        sliding_window=7,
        query_pre_attn_scalar=17,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] + ["sliding_attention"] * 2,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
    ),
}


def random_model(name: str, seed: int = 0) -> Any:
    """A float32 model whose every weight, norms and biases too, is random and large enough to matter."""
    import torch  # only slow tests have PyTorch at hand
    from transformers import AutoModelForCausalLM

    config = FAMILIES[name]()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter.ndim == 2
            noise = torch.randn_like(parameter) * (0.15 if wide else 0.3)
            parameter.copy_(noise if wide else parameter + noise)
        if config.tie_word_embeddings:  # else a token's own embedding would outweigh all that layers add
            model.get_input_embeddings().weight.mul_(0.2)
            model.model.norm.weight.add_(4)
    return model.eval()


def save(model: Any, folder: Path, *, shard: str = "5GB") -> Path:
    model.save_pretrained(folder, max_shard_size=shard)
    return folder
