"""A warm start that learns whole texts: which tokens count, and that its audit derives them again."""

import json

import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.data.packing.prefix_tree import scored_tokens
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases.warm_start import whole_text
from coevo_jax.run_folder.run import create_run
from coevo_jax.trajectory import Ending, Trajectory
from tests.audit.breaking import states
from tests.tiny import tiny_config

SMALL = ("rounds=0", "recipe=sft", "model.num_layers=1", "evaluate.tasks=':9'", "checkpoint.keep=all")


def test_all_tokens_but_the_first_are_learned_in_one_stretch():
    mask = np.array([False, False, True, True, False, True])
    one = Trajectory(
        task_id="t",
        agent="expert",
        sample=0,
        prompt="p",
        turns=(),
        reward=1.0,
        ending=Ending.SOLVED,
        tokens=np.arange(6, dtype=np.int32),
        agent_mask=mask,
        logps=np.zeros(6, np.float32),
    )
    whole = whole_text(one)
    assert scored_tokens(whole).tolist() == [1, 2, 3, 4, 5] and scored_tokens(one).tolist() == [2, 3, 5]
    assert (whole.tokens is one.tokens) and one.agent_mask is mask


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_a_run_learns_whole_texts_and_its_audit_holds(tmp_path):
    run = create_run(tiny_config(tmp_path, *SMALL, "warm_start={tasks: '0:12', epochs: 2, learn: text}"))
    coevolve(run)
    run.close()
    experts = read_trajectories([run.folder / "trajectories/experts.parquet"])
    plan = json.loads((run.folder / "plans/warm-start.json").read_text())
    views = [view for step in plan["steps"] for micro in step for view in micro["views"]]
    assert sorted(view["tokens"] for view in views) == sorted(len(one.tokens) - 1 for one in experts)
    assert any(not one.agent_mask[1:].all() for one in experts)  # what is kept says who wrote what
    found = states(run.folder)
    assert found["loss/warm_start"] == "held"
    assert not [name for name, state in found.items() if state.lower() == "broken"], found
