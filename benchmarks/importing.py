"""Import of a checkpoint beside the copy of its files from the page cache, in turn.

    python -m benchmarks.importing                     a random Qwen3 of 0.6 billion parameters, in bfloat16
    python -m benchmarks.importing --model FOLDER      a checkpoint that lies there

What is imported is the frozen base of a run with adapters, in the type that it is stored in. A copy reads
every file once into fresh memory of the process. CPU seconds are those of all threads, and say more than the
clock's where the machine has other work.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks.backbone import VOCAB, config_of, write_checkpoint
from coevo_jax.config.options import MeshConfig, OptimizerConfig
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.transformer import Transformer
from coevo_jax.run_folder.environment import cpu
from coevo_jax.sharding import make_mesh

LORA = {"warm_start": "adapter", "base_dtype": "bfloat16"}


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of the processor; what was made is let go afterwards."""
    gc.collect()
    clock, spent = time.perf_counter(), time.process_time()
    made = work()
    found = time.perf_counter() - clock, time.process_time() - spent
    del made
    return found


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Copy and import in turn, once without being counted: files are then cached, and programs compiled."""
    config = config_of(folder, {"lora": LORA})
    assert config.vocab_size is not None  # a checkpoint says it
    learner = make_learner(
        Transformer(config, config.vocab_size), make_optimizer(OptimizerConfig()), make_mesh(MeshConfig())
    )
    base, files = learner.abstract_frozen(), sorted(folder.glob("*.safetensors"))
    works = {
        "copy": lambda: [np.fromfile(file, np.uint8) for file in files],
        "import": lambda: jax.block_until_ready(load_params(folder, config, base, kept=True)),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            found = timed(work)
            seen[name] += [found] if number else []
    size = sum(file.stat().st_size for file in files)
    rates = {
        name: {
            "clock_gb_s": [size / clock / 1e9 for clock, _ in times],
            "cpu_gb_s": [size / spent / 1e9 for _, spent in times],
        }
        for name, times in seen.items()
    }
    ratios = {
        which: median(rates["import"][which]) / median(rates["copy"][which])
        for which in ("clock_gb_s", "cpu_gb_s")
    }
    return {"bytes": size, "cpu": cpu(), "rates": rates, "import_over_copy": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="FOLDER")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    if args.model is not None:
        print(json.dumps(measure(args.model, args.runs), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), "0.6b", VOCAB)
        print(json.dumps(measure(Path(folder), args.runs), indent=1))


if __name__ == "__main__":
    main()
