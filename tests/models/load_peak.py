"""Peak memory of importing a wide checkpoint: `python -m tests.models.load_peak FOLDER DATA FSDP TENSOR`.

Prints one line of JSON. On the CPU the devices' memory is the host's, so the peak holds both.
"""

import json
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from transformers import LlamaConfig

from coevo_jax.config.options import MeshConfig
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.huggingface.names import entries
from coevo_jax.models.huggingface.shards import INDEX
from tests.models.checkpoints import config_of, learner_of

LAYERS = 4
FILES = 3


def write(folder: Path) -> None:
    """Random bits of Llama-2-7B's shapes in bfloat16, file by file."""
    LlamaConfig(num_hidden_layers=LAYERS, max_position_embeddings=4096).save_pretrained(folder)
    config = config_of(folder)
    shapes = {n: e.tensor_shape for e in entries(config, 32_000) for _, n in e.tensors()}
    names = sorted(shapes)
    rng = np.random.default_rng(0)
    where = {}
    for number in range(FILES):
        file = f"model-{number + 1:05d}-of-{FILES:05d}.safetensors"
        part = names[number::FILES]
        where |= dict.fromkeys(part, file)
        tensors = {
            name: rng.integers(0x3C00, 0x3D00, shapes[name], np.uint16).view(ml_dtypes.bfloat16)
            for name in part
        }
        save_file(tensors, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))


def peak() -> int:
    """Largest resident size since the last reset, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def main(folder: str, *axes: str) -> None:
    path = Path(folder)
    if os.fork() == 0:  # writing takes memory that is not the import's
        write(path)
        os._exit(0)
    os.wait()
    config = config_of(path)
    data, fsdp, tensor = map(int, axes)
    abstract = learner_of(config, MeshConfig(data=data, fsdp=fsdp, tensor=tensor)).abstract().params
    jax.block_until_ready(jax.numpy.zeros(1))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    params = jax.block_until_ready(load_params(path, config, abstract))
    sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
    print(
        json.dumps(
            {
                "files": len(sizes),
                "largest_file_bytes": max(sizes),
                "device_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
                "host_peak_bytes": peak() - before,
            }
        )
    )


main(*sys.argv[1:])
