"""An agent as a folder that transformers, vLLM and PEFT load."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.data.chat.format import ChatFormat, chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.models.huggingface.save import (
    adapter_config,
    adapter_tensors,
    for_all_releases,
    save_params,
    scratch_config,
    with_head,
    write_json,
    write_tensors,
)
from coevo_jax.models.lora import whole_params
from coevo_jax.models.transformer import Params
from coevo_jax.phases.agents import StoredAgent
from coevo_jax.phases.world import BACKBONE_DIR, TOKENIZER_DIR

BASE_DIR = "base"
MARK_FILE = "prompt_mark.json"


@dataclass(frozen=True, kw_only=True)
class _Export:
    """An agent on its way into a folder."""

    run: Path
    config: Config
    chat: ChatFormat
    stored: StoredAgent
    unborn: Path  # written to; renamed to `out` when whole
    out: Path
    dtype: str


def write_agent(
    folder: Path, config: Config, stored: StoredAgent, out: Path, *, form: str, dtype: str, mark: str = ""
) -> Path:
    """Write an agent of the run in `folder` to a new folder `out`, an absolute path; see `export_agent`.

    Args:
      mark: that the agent is to be used under, which no weight tells: {task} in it stands for the task. It is
        written beside the model; "" writes none.
    """
    chat = chat_format(load_tokenizer(folder / TOKENIZER_DIR))
    unborn = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    export = _Export(run=folder, config=config, chat=chat, stored=stored, unborn=unborn, out=out, dtype=dtype)
    try:
        shutil.copytree(folder / TOKENIZER_DIR, unborn)
        FORMS[form](export)
        if mark:
            write_json(unborn / MARK_FILE, {"mark": mark})
        unborn.rename(out)  # an empty folder is replaced, one that was filled meanwhile is not
    finally:
        shutil.rmtree(unborn, ignore_errors=True)
    return out


def _write_merged(export: _Export) -> None:
    stored = export.stored
    _write_model(export.unborn, export, whole_params(stored.params, stored.frozen, export.config.model))


def _write_untied(export: _Export) -> None:
    config = export.config
    untied = config.model_copy(update={"model": config.model.model_copy(update={"tie_embeddings": False})})
    stored = export.stored
    params = with_head(whole_params(stored.params, stored.frozen, config.model))
    _write_model(export.unborn, replace(export, config=untied), params, tie_word_embeddings=False)


def _write_adapter(export: _Export) -> None:
    lora, checkpoint = export.config.model.lora, export.config.model.path
    assert lora is not None  # `export_agent` refuses the rest
    base = export.out / BASE_DIR
    if checkpoint is not None and lora.warm_start == "adapter":
        base = Path(checkpoint).resolve()  # never trained, so it is not written again
    else:
        shutil.copytree(export.unborn, export.unborn / BASE_DIR)
        _write_model(export.unborn / BASE_DIR, export, export.stored.frozen)
    write_tensors(export.unborn / "adapter_model.safetensors", adapter_tensors(export.stored.params))
    write_json(export.unborn / "adapter_config.json", adapter_config(lora, base=str(base)))


def _write_model(folder: Path, export: _Export, params: Params, **changed: Any) -> None:
    """`config.json`, `generation_config.json` and the weights beside the tokenizer's files.

    Args:
      changed: keys of config.json that are not the described model's.
    """
    described, generation = _descriptions(export, len(params["embedding"]))
    described |= {"torch_dtype": export.dtype, "dtype": export.dtype, **changed}
    write_json(folder / "config.json", described)
    write_json(folder / "generation_config.json", generation)
    save_params(folder, params, export.config.model, dtype=export.dtype)


def _descriptions(export: _Export, vocab_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checkpoint's own where the run began with one; the token that ends a turn ends a generation."""
    config, chat = export.config, export.chat
    kept = export.run / BACKBONE_DIR
    generation: dict[str, Any] = {"pad_token_id": chat.pad_id}
    if config.model.path is None:
        longest = config.batch.row_length
        described = scratch_config(
            config.model, vocab_size=vocab_size, max_tokens=longest, end_id=chat.end_id, pad_id=chat.pad_id
        )
        return described, {**generation, "eos_token_id": chat.end_id}
    described = for_all_releases(json.loads((kept / "config.json").read_text(encoding="utf-8")))
    if (kept / "generation_config.json").is_file():
        generation |= json.loads((kept / "generation_config.json").read_text(encoding="utf-8"))
    found = generation.get("eos_token_id", described.get("eos_token_id"))
    ends = found if isinstance(found, list) else [] if found is None else [found]
    generation["eos_token_id"] = [*ends, *([] if chat.end_id in ends else [chat.end_id])]
    return described, generation


FORMS: dict[str, Callable[[_Export], None]] = {
    "merged": _write_merged,
    "untied": _write_untied,
    "adapter": _write_adapter,
}
