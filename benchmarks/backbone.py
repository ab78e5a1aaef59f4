"""Import a checkpoint folder and take DPO steps on it: seconds, tokens a second, peak memory.

    python -m benchmarks.backbone --model FOLDER                    a checkpoint that lies there
    python -m benchmarks.backbone --preset 1.7b                     a random Qwen3 of that size, in bfloat16
    python -m benchmarks.backbone --preset 1.7b --table backbone    and write the table into docs/backbones.md

The pairs are those of a co-evolution step of `benchmarks.learning`: an expert over four failures of two
agents, these over each other, 8 pairs. All parameters are trained, with float32 masters and Adam's moments,
by the step of `launch.train`. The first step compiles and is not timed.
"""

import argparse
import json
import resource
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from benchmarks.learning import GIB, PRESETS, model_shape
from benchmarks.methods import write_table
from benchmarks.pair_sets import PairSteps, co_evolution, needed_flops
from benchmarks.peers.own_dpo import KIND, batches_of
from coevo_jax.config.architectures import read_architecture
from coevo_jax.config.options import MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.config.strict import validate
from coevo_jax.data.packing.plan import with_reference
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import Learner, make_learner
from coevo_jax.learning.train_step import jit_score, jit_step, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.huggingface.names import entries
from coevo_jax.models.huggingface.save import write_json, write_tensors
from coevo_jax.models.huggingface.shards import INDEX
from coevo_jax.models.transformer import Transformer
from coevo_jax.run_folder.environment import cpu
from coevo_jax.sharding import make_mesh

VOCAB = 151_936
COLUMNS = (
    "model",
    "parameters",
    "import s",
    "GB/s",
    "step s (range)",
    "tokens/s",
    "TFLOP/s",
    "peak GiB",
    "of",
)


def write_checkpoint(folder: Path, preset: str, vocab_size: int) -> None:
    """A random Qwen3 of that size in bfloat16, a file a tensor: never the whole model on the host."""
    shape = model_shape(preset, vocab_size)
    described = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "bfloat16", **shape}
    write_json(folder / "config.json", described)
    config = config_of(folder, {})
    rng, files = np.random.default_rng(0), {}
    for entry in entries(config, vocab_size):
        for layer, name in entry.tensors():
            scale = 1.0 if len(entry.tensor_shape) == 1 else entry.tensor_shape[-1] ** -0.5
            random = rng.standard_normal(entry.tensor_shape, np.float32) * scale
            files[name] = f"{'model' if layer is None else f'layer-{layer:03d}'}-{name}.safetensors"
            write_tensors(folder / files[name], {name: random.astype(ml_dtypes.bfloat16)})
    write_json(folder / INDEX, {"weight_map": files})


def config_of(folder: Path, options: dict[str, Any]) -> ModelConfig:
    return validate(ModelConfig, {"path": str(folder), **read_architecture(folder), **options}, str(folder))


def import_timed(folder: Path, learner: Learner) -> tuple[Any, float]:
    """The folder's parameters on the device, and the seconds that took."""
    start = time.perf_counter()
    params = load_params(folder, learner.model.config, learner.abstract().params)
    return jax.block_until_ready(params), time.perf_counter() - start


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Import, score references, take steps."""
    options = {"dtype": args.dtype, "remat": args.remat, "attention": args.attention}
    config, mesh = config_of(folder, options), make_mesh(MeshConfig())
    assert config.vocab_size is not None  # a checkpoint says it
    model = Transformer(config, config.vocab_size, choose_attention(config, mesh))
    learner = make_learner(model, make_optimizer(OptimizerConfig()), mesh)
    params, import_seconds = import_timed(folder, learner)
    state = learner.fresh(params, 0)
    loss = one_loss(PREFERENCE_LOSSES["sigmoid"], (KIND,))
    programs = jit_step(model, learner.optimizer, loss, mesh, learner.shardings, {})
    score = jit_score(model, mesh, learner.shardings, {})
    pairs = co_evolution(args.steps + 1, config.vocab_size)
    batches = batches_of({"trajectories": pairs.trajectories, "steps": pairs.steps, "share_prefixes": True})
    seconds, losses = [], []
    for batch in batches:
        scored = with_reference(batch, np.asarray(score(state.params, {}, batch)))
        start = time.perf_counter()
        state, metrics = take_step(programs, state, {}, [scored], np.float32(0.1), np.float32(1e-6))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
        total, share = metrics["loss"]
        losses.append(float(total / share))
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "import_seconds": import_seconds,
        "stored_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "seconds": seconds[1:],
        "losses": losses,
        "pairs": pairs,
    }


def peak_memory() -> tuple[float, str]:
    """Bytes of the device where it says them, else of this process; and whose they are."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"], "device"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "process"


def row_of(name: str, config: ModelConfig, found: dict[str, Any]) -> list[str]:
    pairs: PairSteps = found["pairs"]
    timed = list(zip(found["seconds"], pairs.steps[1:], strict=True))
    shape = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
    }
    total = sum(found["seconds"])
    rate = sum(pairs.tokens(step) for _, step in timed) / total
    flops = sum(needed_flops(shape, pairs, step) for _, step in timed) / total
    peak, owner = peak_memory()
    return [
        name,
        f"{found['parameters']:,}",
        f"{found['import_seconds']:.1f}",
        f"{found['stored_bytes'] / found['import_seconds'] / 1e9:.2f}",
        f"{total / len(timed):.2f} ({min(found['seconds']):.2f}–{max(found['seconds']):.2f})",
        f"{rate:,.0f}",
        f"{flops / 1e12:.3f}",
        f"{peak / GIB:.1f}",
        owner,
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backbone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="checkpoint folder")
    source.add_argument("--preset", choices=tuple(PRESETS), help="size of a random one")
    parser.add_argument("--vocab-size", type=int, default=VOCAB, help="of a random one")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the products"
    )
    parser.add_argument("--remat", default="none", help="a policy of model.remat")
    parser.add_argument("--attention", default="auto", help="a name of model.attention")
    parser.add_argument("--table", help="name of the table to replace; printed where none is given")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model or Path(scratch)
        if args.preset:
            write_checkpoint(folder, args.preset, args.vocab_size)
        found = measure(folder, args)
        name = args.model.name if args.model else f"Qwen3 {args.preset}, random"
        row = row_of(name, config_of(folder, {}), found)
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", f"| {' | '.join(row)} |", ""]
    lines.append(
        f"Tokens of all 8 pairs of a step; first-step loss {found['losses'][0]:.4f} (ln 2 = 0.6931). "
        f"Measured on {jax.devices()[0].device_kind} ({cpu()}), jax {jax.__version__}, with `"
        f"{shlex.join(['python', '-m', 'benchmarks.backbone', *sys.argv[1:]])}`."
    )
    text = "\n".join(lines)
    if args.table:
        write_table(args.table, text)
    print(text)
    print(json.dumps({"losses": found["losses"], "seconds": found["seconds"]}), file=sys.stderr)


if __name__ == "__main__":
    main()
