"""transformers' generate as a contender of `benchmarks.rollouts`: greedy, called for every turn of a batch.

Runs in an interpreter with torch and transformers, and imports nothing of coevo_jax or jax.
"""

import time
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.peers.pipe import Pipe


def write(model: Any, texts: torch.Tensor, count: int) -> torch.Tensor:
    """The next `count` tokens of every text; [B, count]."""
    with torch.inference_mode():
        out = model.generate(
            input_ids=texts,
            attention_mask=torch.ones_like(texts),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
    return out[:, texts.shape[1] :]


def play(model: Any, episodes: list[dict[str, Any]], turn_tokens: int, batch: int, device: str) -> int:
    """Every turn reads the whole conversation again. All are of one length: nothing is padding."""
    written = 0
    for start in range(0, len(episodes), batch):
        group = episodes[start : start + batch]
        texts = torch.tensor([one["prompt"] for one in group], device=device)
        for turn in range(len(group[0]["observations"])):
            answer = write(model, texts, turn_tokens)
            read = torch.tensor([one["observations"][turn] for one in group], device=device)
            texts = torch.cat([texts, answer, read], dim=1)
            written += answer.numel()
    return written


def main() -> None:
    pipe = Pipe()
    job = pipe.job()
    torch.set_num_threads(job["threads"])
    device = "cpu" if job["device"] == "cpu" else "cuda"
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).to(device).eval()
    model.generation_config.eos_token_id = None
    prompts = torch.tensor(job["prompts"], device=device)
    pipe.report({"versions": f"transformers {transformers.__version__}, torch {torch.__version__}"})
    turn = 0
    while True:
        pipe.wait()
        if job["cases"][turn % len(job["cases"])] == "decode":
            start = time.perf_counter()
            write(model, prompts, 1)  # what reading the prompts costs, to be told from decoding
            read = time.perf_counter() - start
            start = time.perf_counter()
            tokens = write(model, prompts, 1 + job["decode_tokens"]).cpu().tolist()
            decode = time.perf_counter() - start - read
            pipe.report({"case": "decode", "tokens": tokens, "decode_seconds": decode})
        else:
            written = play(model, job["episodes"], job["turn_tokens"], job["batch"], device)
            pipe.report({"case": "episodes", "written": written, "episodes": len(job["episodes"])})
        turn += 1


if __name__ == "__main__":
    main()
