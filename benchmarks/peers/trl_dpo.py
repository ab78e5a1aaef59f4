"""TRL's DPOTrainer as a contender of `benchmarks.learning`: its own loop, held at every step.

Runs in an interpreter with trl and torch, and imports nothing of coevo_jax or jax. Its best settings: see
`benchmarks.learning`.
"""

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from benchmarks.peers.pipe import Pipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Trainer(trl.DPOTrainer):
    """DPOTrainer on pairs that are token ids already, and the time of every batch of its references."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.reference_seconds: list[float] = []
        self.reference_cpu: list[float] = []
        super().__init__(*args, **options)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        logps = super().compute_ref_log_probs(model, inputs)
        synchronize()
        self.reference_seconds.append(time.perf_counter() - start)
        self.reference_cpu.append(time.process_time() - cpu)
        return logps


class Turns(TrainerCallback):
    """Holds the trainer before each step. A step's clock also covers the loading of its pairs."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pipe.wait()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            synchronize()
            self.pipe.report({"loss": float(logs["loss"]), "device_peak": device_peak()})
            self.pipe.wait()


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_peak() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def save_model(job: dict[str, Any], folder: Path, attention: str) -> None:
    """A Qwen3 with random float32 weights and a tokenizer on disk: the trainer loads both from there."""
    torch.manual_seed(0)
    config = Qwen3Config(**job["model"], attn_implementation=attention)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokens = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<eos>").save_pretrained(
        folder
    )


def pairs_of(job: dict[str, Any]) -> Dataset:
    """Every step's pairs in the order of the steps, token ids with the prompt split off."""
    rows = []
    for step in job["steps"]:
        for chosen, rejected in step:
            sides = [job["trajectories"][index] for index in (chosen, rejected)]
            prompt = sides[0]["prompt"]
            rows.append(
                {
                    "prompt_ids": sides[0]["tokens"][:prompt],
                    "chosen_ids": sides[0]["tokens"][prompt:],
                    "rejected_ids": sides[1]["tokens"][prompt:],
                }
            )
    return Dataset.from_list(rows)


def main() -> None:
    pipe = Pipe()
    job = pipe.job()
    torch.set_num_threads(job["threads"])
    on_gpu = torch.cuda.is_available() and not job["cpu"]
    flash = on_gpu and job["dtype"] == "bfloat16" and importlib.util.find_spec("flash_attn") is not None
    attention = "flash_attention_2" if flash else "sdpa"
    pairs, microbatch = len(job["steps"][0]), job["microbatch_pairs"]
    with tempfile.TemporaryDirectory() as folder:
        save_model(job, Path(folder) / "model", attention)
        options = trl.DPOConfig(
            output_dir=str(Path(folder) / "out"),
            model_init_kwargs={"attn_implementation": attention, "dtype": "float32"},
            beta=job["beta"],
            learning_rate=job["learning_rate"],
            lr_scheduler_type="constant",
            per_device_train_batch_size=microbatch,
            gradient_accumulation_steps=pairs // microbatch,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            max_length=None,
            precompute_ref_log_probs=True,
            gradient_checkpointing=job["checkpointing"],
            bf16=job["dtype"] == "bfloat16",
            use_cpu=not on_gpu,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=str(Path(folder) / "model"),
            args=options,
            train_dataset=pairs_of(job),
            callbacks=[Turns(pipe)],
        )
        batches = pairs // microbatch
        seconds, cpu = (
            [sum(times[i : i + batches]) for i in range(0, len(times), batches)]
            for times in (trainer.reference_seconds, trainer.reference_cpu)
        )
        pipe.report(
            {
                "versions": f"TRL {trl.__version__}, torch {torch.__version__}, "
                f"transformers {transformers.__version__}",
                "settings": f"{microbatch} pairs a batch, {attention}, "
                f"gradient checkpointing {'on' if job['checkpointing'] else 'off'}",
                "reference_seconds": seconds,
                "reference_cpu": cpu,
            }
        )
        trainer.train()


if __name__ == "__main__":
    main()
