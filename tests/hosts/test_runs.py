"""Runs of 2 and 4 real processes against those of one: the same text and learning, resumed by any number."""

import json
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest

from coevo_jax.config.reading import load_config
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.hosts.processes import LOST
from coevo_jax.learning.programs import make_learning
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.sharding import make_mesh
from tests.hosts.runs import MIDDLE, TINY, Ended, at, launch, play, run_of_one, run_of_two
from tests.measured import curve
from tests.shared import made_once
from tests.tiny import write_config

pytestmark = pytest.mark.slow


def resume(stopped: Path, folder: Path, count: int) -> Path:
    """A copy of a stopped run, taken to its end by `count` processes."""
    copy = folder / stopped.name
    shutil.copytree(stopped, copy)
    ended = launch(count, "--resume", copy)
    assert [one.code for one in ended] == [0] * count, ended[-1].error
    return copy


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process, and beside it what was on disk in the middle of its second round."""
    return run_of_one(tmp_path_factory)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return run_of_two(tmp_path_factory)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A run of four processes of which one was killed in the first round's learning, and how they ended."""

    def make(folder: Path) -> None:
        killed = at(f"round-01/{MIDDLE}", "kill", 3)
        ended = launch(4, write_config(folder), f"runs_dir={folder / 'runs'}", *TINY, environment=killed)
        (folder / "ended.json").write_text(json.dumps([asdict(one) for one in ended]))

    folder = made_once(tmp_path_factory, "hosts-four", make)
    ended = [Ended(**one) for one in json.loads((folder / "ended.json").read_text())]
    return folder / "runs" / "tiny", ended


def text(run: Path, number: int) -> dict:
    """What was said in a round, by shard."""
    shards = sorted((run / "trajectories" / f"round-{number:02d}").glob("*.parquet"))
    return {
        shard.name: [
            (t.task_id, t.sample, t.turns, t.reward, t.tokens.tolist()) for t in read_trajectories([shard])
        ]
        for shard in shards
    }


def values(run: Path, phase: str) -> dict:
    """What a phase measured, by step and name."""
    return {(step, name): one for _, step, found in curve(run, phase) for name, one in found.items()}


def params(run: Path, number: int) -> list[np.ndarray]:
    """The target agent's parameters in a checkpoint."""
    config = load_config(run / "config.yaml")
    vocab_size = chat_format(load_tokenizer(run / "tokenizer")).vocab_size
    learner = make_learning(config, vocab_size, make_mesh(config.mesh)).learner
    checkpoints = Checkpointer(run / "checkpoints")
    try:
        state = checkpoints.restore(number, {"target": learner.abstract()})["target"]
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
    finally:
        checkpoints.close()


def assert_close(ours: Path, theirs: Path, *phases: str) -> None:
    for phase in phases:
        a, b = values(ours, phase), values(theirs, phase)
        assert a and a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5, atol=1e-5, err_msg=phase)


def assert_same_params(ours: Path, theirs: Path, number: int, tolerance: float) -> None:
    for a, b in zip(params(ours, number), params(theirs, number), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def last(run: Path) -> int:
    number = read_manifest(run).checkpoint
    assert number is not None
    return number


def test_the_first_exploration_says_the_same_whatever_the_number_of_processes(one, two, four):
    alone = text(one, 1)
    assert {name.split("-0")[0] for name in alone} == {
        "eval-failure",
        "eval-target",
        "failure",
        "hard_negatives",
        "target",
    }
    assert len({len(turns) for said in alone.values() for _, _, turns, _, _ in said}) > 1
    first = {name: said for name, said in alone.items() if not name.startswith("eval")}
    for other in (text(two, 1), text(four[0], 1)):
        assert {name: said for name, said in other.items() if not name.startswith("eval")} == first
    leftovers = [path for path in two.rglob(".*.parquet")]
    assert not leftovers


def test_the_first_learning_phases_agree(one, two, four):
    assert_close(two, one, "warm_start", "round-01/learn_target")
    assert_close(four[0], one, "warm_start")
    middle = last(four[0])
    for run in (two, four[0]):
        assert_same_params(run, one, middle, 1e-5)


def test_a_rerun_of_as_many_processes_is_the_same_bit_by_bit(two, tmp_path):
    again = play(tmp_path, 2)
    for path in sorted(two.rglob("*")):
        if path.suffix in (".parquet", ".npy") or path.parent.name in ("pairs", "tokenizer"):
            assert path.read_bytes() == (again / path.relative_to(two)).read_bytes(), path
    for phase in [record.name for record in read_manifest(two).done]:
        assert curve(two, phase) == curve(again, phase)
    assert_same_params(two, again, last(two), 0)


def test_one_process_alone_writes_what_a_run_has_one_of(two):
    lines = read_metrics(two / "metrics.jsonl")
    steps = [line["step"] for line in lines if line["phase"] == "warm_start"]
    assert steps == sorted(set(steps))
    results = json.loads((two / "results.json").read_text())
    assert [entry["n"] for entry in results["explorations"]] == [18] * 6
    assert (two / "report.html").is_file() and read_manifest(two).running is None


def test_a_killed_process_is_named_and_the_others_end(four):
    run, ended = four
    assert [one.code for one in ended] == [LOST, LOST, LOST, -9]
    for one in ended[:3]:
        assert (
            "error: process 3 of 4" in one.error
            and "it is lost: no sign of life for 25 s; started again" in one.error
        )
        assert "Traceback" not in one.error
    stopped = read_manifest(run).running
    assert stopped is not None and stopped.position == 2


@pytest.mark.parametrize("count", [1, 2])
def test_what_four_processes_began_is_finished_by_fewer(one, four, tmp_path, count):
    done = resume(four[0], tmp_path, count)
    assert_close(done, one, "warm_start", "round-01/learn_target")
    assert read_manifest(done).running is None


def test_two_processes_fork_what_one_process_began(one, tmp_path):
    rate = "agents.target.learning_rate=[1.00000000001e-4]"  # another one, and in float32 the same
    new = [write_config(tmp_path), f"runs_dir={tmp_path / 'runs'}", *TINY, "rounds=1", rate]
    ended = launch(2, "--fork", one, *new)
    assert [process.code for process in ended] == [0, 0], ended[-1].error
    forked = tmp_path / "runs" / "tiny"
    begin = json.loads((forked / "environment.json").read_text())["forked"]["phases"]
    count = len(begin)
    assert (
        begin[-1].startswith("round-01/explore")
        and read_manifest(forked).done[:count] == (read_manifest(one).done[:count])
    )
    assert_close(forked, one, "warm_start", "round-01/learn_target")


def test_a_later_round_of_stored_trajectories_is_learned_alike_by_four(one, tmp_path):
    """What one process began in the second round: the very trajectories it explored are learned from."""
    done = resume(one.parent.parent / "middle" / "tiny", tmp_path, 4)
    assert text(done, 2).keys() == text(one, 2).keys()
    assert_close(done, one, "round-02/learn_target")
    assert_same_params(done, one, last(one), 1e-5)


def test_hosts_that_share_a_copy_say_the_same_in_lockstep_and_an_error_ends_them_all(one, tmp_path):
    """Two pairs of hosts whose episodes differ in number and length; then one host refuses to go on."""
    ended = launch(
        4,
        write_config(tmp_path),
        f"runs_dir={tmp_path / 'runs'}",
        *TINY,
        "rollout.tensor=2",
        environment=at("round-01/explore_target 2", "refuse", 1),
    )
    said = "a disk is not the one that was asked for"
    for number, process in enumerate(ended):
        assert process.code == 2 and process.error.count(said) == 1 and "Traceback" not in process.error
        assert ("error: process 1 of 4 (" in process.error) == (number != 1)
    played, alone = text(tmp_path / "runs" / "tiny", 1), text(one, 1)
    assert len(played) == 4 and played == {name: alone[name] for name in played}


def test_processes_with_different_configs_are_refused_at_the_start(tmp_path):
    ended = launch(2, write_config(tmp_path), f"runs_dir={tmp_path}", *TINY, own=[["seed=0"], ["seed=1"]])
    for process in ended:
        assert process.code == 2 and "Traceback" not in process.error
        assert "error: process 1 (" in process.error
        assert ") differs from process 0 (" in process.error
        assert "): config seed: found 1, expected 0; start all processes with the same code" in process.error
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_where_process_0_is_killed_the_others_say_so_and_end(tmp_path):
    ended = launch(
        2, write_config(tmp_path), f"runs_dir={tmp_path}", *TINY, environment=at("prepare 0", "kill", 0)
    )
    assert [process.code for process in ended] == [-9, LOST]
    told = ended[1].error
    assert "process 1 of 2 on" in told and "writes the run and its progress" in told
    assert f"error: process 0 of 2 ({socket.gethostname()}) is lost: its machine refuses connections" in told
    assert "; started again, the run goes on from its last commit\n" in told


def test_a_budget_of_tokens_ends_the_exploration_at_the_same_block_for_two_processes(tmp_path):
    alone = [
        "rounds=1",
        "recipe=eto",
        "explore={samples: 6, block_tasks: 4}",
        "agents.target.max_pairs_per_kind=6",
        "budget={explored_tokens: [330], learned_tokens: [900]}",
    ]
    runs = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        options = [text for text in TINY if "epochs=1" not in text]  # which the budget would make idle
        ended = launch(count, write_config(folder), f"runs_dir={folder / 'runs'}", *options, *alone)
        assert [process.code for process in ended] == [0] * count, ended[-1].error
        runs.append(folder / "runs" / "tiny")
    one, two = (read_manifest(run) for run in runs)
    for name in ("round-01/explore_target", "round-01/learn_target"):
        ours, theirs = one.record(name), two.record(name)
        assert ours is not None and theirs is not None
        assert (ours.position, ours.records["budget"]) == (theirs.position, theirs.records["budget"])
    explored = one.record("round-01/explore_target")
    assert explored is not None and 4 < explored.position < 18
    first = [{name: said for name, said in text(run, 1).items() if name.startswith("target")} for run in runs]
    assert first[0] == first[1] and len(first[0]) == 18
    assert [bool(said) for said in first[0].values()] == [number < explored.position for number in range(18)]


def test_a_search_by_two_processes_finds_what_one_finds(tmp_path):
    searching = (
        *TINY,
        *("recipe=agent-r-reward", "rounds=1", "warm_start.epochs=10"),
        "explore={tasks: ['40:47'], samples: 1, temperature: 1.5, block_tasks: 3}",
        *("recipe.branch_tree.iterations=3", "recipe.branch_tree.samples=2"),
    )
    runs = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        ended = launch(count, write_config(folder), f"runs_dir={folder / 'runs'}", *searching)
        assert [one.code for one in ended] == [0] * count, ended[-1].error
        runs.append(folder / "runs" / "tiny")
    single, double = runs
    trees = [name for name in text(single, 1) if name.startswith("tree-")]
    assert len(trees) == 3 * 3 and text(single, 1) == text(double, 1)
    branches = [read_trajectories([single / "trajectories/round-01" / name]) for name in trees]
    assert any(one.branch is not None and one.branch.collection == "tree" for own in branches for one in own)
    records = [read_manifest(run).record("round-01/branch_tree") for run in runs]
    assert len({json.dumps(one.records["trees"]) for one in records if one is not None}) == 1
