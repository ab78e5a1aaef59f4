"""A checkpoint with tied embeddings, written again with an output head of its own.

The numbers are the same. vLLM (0.32.0), told to load other weights into a model with tied embeddings, answers
200 and keeps the output head that it was started with; into one with a head of its own it loads them all.
"""

import json
import os
import shutil
from pathlib import Path

from coevo_jax.config.architectures import read_architecture
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.huggingface.save import write_json, write_tensors
from coevo_jax.models.huggingface.shards import INDEX, open_file, read_headers

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
HEAD_FILE = "lm_head.safetensors"


def write_untied(source: Path, out: Path) -> Path:
    """Write a checkpoint folder with tied embeddings to a new folder, untied, whole or not at all.

    Files of weights are hard links where the disk has them, for they are the same.

    Raises:
      ConfigError: `source` is no checkpoint, its embeddings are not tied, or `out` exists.
    """
    if not read_architecture(source)["tie_embeddings"]:
        raise ConfigError(f"{source}: its embeddings are not tied: serve it as it is")
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; nothing is overwritten")
    stored = read_headers(source)
    if EMBEDDING not in stored:
        raise ConfigError(f"{source}: holds no tensor {EMBEDDING}")
    unborn = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(source, unborn, copy_function=_link_or_copy)
        tensor = open_file(stored[EMBEDDING].path).get_tensor(EMBEDDING)
        write_tensors(unborn / HEAD_FILE, {HEAD: tensor})
        files = {name: one.path.name for name, one in stored.items()} | {HEAD: HEAD_FILE}
        described = json.loads((source / "config.json").read_text(encoding="utf-8"))
        for name, data in (
            (INDEX, {"metadata": {}, "weight_map": files}),
            ("config.json", described | {"tie_word_embeddings": False}),
        ):
            (unborn / name).unlink(missing_ok=True)  # never written through a link
            write_json(unborn / name, data)
        unborn.rename(out)
    finally:
        shutil.rmtree(unborn, ignore_errors=True)
    return out


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
