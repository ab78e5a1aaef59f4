"""Tunix's DPOTrainer with its own Qwen3 as a contender of `benchmarks.learning`, held at every step.

Runs in an interpreter with google-tunix, and imports nothing of coevo_jax or torch. The trainer scores the
reference in every step, so that its references are part of a step's time.
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen3.model import ModelConfig, Qwen3
from tunix.sft.dpo.dpo_trainer import DPOTrainer, DPOTrainingConfig, TrainingInput

from benchmarks.peers.pipe import Pipe


def qwen3(job: dict[str, Any]) -> Qwen3:
    shape = job["model"]
    config = ModelConfig(
        num_layers=shape["num_hidden_layers"],
        vocab_size=shape["vocab_size"],
        embed_dim=shape["hidden_size"],
        hidden_dim=shape["intermediate_size"],
        num_heads=shape["num_attention_heads"],
        head_dim=shape["head_dim"],
        num_kv_heads=shape["num_key_value_heads"],
        rope_theta=int(shape["rope_theta"]),
        norm_eps=shape["rms_norm_eps"],
        use_tied_embedding=shape["tie_word_embeddings"],
        dtype=jnp.dtype(job["dtype"]),
    )
    return Qwen3(config, rngs=nnx.Rngs(0))


def microbatches(job: dict[str, Any]) -> list[TrainingInput]:
    """Microbatches of one shape: prompts padded on the left, completions on the right."""
    size = job["microbatch_pairs"]
    pairs = [pair for step in job["steps"] for pair in step]
    used = [job["trajectories"][index] for pair in pairs for index in pair]
    prompt = max(one["prompt"] for one in used)
    completion = max(len(one["tokens"]) - one["prompt"] for one in used)

    def padded(rows: list[list[int]], width: int, left: bool) -> tuple[np.ndarray, np.ndarray]:
        ids, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.int32)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        return ids, mask

    batches = []
    for start in range(0, len(pairs), size):
        sides = [
            [job["trajectories"][index] for index in side]
            for side in zip(*pairs[start : start + size], strict=True)
        ]
        prompts = padded([one["tokens"][: one["prompt"]] for one in sides[0]], prompt, True)
        chosen, rejected = (
            padded([one["tokens"][one["prompt"] :] for one in side], completion, False) for side in sides
        )
        batches.append(
            TrainingInput(
                prompt_ids=prompts[0],
                prompt_mask=prompts[1],
                chosen_ids=chosen[0],
                chosen_mask=chosen[1],
                rejected_ids=rejected[0],
                rejected_mask=rejected[1],
            )
        )
    return batches


def main() -> None:
    pipe = Pipe()
    job = pipe.job()
    model = qwen3(job)
    count = len(job["steps"][0]) // job["microbatch_pairs"]
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(job["learning_rate"], weight_decay=0.0)
    )
    config = DPOTrainingConfig(
        eval_every_n_steps=10**9,
        gradient_accumulation_steps=count if count > 1 else None,
        beta=job["beta"],
    )
    trainer = DPOTrainer(model, qwen3(job), optimizer, config)
    inputs = microbatches(job)

    def turns() -> Iterator[TrainingInput]:
        """The trainer asks for the next microbatch when it has handed the last one to the device."""
        for number, microbatch in enumerate(inputs):
            if number % count == 0:
                if number:
                    done()
                pipe.wait()
            yield microbatch
        done()

    def done() -> None:
        jax.block_until_ready(nnx.state(model))
        loss = trainer._prev_buffered_train_metrics.loss  # of the last step; nowhere public
        stats = jax.local_devices()[0].memory_stats() or {}
        pipe.report({"loss": float(loss), "device_peak": stats.get("peak_bytes_in_use")})

    pipe.report(
        {
            "versions": f"Tunix {version('google-tunix')}, jax {jax.__version__}",
            "settings": f"{job['microbatch_pairs']} pairs a batch, references in every step",
            "reference_seconds": [],
            "reference_cpu": [],
        }
    )
    trainer.train(turns())


if __name__ == "__main__":
    main()
