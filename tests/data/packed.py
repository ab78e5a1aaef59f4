"""Trajectories, pairs and plans for the tests of packing."""

import numpy as np

from coevo_jax.config.options import BatchConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.data.packing.plan import pack
from coevo_jax.data.pairing import Extra, PairSet
from coevo_jax.trajectory import Ending, PreferencePair, Trajectory

PAD = 9
DPO = {"expert_target": 0.5, "expert_failure": 0.25, "failure_failure": 1.0}
SFT = {"expert_target": 0.5, "expert_failure": 0.125, "failure_failure": 0.0}
PAIR_KINDS = ("expert_target", "expert_failure", "failure_failure")
WEIGHTS = {kind: KindWeights(dpo=DPO[kind], sft=SFT[kind]) for kind in PAIR_KINDS}


def trajectory(tokens, mask, *, task="t", agent="target", sample=0, reward=0.0):
    """`mask` is a string of 0 and 1."""
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="",
        turns=(),
        reward=reward,
        ending=Ending.FAILED,
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array([char == "1" for char in mask], bool),
        logps=np.zeros(len(mask), np.float32),
    )


def pair(chosen, rejected, kind="expert_target", task="t", **first_turns):
    return PreferencePair(task_id=task, kind=kind, chosen=chosen, rejected=rejected, **first_turns)


def packed(
    trajectories, links, *, extra=None, reduction="mean", seed=0, weights=WEIGHTS, credit=None, **batch
):
    return pack(
        PairSet(trajectories=tuple(trajectories), pairs=tuple(links)),
        batch=BatchConfig(**batch),
        kinds=weights,
        order=PAIR_KINDS,
        sft_extra={
            Extra(one) if isinstance(one, int) else one: weight for one, weight in (extra or {}).items()
        },
        sft_reduction=reduction,
        pad_id=PAD,
        seed=seed,
        **(credit or {}),
    )


def corpus(rng, tasks, samples, *, prompt, turn, system=0, max_turns=6, sometimes=1.0):
    """Tasks with an expert and 1 to `samples` failures that follow it for some turns, and pairs of all kinds.

    `prompt` and `turn` are (least, most) tokens; half of a turn is the agent's. Tokens are 10 or more.
    """
    trajectories, pairs = [], []
    common = rng.integers(10, 50, system).tolist()
    for task in range(tasks):
        start = len(trajectories)
        opening = [*common, *rng.integers(10, 50, rng.integers(*prompt, endpoint=True)).tolist()]
        turns = []
        for k in range(int(rng.integers(1, samples + 1)) + 1):
            followed = int(rng.integers(0, len(turns) + 1)) if rng.random() < sometimes else 0
            turns = turns[:followed]
            for _ in range(int(rng.integers(1, max_turns + 1))):
                size = int(rng.integers(*turn, endpoint=True))
                mask = "1" * (size - size // 2) + "0" * (size // 2)
                turns = [*turns, (rng.integers(10, 50, size).tolist(), mask)][:max_turns]
            tokens = [*opening, *(token for ids, _ in turns for token in ids)]
            mask = "0" * len(opening) + "".join(mask for _, mask in turns)
            trajectories.append(trajectory(tokens, mask, task=f"t{task:04d}", sample=k))
        for k in range(start + 1, len(trajectories)):
            pairs.append(pair(start, k, PAIR_KINDS[k % 2], f"t{task:04d}"))
        if len(trajectories) > start + 2:
            pairs.append(pair(start + 1, start + 2, "failure_failure", f"t{task:04d}"))
    return trajectories, pairs


def seen_from(tokens, row, place):
    """Places of the row that the token at `place` sees."""
    return [k for k in range(place + 1) if place < tokens.visible_until[row, k]]


# Two prompt tokens, an agent token all but the last share, and branches.
HAND = [
    trajectory([10, 11, 12, 13, 14, 15], "001101", agent="expert", reward=1.0),
    trajectory([10, 11, 12, 20, 21], "00110", reward=0.5),
    trajectory([10, 11, 30, 31], "0011", agent="failure", reward=0.25),
]
HAND_PAIRS = [pair(0, 1), pair(0, 2, "expert_failure"), pair(1, 2, "failure_failure")]
HAND_SHAPE = {"rows": 1, "row_length": 16, "views_per_row": 4, "pairs": 4}
