"""The plan of a phase as a file says what its batches hold."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.data.packing.plan import epoch_order
from coevo_jax.training.plan_file import learned_tokens, steps_of_budget, write_plan
from tests.learning.packed import packed, random_pairs


@pytest.fixture(scope="module")
def pair_set():
    return random_pairs(1)


@pytest.fixture(params=[{}, {"step_pairs": 5, "rows": 2}], ids=["a microbatch a step", "counted steps"])
def plan(request, pair_set):
    return packed(pair_set, ld_alpha=0.5, **request.param)


def test_a_plan_file_names_every_view_and_pair_of_every_step(plan, pair_set, tmp_path):
    path = tmp_path / "plan.json"
    sides = [{"source": t.agent, "task_id": t.task_id, "sample": t.sample} for t in pair_set.trajectories]
    steps = 3 * len(plan.steps)
    write_plan(path, plan, phase="round-01/learn_target", sides=sides, steps=steps, seed=7, beta=0.1)
    found = json.loads(path.read_text())
    assert [side["tokens"] for side in found["trajectories"]] == [
        len(trajectory.tokens) for trajectory in pair_set.trajectories
    ]
    assert [sorted(order) for order in found["order"]] == [list(range(len(plan.steps)))] * 3
    assert (found["epochs"], found["steps_taken"]) == (3, steps)
    seen = []
    microbatches = [micro for step in found["steps"] for micro in step]
    for micro, batch in zip(microbatches, plan.batches, strict=True):
        trajectory_at = {view["n"]: view["trajectory"] for view in micro["views"]}
        for view in micro["views"]:
            assert view["tokens"] == batch.token_count[view["n"]] > 0
            row, place = divmod(view["n"], batch.view_weight.shape[1])
            assert view["weight"] == pytest.approx(batch.view_weight[row, place].sum(), rel=1e-6)
            assert view["sft_weight"] == batch.sft_weight[view["n"]]
        for p, pair in enumerate(micro["pairs"]):
            named = pair_set.pairs[pair["pair"]]
            assert (trajectory_at[pair["chosen"]], trajectory_at[pair["rejected"]]) == (
                named.chosen,
                named.rejected,
            )
            assert (pair["chosen"], pair["rejected"]) == (batch.chosen[p], batch.rejected[p])
            assert pair["weight"] == batch.weight[p]
            seen.append(pair["pair"])
        assert np.count_nonzero(batch.weight) == len(micro["pairs"])
    assert sorted(seen) == list(range(len(pair_set.pairs)))
    assert learned_tokens(plan, steps, 7) == 3 * sum(micro["tokens"] for micro in microbatches)


def test_a_budget_of_tokens_ends_with_the_step_that_reaches_it(plan, tmp_path):
    own = [sum(plan.tokens[number] for number in step) for step in plan.steps]
    order = [number for epoch in range(4) for number in epoch_order(len(own), 7, epoch)]
    taken = [own[number] for number in order]
    for steps in (1, 2, len(own), len(own) + 1, 3 * len(own) - 1):
        total = sum(taken[:steps])
        assert learned_tokens(plan, steps, 7) == total
        assert steps_of_budget(plan, total, 7) == steps == steps_of_budget(plan, total - 1, 7)
        assert steps_of_budget(plan, total + 1, 7) == steps + 1
        path = tmp_path / "plan.json"
        write_plan(path, plan, phase="p", sides=[{}] * len(plan.lengths), steps=steps, seed=7, beta=0.1)
        found = json.loads(path.read_text())
        assert found["steps_taken"] == steps
        assert len(found["order"]) == found["epochs"] == -(-steps // len(own))
        assert [number for epoch in found["order"] for number in epoch][:steps] == order[:steps]


def test_without_a_step_to_take_no_token_is_learned(plan):
    empty = replace(plan, steps=(), batches=[], tokens=())
    assert steps_of_budget(empty, 100, 7) == learned_tokens(empty, 0, 7) == 0
