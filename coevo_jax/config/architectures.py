"""A Hugging Face `config.json` as options of `model`: which families there are and what each one's keys mean.

Everything a family computes is said by switches of `ModelConfig`; nothing here is remembered beyond them.
"""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coevo_jax.config.options import RopeScaling
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import LFS_WORDS, is_lfs_pointer

CONFIG_FILE = "config.json"
Options = dict[str, Any]


class _Unsupported(Exception):
    """A value that the transformer cannot compute; the message says key, found and expected."""


def read_architecture(folder: Path) -> Options:
    """Options of `model` that a checkpoint's config.json fixes.

    Raises:
      ConfigError: there is no readable config.json, or it describes a model that is not supported.
    """
    path = folder / CONFIG_FILE
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        family = described.get("model_type")
    except FileNotFoundError:
        what = "no such folder" if not folder.is_dir() else f"the folder has no {CONFIG_FILE}"
        raise ConfigError(
            f"model.path {folder}: {what}; expected a checkpoint as transformers saves it "
            f"({CONFIG_FILE}, *.safetensors, tokenizer.json)"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        if is_lfs_pointer(path):
            raise ConfigError(f"{path}: {LFS_WORDS}") from None
        raise ConfigError(f"{path}: cannot be read as a JSON mapping: {error}") from None
    if not isinstance(family, str) or family not in FAMILIES:
        close = difflib.get_close_matches(str(family), FAMILIES, n=1, cutoff=0.5)
        raise ConfigError(
            f"{path}: model_type: found {family!r}, which is not supported; expected one of "
            f"{', '.join(FAMILIES)}" + (f" (nearest: {close[0]})" if close else "")
        )
    # Imported here: it takes a second, and most configs name no checkpoint.
    from transformers import AutoConfig

    try:
        _check_described(described)
        # The library knows the defaults of keys left out and the spellings of older versions.
        return architecture(AutoConfig.from_pretrained(folder, local_files_only=True).to_dict())
    except _Unsupported as problem:
        raise ConfigError(f"{path}: {problem}") from None
    except Exception as error:  # whatever a value makes the library raise, of its own or of what it calls
        words = f"no key {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ConfigError(f"{path}: transformers cannot read it: {words}") from None


def _check_described(config: Mapping[str, Any]) -> None:
    """Refuse values that the library fails on, or reads as those of another family, in words of its own."""
    for key in ("dtype", "torch_dtype"):
        if config.get(key) == "auto":
            raise _Unsupported(f"{key}: found 'auto', expected a type such as bfloat16, or no {key} at all")
    family, layers = config["model_type"], config.get("layer_types")
    if family in ("llama", "mistral") and layers is not None:
        kinds = sorted(map(str, layers)) if isinstance(layers, list) else [str(layers)]
        raise _Unsupported(
            f"layer_types: found {', '.join(dict.fromkeys(kinds))}, expected no such key: all layers of a "
            f"{family} are alike, and one whose layers differ is another model (Ministral), which is not "
            "supported"
        )


def architecture(config: Mapping[str, Any]) -> Options:
    """The options of `model` for what a transformers config of a supported family says, every key of it."""
    return _shape(config) | FAMILIES[config["model_type"]](config)


def complete_model(model: Options, origin: dict[str, str]) -> None:
    """Fill what `model.path` fixes into the `model` mapping of a config, in place.

    A mapping that says it all needs no folder: a run goes on when its checkpoint has been moved, and a
    preflight needs no weights.

    Args:
      origin: the file that set each dotted key; extended by what is filled in.

    Raises:
      ConfigError: an option contradicts config.json, or the folder is not there and something is missing.
    """
    path = model.get("path")
    if not isinstance(path, str):
        return
    folder, who = Path(path), origin.get("model.path", "model")
    try:
        if not folder.is_dir() and model.keys() >= OPTIONS_OF_A_CHECKPOINT:
            return
        fixed = read_architecture(folder)
    except ConfigError as error:
        raise ConfigError(f"{who}: {error}") from None
    except OSError as error:  # no name that a file system takes
        raise ConfigError(f"{who}: model.path: {error.strerror} (found {path[:60]!r})") from None
    for key, value in fixed.items():
        found = model.setdefault(key, value)
        if found != value:
            raise ConfigError(
                f"{origin.get(f'model.{key}', 'model')}: model.{key}: found {found!r}, but "
                f"{folder / CONFIG_FILE} says {value!r}; leave it out, or set model.path to another folder"
            )
        origin.setdefault(f"model.{key}", str(folder / CONFIG_FILE))


def _shape(config: Mapping[str, Any]) -> Options:
    """What all families say in the same way, and the switches as most of them have them."""
    heads = config["num_attention_heads"]
    rotary = config["rope_parameters"]
    full = rotary.get("full_attention", rotary)
    for key in ("attention_bias", "mlp_bias"):
        _expect(config, key, False)
    return {
        "vocab_size": config["vocab_size"],
        "max_positions": config["max_position_embeddings"],
        "hidden_size": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": config["num_key_value_heads"],
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "intermediate_size": config["intermediate_size"],
        "rms_norm_eps": float(config["rms_norm_eps"]),
        "rope_theta": float(full["rope_theta"]),
        "rope_scaling": _scaling(full),
        "sliding_rope_theta": None,
        "tie_embeddings": config["tie_word_embeddings"],
        "layer_types": ["full"],
        "sliding_window": None,
        "norm_offset": 0.0,
        "post_norms": False,
        "qk_norm": False,
        "qkv_bias": False,
        "query_scale": None,
        "activation": _activation(config),
        "embedding_scale": False,
    }


def _scaling(rotary: Mapping[str, Any]) -> Options | None:
    kind = rotary["rope_type"]
    _expect(rotary, "partial_rotary_factor", 1.0)
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise _Unsupported(f"rope_type: found {kind!r}, expected one of default, linear, llama3")
    options: Options = {"kind": kind, "factor": float(rotary["factor"])}
    if kind == "llama3":
        options |= {key: float(rotary[key]) for key in ("low_freq_factor", "high_freq_factor")}
        options["original_max_positions"] = rotary["original_max_position_embeddings"]
    return RopeScaling(**options).model_dump()


def _activation(config: Mapping[str, Any]) -> str:
    found = config.get("hidden_activation") or config.get("hidden_act")
    if found not in ACTIVATIONS:
        raise _Unsupported(f"hidden_act: found {found!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[found]


def _expect(config: Mapping[str, Any], key: str, value: Any) -> None:
    """Refuse another value of a key; a family that has no such key computes the expected."""
    found = config.get(key, value)
    if found != value:
        raise _Unsupported(f"{key}: found {found!r}, expected {value!r}")


def _llama(_: Mapping[str, Any]) -> Options:
    return {}


def _mistral(config: Mapping[str, Any]) -> Options:
    window = config["sliding_window"]
    return {} if window is None else {"layer_types": ["sliding"], "sliding_window": window}


def _qwen2(config: Mapping[str, Any]) -> Options:
    return {"qkv_bias": True, **_windows(config)}


def _qwen3(config: Mapping[str, Any]) -> Options:
    return {"qk_norm": True, **_windows(config)}


def _gemma3(config: Mapping[str, Any]) -> Options:
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        _expect(config, key, None)
    _expect(config, "use_bidirectional_attention", False)
    scale = config["query_pre_attn_scalar"] ** -0.5
    sliding = config["rope_parameters"]["sliding_attention"]
    _expect(sliding, "rope_type", "default")
    return {
        "query_scale": None if math.isclose(scale, config["head_dim"] ** -0.5) else scale,
        "sliding_rope_theta": float(sliding["rope_theta"]),
        "qk_norm": True,
        "norm_offset": 1.0,
        "post_norms": True,
        "embedding_scale": True,
        **_windows(config),
    }


def _windows(config: Mapping[str, Any]) -> Options:
    """The shortest pattern that gives a model's layers when it is repeated."""
    kinds = {"full_attention": "full", "sliding_attention": "sliding"}
    if unknown := sorted(set(config["layer_types"]) - kinds.keys()):
        raise _Unsupported(f"layer_types: found {unknown}, expected full_attention and sliding_attention")
    names = [kinds[name] for name in config["layer_types"]]
    if "sliding" not in names:
        return {}
    pattern = next(
        names[:n]
        for n in range(1, len(names) + 1)
        if all(name == names[layer % n] for layer, name in enumerate(names))
    )
    return {"layer_types": pattern, "sliding_window": config["sliding_window"]}


FAMILIES: dict[str, Callable[[Mapping[str, Any]], Options]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3_text": _gemma3,
}
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
OPTIONS_OF_A_CHECKPOINT = frozenset(
    {"vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size"}
)
