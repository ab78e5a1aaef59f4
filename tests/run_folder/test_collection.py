"""Whose a roll-out is: what learning reads depends neither on who explored beside whom nor on the blocks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.recipe import find_phase
from coevo_jax.run_folder.collection import collection_files, read_collection
from coevo_jax.run_folder.run import Run, create_run
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")

EXPLORED = ("explore_target", "explore_failure", "explore_hard_negatives")


def finished(folder: Path, *overrides: str) -> Run:
    run = create_run(tiny_config(folder, *overrides))
    coevolve(run)
    run.close()
    return run


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Run:
    """Both agents side by side, three blocks of tasks."""
    return finished(tmp_path_factory.mktemp("together"))


def pairs(run: Run, agent: str) -> list[dict]:
    lines = (run.folder / "pairs" / f"round-01-{agent}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [("explore.together=false",), ("explore.together=false", "explore.block_tasks=20")]
)
def test_agents_explore_side_by_side_or_in_turn_and_learn_from_the_same_pairs(together, tmp_path, overrides):
    other = finished(tmp_path, *overrides)
    for agent in ("failure", "target"):
        assert pairs(other, agent) == pairs(together, agent)
    for name in EXPLORED:
        phase = find_phase(together.config, f"round-01/{name}")
        one, two = (read_collection(run.folder, run.manifest, phase) for run in (together, other))
        assert [(t.task_id, t.sample, t.turns) for t in one] == [(t.task_id, t.sample, t.turns) for t in two]


@pytest.mark.slow
def test_a_collection_is_one_agents_and_whole(together):
    for name, agent in zip(EXPLORED, ("target", "failure", "failure"), strict=True):
        phase = find_phase(together.config, f"round-01/{name}")
        played = read_collection(together.folder, together.manifest, phase)
        assert {trajectory.agent for trajectory in played} == {agent}
        assert len(played) == len({(t.task_id, t.sample) for t in played}) == 40


@pytest.mark.slow
def test_the_target_learns_from_its_own_failures_and_from_hard_negatives_alone(together):
    """Recomputed from the shards' names alone, without what the run recorded of them."""
    sources = {
        name: read_trajectories(sorted((together.folder / "trajectories/round-01").glob(f"{name}-*.parquet")))
        for name in ("target", "failure", "hard_negatives")
    }
    rewards = {(name, t.task_id, t.sample): t.reward for name, played in sources.items() for t in played}
    expected = {"expert_target": {"target"}, "expert_failure": {"hard_negatives"}}
    for pair in pairs(together, "target"):
        rejected, chosen = pair["rejected"], pair["chosen"]
        if pair["kind"] in expected:
            assert {rejected["source"], chosen["source"]} - {"expert"} == expected[pair["kind"]]
        else:
            assert {rejected["source"], chosen["source"]} <= {"target", "hard_negatives"}
            sides = [rewards[side["source"], pair["task_id"], side["sample"]] for side in (rejected, chosen)]
            assert sides[0] < sides[1] < 1


@pytest.mark.slow
def test_another_agents_trajectory_is_refused(together, tmp_path):
    phase = find_phase(together.config, "round-01/explore_target")
    for path in collection_files(together.manifest, phase):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        played = read_trajectories([together.folder / path])
        write_trajectories(tmp_path / path, [replace(played[0], agent="failure"), *played[1:]])
    with pytest.raises(ConfigError, match=r"target-00000-of-00003\.parquet: row 0: found .* of the failure"):
        read_collection(tmp_path, together.manifest, phase)


@pytest.mark.slow
def test_a_collection_with_a_block_missing_is_refused(together):
    phase = find_phase(together.config, "round-01/explore_failure")
    lost = collection_files(together.manifest, phase)[1]
    done = tuple(
        replace(record, files={path: digest for path, digest in record.files.items() if path != lost})
        for record in together.manifest.done
    )
    with pytest.raises(ConfigError, match=r"found the shards \[0, 2\] of \[3\]"):
        read_collection(together.folder, replace(together.manifest, done=done), phase)
    unfinished = replace(together.manifest, done=done[:2])
    with pytest.raises(ConfigError, match="explore_failure is not finished"):
        read_collection(together.folder, unfinished, phase)
