"""Write a stored agent as a folder that transformers, vLLM and PEFT load: what `launch.export` does."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from coevo_jax.agents import StoredAgent, load_agent, newest_agents
from coevo_jax.config import Config, ConfigError, MeshConfig
from coevo_jax.config_io import load_config
from coevo_jax.data.chat import chat_format
from coevo_jax.data.tokenizer import load_tokenizer
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.manifest import read_manifest, verify_files
from coevo_jax.models.huggingface import (
    adapter_config,
    adapter_tensors,
    check_exportable,
    model_config,
    model_tensors,
    write_json,
    write_tensors,
)
from coevo_jax.models.lora import whole_params
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.run import CONFIG_FILE
from coevo_jax.sharding import make_mesh
from coevo_jax.world import TOKENIZER_DIR

BASE_DIR = "base"


def export_agent(folder: Path, out: Path, *, agent: str, form: str) -> Path:
    """Write an agent's newest checkpoint to a new folder, whole or not at all. Returns the folder.

    Args:
      form: a key of FORMS. "merged" is one model of all parameters, for any run. "adapter" is a PEFT adapter
        with the base model in a folder `base` beside it, for runs with `model.lora`.

    Raises:
      ConfigError: the folder exists, the run is damaged or holds no such agent, or it has no such form.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists already and is not an empty folder; nothing is overwritten")
    manifest = read_manifest(folder)
    config = load_config(folder / CONFIG_FILE)
    if form == "adapter" and config.model.lora is None:
        raise ConfigError(f"{folder}: its agents have no adapters (model.lora is null); use --merged")
    check_exportable(config.model)
    verify_files(folder, manifest)
    newest_agents(folder, manifest)
    chat = chat_format(load_tokenizer(folder / TOKENIZER_DIR))
    model = Transformer(config.model, chat.vocab_size)
    learner = make_learner(model, make_optimizer(config.optimizer), make_mesh(MeshConfig()))
    stored = load_agent(folder, manifest, agent, learner)
    unborn = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(folder / TOKENIZER_DIR, unborn)
        FORMS[form](unborn, out, config, stored)
        unborn.rename(out)  # an empty folder is replaced, one that was filled meanwhile is not
    finally:
        shutil.rmtree(unborn, ignore_errors=True)
    return out


def _write_merged(unborn: Path, out: Path, config: Config, stored: StoredAgent) -> None:
    _write_model(unborn, config, whole_params(stored.params, stored.frozen, config.model))


def _write_adapter(unborn: Path, out: Path, config: Config, stored: StoredAgent) -> None:
    assert config.model.lora is not None  # `export_agent` refuses the rest
    shutil.copytree(unborn, unborn / BASE_DIR)
    _write_model(unborn / BASE_DIR, config, stored.frozen)
    write_tensors(unborn / "adapter_model.safetensors", adapter_tensors(stored.params))
    write_json(unborn / "adapter_config.json", adapter_config(config.model.lora, base=str(out / BASE_DIR)))


def _write_model(folder: Path, config: Config, params: Params) -> None:
    """`config.json`, `generation_config.json` and `model.safetensors` beside the tokenizer's files."""
    chat = chat_format(load_tokenizer(folder))
    described = model_config(
        config.model,
        vocab_size=chat.vocab_size,
        max_tokens=config.batch.row_length,
        end_id=chat.end_id,
        pad_id=chat.pad_id,
    )
    write_json(folder / "config.json", described)
    write_json(folder / "generation_config.json", {"eos_token_id": chat.end_id, "pad_token_id": chat.pad_id})
    write_tensors(folder / "model.safetensors", model_tensors(params, config.model))


FORMS: dict[str, Callable[[Path, Path, Config, StoredAgent], None]] = {
    "merged": _write_merged,
    "adapter": _write_adapter,
}
