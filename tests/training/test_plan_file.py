"""The plan of a phase as a file says what its batches hold."""

import json

import numpy as np
import pytest

from coevo_jax.training.plan_file import learned_tokens, write_plan
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
    write_plan(path, plan, phase="round-01/learn_target", sides=sides, epochs=3, seed=7, beta=0.1)
    found = json.loads(path.read_text())
    assert [side["tokens"] for side in found["trajectories"]] == [
        len(trajectory.tokens) for trajectory in pair_set.trajectories
    ]
    assert [sorted(order) for order in found["order"]] == [list(range(len(plan.steps)))] * 3
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
    assert learned_tokens(plan, 3) == 3 * sum(micro["tokens"] for micro in microbatches)
