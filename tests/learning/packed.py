"""Random trajectories of tasks with shared beginnings, and batches packed from them."""

from dataclasses import replace

import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.options import BatchConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.data.packing.plan import BatchPlan, pack
from coevo_jax.data.pairing import PairSet
from coevo_jax.trajectory import Ending, PreferencePair, Trajectory

VOCAB = 64
PAIR_KINDS = ("expert_target", "expert_failure", "failure_failure")
WEIGHTS = {
    "expert_target": KindWeights(dpo=0.5, sft=0.5),
    "expert_failure": KindWeights(dpo=0.25, sft=0.125),
    "failure_failure": KindWeights(dpo=1.0, sft=0.0),
}


def random_pairs(seed: int, *, tasks: int = 4, failures: int = 3) -> PairSet:
    """Tasks with an expert and failures that share the prompt, some a first turn; every kind of pair."""
    rng = np.random.default_rng(seed)
    trajectories, pairs = [], []
    for number in range(tasks):
        task_id, first = f"task-{number}", len(trajectories)
        prompt, turn = rng.integers(1, VOCAB, int(rng.integers(8, 16))), rng.integers(1, VOCAB, 6)
        for sample in range(failures + 1):
            begin = np.concatenate([prompt, turn]) if sample % 2 else prompt
            rest = int(rng.integers(10, 24))
            tokens = np.concatenate([begin, rng.integers(1, VOCAB, rest)]).astype(np.int32)
            mask = np.zeros(len(tokens), bool)
            mask[len(prompt) : len(prompt) + 4] = sample % 2 == 1
            mask[len(begin) :] = np.arange(rest) % 7 < 5
            trajectories.append(
                Trajectory(
                    task_id=task_id,
                    agent="expert" if sample == 0 else "target",
                    sample=sample,
                    prompt="",
                    turns=(),
                    reward=1.0 if sample == 0 else sample / 10,
                    ending=Ending.SOLVED if sample == 0 else Ending.FAILED,
                    tokens=tokens,
                    agent_mask=mask,
                    logps=np.zeros(len(tokens), np.float32),
                )
            )
        links = [(0, k, PAIR_KINDS[k % 2]) for k in range(1, failures + 1)] + [(2, 1, "failure_failure")]
        pairs += [
            PreferencePair(task_id=task_id, kind=kind, chosen=first + c, rejected=first + r)
            for c, r, kind in links
        ]
    return PairSet(trajectories=tuple(trajectories), pairs=tuple(pairs))


def packed(
    pair_set: PairSet, *, reduction="mean", ld_alpha=1.0, turn_discount=1.0, seed=0, **shape
) -> BatchPlan:
    """A plan of `pair_set`; by default in microbatches of 8 rows of 96."""
    settings = {"rows": 8, "row_length": 96, "views_per_row": 6, "pairs": 24} | shape
    return pack(
        pair_set,
        batch=BatchConfig(**settings),
        kinds=WEIGHTS,
        order=PAIR_KINDS,
        sft_extra={},
        sft_reduction=reduction,
        pad_id=0,
        seed=seed,
        ld_alpha=ld_alpha,
        turn_discount=turn_discount,
    )


def one_batch(seed: int = 0, **shape) -> PreferenceBatch:
    """All pairs of some random tasks in one microbatch, with made-up references."""
    (batch,) = packed(random_pairs(seed), **shape).batches
    rng = np.random.default_rng(seed)
    reference = -60 + rng.normal(size=batch.token_count.shape).astype(np.float32)
    return replace(batch, reference_logps=np.where(batch.token_count > 0, reference, 0))
