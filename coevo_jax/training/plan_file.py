"""What a phase's optimizer steps learn from, as a file: for whoever wants to check a run without its code.

`plans/round-01-target.json` holds, beside the phase's name and beta (null in the warm start):

    epochs        how many are begun; where a budget of tokens ends the phase, the last may not be finished
    steps_taken   optimizer steps of all epochs

    trajectories  each once: source, task_id, sample, its mark if it has one, and its tokens, after a cut
    steps         of an epoch, each a list of microbatches, which are numbered through all steps:
      tokens        token places of its rows that are no padding
      views         n, the trajectory's number, the tokens that count, the sum of their weights, sft_weight;
                    turns, the weight of each, where some are not 1: 0 before a pair's first turn that counts;
                    of a reinforced one reinforce_weight, which multiplies its tokens' weights, and
                    advantages, as [value, tokens in a row that have it] along the trajectory;
                    of a discriminator's step expert_weight or own_weight, which multiplies its loss
      pairs         the pair's line in pairs/…jsonl, chosen and rejected as n, and its weight in the loss
    order         of every epoch that is begun, the steps in the order in which they are taken

`references/….npy` has the reference's log-probability of view n of microbatch m in place [m, n].
"""

import json
from collections.abc import Iterator
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.data.packing.plan import BatchPlan, epoch_order
from coevo_jax.files import write_whole

PLANS = "plans"


def write_plan(
    path: Path,
    plan: BatchPlan,
    *,
    phase: str,
    sides: list[dict[str, Any]],
    steps: int,
    seed: int,
    beta: float | None,
) -> None:
    """Write the plan of a phase.

    Args:
      sides: source, task and sample of each trajectory, and its mark if it has one.
      steps: that are taken.
      seed: of the phase; it gives the order of an epoch's steps.
    """
    epochs = -(-steps // max(len(plan.steps), 1))
    microbatches = [_microbatch(plan, number) for number in range(len(plan.batches))]
    content = {
        "phase": phase,
        "epochs": epochs,
        "steps_taken": steps,
        "beta": beta,
        "trajectories": [side | {"tokens": n} for side, n in zip(sides, plan.lengths, strict=True)],
        "steps": [[microbatches[number] for number in step] for step in plan.steps],
        "order": [epoch_order(len(plan.steps), seed, epoch).tolist() for epoch in range(epochs)],
    }
    write_whole(path, json.dumps(content))


def learned_tokens(plan: BatchPlan, steps: int, seed: int) -> int:
    """Token places that so many steps of a phase put through the model, without padding."""
    return sum(islice(_tokens_of_steps(plan, seed), steps))


def steps_of_budget(plan: BatchPlan, tokens: int, seed: int) -> int:
    """How many steps a phase takes until `learned_tokens` reaches a total; 0 where there is none to take."""
    total = steps = 0
    own = _tokens_of_steps(plan, seed)
    while plan.steps and total < tokens:
        total, steps = total + next(own), steps + 1
    return steps


def _tokens_of_steps(plan: BatchPlan, seed: int) -> Iterator[int]:
    """The tokens of each step in the order in which steps are taken, epoch after epoch without end."""
    for epoch in count() if plan.steps else ():
        for number in epoch_order(len(plan.steps), seed, epoch):
            yield sum(plan.tokens[micro] for micro in plan.steps[number])


def _microbatch(plan: BatchPlan, number: int) -> dict[str, Any]:
    batch = plan.batches[number]
    turns = plan.turns[number]
    views = [_view(batch, n, trajectory, turns.get(n)) for n, trajectory in plan.views[number]]
    pairs = [
        {
            "pair": pair,
            "chosen": int(batch.chosen[p]),
            "rejected": int(batch.rejected[p]),
            "weight": float(batch.weight[p]),
        }
        for p, pair in enumerate(plan.pairs[number])
    ]
    return {"tokens": plan.tokens[number], "views": views, "pairs": pairs}


def _view(batch: PreferenceBatch, n: int, trajectory: int, turns: tuple[float, ...] | None) -> dict[str, Any]:
    row, view = divmod(n, batch.view_weight.shape[1])
    weighed = {} if turns is None else {"turns": list(turns)}
    own = weighed | {
        "n": n,
        "trajectory": trajectory,
        "tokens": int(batch.token_count[n]),
        "weight": float(np.sum(batch.view_weight[row, view], dtype=np.float64)),
        "sft_weight": float(batch.sft_weight[n]),
    }
    if batch.steps is not None:
        weights = {"expert_weight": batch.steps.expert[n], "own_weight": batch.steps.own[n]}
        own |= {name: float(weight) for name, weight in weights.items() if weight}
    given = batch.reinforcement
    if given is None or not given.weight[n]:
        return own
    values = given.advantage[row, view][np.flatnonzero(batch.view_weight[row, view])]
    runs = [[value, len(list(run))] for value, run in groupby(values.tolist())]
    return own | {"reinforce_weight": float(given.weight[n]), "advantages": runs}
