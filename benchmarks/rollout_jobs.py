"""What `benchmarks.rollouts` plays: the model, the prompts and the episodes, the same for every contender."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coevo_jax.config.options import ModelConfig

VOCAB = 32_000
BATCH = 8
PROMPT = 256
SHARED = 128  # tokens of the prompt that all episodes begin with: the system prompt
TURNS, OBSERVATION, TURN = 10, 60, 20
DECODE = 128
EPISODES = 16
MODEL = ModelConfig(
    hidden_size=256,
    num_layers=4,
    num_heads=8,
    num_kv_heads=4,
    head_dim=32,
    intermediate_size=768,
    rope_theta=1e6,
)


def job(model: str, device: str, threads: int, cases: Sequence[str]) -> dict[str, Any]:
    """Prompts of (a) and episodes of (b), random ids."""
    rng = np.random.default_rng([0])

    def ids(count: int) -> list[int]:
        return rng.integers(5, VOCAB - 1, count).tolist()

    shared = ids(SHARED)
    episodes = [
        {"prompt": shared + ids(PROMPT - SHARED), "observations": [ids(OBSERVATION) for _ in range(TURNS)]}
        for _ in range(EPISODES)
    ]
    return {
        "model": model,
        "device": device,
        "threads": threads,
        "cases": list(cases),
        "batch": BATCH,
        "prompts": [ids(PROMPT) for _ in range(BATCH)],
        "decode_tokens": DECODE,
        "turn_tokens": TURN,
        "episodes": episodes,
    }
