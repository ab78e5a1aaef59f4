"""Commits whose states are written while learning goes on, and runs that are asked to end."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pytest

import coevo_jax.training.optimize as optimize_module
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.programs import make_learning
from coevo_jax.learning.train_state import Agents
from coevo_jax.learning.train_step import take_step
from coevo_jax.recipe import Phase, schedule
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.digests import Hashing
from coevo_jax.run_folder.manifest import (
    Manifest,
    PhaseRecord,
    checkpoint_root,
    read_manifest,
    verify_files,
    write_manifest,
)
from coevo_jax.run_folder.run import Run, create_run, open_run
from coevo_jax.run_folder.stopping import SIGNALS, Stopped, StopRequest
from coevo_jax.sharding import make_mesh
from coevo_jax.training.optimize import optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.step_plan import StepPlan
from tests.learning.packed import VOCAB, packed, random_pairs
from tests.measured import curve
from tests.tiny import tiny_config

PHASE = Phase(kind="learn", name="round-01/learn_target", round=1, agent="target", index=4)
STEPS = 9


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A config that commits after every second step and keeps one checkpoint, its programs, and a plan."""
    config = tiny_config(
        tmp_path_factory.mktemp("scene"),
        "model.num_layers=1",
        "recipe=eto",
        "checkpoint={every_steps: 2, keep: 1}",
    )
    plan = packed(random_pairs(3), rows=2, row_length=96, views_per_row=6, pairs=8)
    assert len(plan.steps) * 3 == STEPS
    return config, make_learning(config, VOCAB, make_mesh(config.mesh)), plan


def begin(scene, folder: Path) -> Run:
    """A run that stands right before the phase; the warm start's checkpoint is none that is stored."""
    config = scene[0].model_copy(update={"runs_dir": str(folder)})
    run = create_run(config)
    before = ["prepare", *(phase.name for phase in schedule(config))]
    before = before[: before.index(PHASE.name)]
    done = tuple(PhaseRecord(name=name, records={"checkpoint": -1}) for name in before)
    run.manifest = replace(run.manifest, done=done)
    write_manifest(run.folder, run.manifest)
    return run


def agents_of(scene, run: Run) -> Agents:
    """As of the last commit, or fresh ones."""
    learner, number = scene[1].learner, run.manifest.checkpoint
    if number is None:
        return Agents(states={"target": learner.init(0)})
    return Agents(states=run.checkpoints.restore(number, {"target": learner.abstract()}))


def learn(scene, run: Run) -> Agents:
    """The phase, with the commit that ends it."""
    _, learning, plan = scene
    agents = agents_of(scene, run)
    course = StepPlan(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=3 * len(plan.steps),
        beta=0.1,
        rate=lambda step, _steps: 0.01 * (step + 1),
        files=list,
    )
    pace = Pace(learning.learner, plan, learning.mesh)
    record = run.begin(PHASE.name)
    programs = learning.programs["target"]
    record, agents = optimize(run, learning, programs, agents, PHASE, record, course, pace)
    run.commit(record, files=[], agents=agents, finished=True)
    return agents


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    """A phase that nobody stopped, and the agents that it ends with."""
    run = begin(scene, tmp_path_factory.mktemp("whole"))
    agents = learn(scene, run)
    run.close()
    return run, agents


def during_steps(monkeypatch, act) -> None:
    """Call `act` with the number of every optimizer step of this process, while the step is taken."""
    taken = 0

    def step(*arguments):
        nonlocal taken
        taken += 1
        act(taken)
        return take_step(*arguments)

    monkeypatch.setattr(optimize_module, "take_step", step)


def test_a_commit_counts_once_its_states_are_final_and_learning_goes_on(scene, whole, tmp_path, monkeypatch):
    """Never final before the next commit asks: the manifest lies one commit back, and is always whole."""
    run = begin(scene, tmp_path)
    seen = []

    def look(_step):
        manifest = read_manifest(run.folder)
        verify_files(run.folder, manifest)
        assert (
            len(list((run.folder / "checkpoints").iterdir())) <= 2
        )  # the one kept, and the one being written
        seen.append(manifest.running.position if manifest.running else 0)

    during_steps(monkeypatch, look)
    with monkeypatch.context() as never:
        never.setattr(Checkpointer, "saving", lambda self: True)
        learn(scene, run)
    assert seen == [0, 0, 0, 0, 2, 2, 4, 4, 6]
    assert read_manifest(run.folder).record(PHASE.name) is None  # so is the commit that ends the phase
    run.settle()
    assert read_manifest(run.folder) == run.manifest and run.manifest.record(PHASE.name)
    assert run.checkpoints.steps() == [run.manifest.checkpoint]
    assert curve(run.folder) == curve(whole[0].folder)
    run.close()


def test_a_commit_is_written_at_the_first_step_after_its_states_are_final(scene, tmp_path, monkeypatch):
    run, seen = begin(scene, tmp_path), []
    during_steps(monkeypatch, lambda _: seen.append(read_manifest(run.folder).running))
    monkeypatch.setattr(Checkpointer, "saving", lambda self: self._manager.wait_until_finished())
    monkeypatch.setattr(Hashing, "done", lambda self: bool(self.result()))
    learn(scene, run)
    assert [record.position if record else 0 for record in seen] == [0, 0, 0, 2, 2, 4, 4, 6, 6]
    run.close()


def test_what_ends_a_phase_is_told_and_read_once_it_is_permanent(scene, tmp_path, monkeypatch):
    run, saved = begin(scene, tmp_path), []
    monkeypatch.setattr(run, "_watchers", [])
    monkeypatch.setattr(run._results, "save", lambda results: saved.append(results))
    run.commit(PhaseRecord(name=PHASE.name), files=[], agents=agents_of(scene, run), finished=True)
    run.show({"phases": 1})  # pyright: ignore[reportArgumentType]
    assert saved == [] and read_manifest(run.folder).record(PHASE.name) is None
    assert run.checkpoints.agents(0) == ("target",)  # who reads waits for it
    manifest = read_manifest(run.folder)
    assert manifest.record(PHASE.name) is not None and set(manifest.checkpoint_digests["0"]) == set(
        manifest.checkpoint_files
    )
    assert saved == [{"phases": 1}]
    run.show({"phases": 2})  # pyright: ignore[reportArgumentType]
    assert saved[1:] == [{"phases": 2}]
    run.close()


def test_states_are_those_of_the_commit_whatever_is_learned_while_they_are_written(scene, tmp_path):
    """Steps donate the very buffers that are being saved, at once and several times."""
    _, learning, plan = scene
    run = begin(scene, tmp_path)
    agents = agents_of(scene, run)
    state = agents["target"]
    expected = jax.tree.map(np.array, state)
    run.checkpoints.begin_save(0, agents.states, {})
    for _ in range(5):
        own = [plan.batches[0]]
        state, _ = take_step(learning.programs["target"], state, {}, own, np.float32(0.1), np.float32(0.1))
    jax.block_until_ready(state)
    run.checkpoints.finish_save(0)
    found = run.checkpoints.restore(0, {"target": learning.learner.abstract()})["target"]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True)
    )
    run.close()


@pytest.mark.parametrize(
    ("signum", "at"),
    [
        case if case in [(SIGNALS[0], 4), (SIGNALS[1], 9)] else pytest.param(*case, marks=pytest.mark.slow)
        for case in product(SIGNALS, (1, 4, 9))
    ],
)
def test_a_signal_ends_learning_after_the_step_and_the_run_goes_on_in_the_same_bits(
    at, signum, scene, whole, tmp_path, monkeypatch
):
    run = begin(scene, tmp_path)
    before = [signal.getsignal(one) for one in SIGNALS]
    with monkeypatch.context() as patch, run.stop:
        during_steps(patch, lambda step: os.kill(os.getpid(), signum) if step == at else None)
        if at < STEPS:
            with pytest.raises(Stopped, match=signal.Signals(signum).name) as stop:
                learn(scene, run)
            assert stop.value.signum == signum
        else:  # the phase ends anyway, and the run before the next one
            agents = learn(scene, run)
            with pytest.raises(Stopped):
                run.stop.end_if_asked()
        assert [signal.getsignal(one) for one in SIGNALS] == [signal.SIG_DFL] * 2  # a second one kills
    assert [signal.getsignal(one) for one in SIGNALS] == before
    manifest = read_manifest(run.folder)
    run.close()
    if at < STEPS:
        assert manifest.running is not None and manifest.running.position == at
        run = open_run(run.folder)
        agents = learn(scene, run)
        run.close()
    expected, states = whole
    assert curve(run.folder) == curve(expected.folder)
    jax.tree.map(np.testing.assert_array_equal, agents["target"], states["target"])


def test_checkpoints_lie_where_the_config_says_and_are_read_from_there(scene, whole, tmp_path, monkeypatch):
    """Another folder, through the same paths that a bucket takes; another run's are not touched."""
    monkeypatch.chdir(tmp_path)
    config = scene[0].model_copy(
        update={"checkpoint": scene[0].checkpoint.model_copy(update={"folder": "elsewhere"})}
    )
    run = begin((config, *scene[1:]), tmp_path)
    with monkeypatch.context() as patch, run.stop:
        during_steps(patch, lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 5 else None)
        with pytest.raises(Stopped):
            learn(scene, run)
    run.close()
    assert not (run.folder / "checkpoints").exists()
    assert [path.name for path in (tmp_path / "elsewhere" / "tiny").iterdir()] == [
        str(run.manifest.checkpoint)
    ]
    with pytest.raises(ConfigError, match=r"checkpoint.folder: .*elsewhere/tiny holds checkpoints already"):
        create_run(config.model_copy(update={"runs_dir": str(tmp_path / "other")}))
    monkeypatch.chdir("/")
    run = open_run(run.folder)
    learn(scene, run)
    run.close()
    assert curve(run.folder) == curve(whole[0].folder)
    victim = (
        tmp_path
        / "elsewhere"
        / "tiny"
        / str(run.manifest.checkpoint)
        / sorted(run.manifest.checkpoint_files)[0]
    )
    victim.unlink()
    with pytest.raises(ConfigError, match=f"{victim}: missing"):
        open_run(run.folder)


def test_buckets_hold_checkpoints_and_nothing_else(tmp_path):
    with pytest.raises(ConfigError, match=r"runs_dir: found 'gs://b/runs', expected a folder"):
        tiny_config(tmp_path, "runs_dir=gs://b/runs")
    with pytest.raises(ConfigError, match=r"checkpoint.folder: found 's3://b', expected a folder or gs://"):
        tiny_config(tmp_path, "checkpoint.folder=s3://b")
    with pytest.raises(ConfigError, match=r"needs the package gcsfs: pip install -r requirements-bucket.txt"):
        tiny_config(tmp_path, "checkpoint.folder=gs://bucket/coevo")
    manifest = Manifest(config_sha256="", checkpoints="gs://bucket/coevo/tiny")
    assert str(checkpoint_root(tmp_path, manifest)) == "gs://bucket/coevo/tiny"


def test_nobody_asks_a_run_that_does_not_listen():
    stop = StopRequest()
    assert not stop.asked()
    stop.end_if_asked()
    stop.end_if_alone_and_asked()


WORKER = """
import sys, time
import jax
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
from coevo_jax.run_folder.stopping import StopRequest, Stopped
with StopRequest() as stop:
    for step in range(1000):
        if step == 3:
            print("running", flush=True)
        time.sleep(0.02 * (1 + int(sys.argv[2])))  # the processes drift apart
        stop.end_if_alone_and_asked()
        try:
            stop.end_if_asked()
        except Stopped as stopped:
            assert stop.asked()
            print(step, stopped, flush=True)
            break
"""


@pytest.mark.slow
def test_of_several_processes_all_end_at_the_same_point(free_port):
    """One of two gets SIGTERM; JAX's service lets both end after the same number of steps."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(free_port), str(number)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "running\n"
        processes[1].send_signal(signal.SIGTERM)
        ends = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert ends[0] == ends[1] and ends[0].endswith("stopped by SIGTERM\n")
    assert [process.returncode for process in processes] == [0, 0]


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_damaged_states_are_never_gone_on_with(scene, whole, tmp_path):
    folder = shutil.copytree(whole[0].folder, tmp_path / "copy")
    manifest = read_manifest(folder)
    digests = manifest.checkpoint_digests[str(manifest.checkpoint)]
    assert set(digests) == set(manifest.checkpoint_files)
    biggest = max(manifest.checkpoint_files, key=lambda name: manifest.checkpoint_files[name])
    victim = folder / "checkpoints" / str(manifest.checkpoint) / biggest
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    run = open_run(folder)
    with pytest.raises(ConfigError, match=f"{victim}: changed since it was committed"):
        agents_of(scene, run)
    run.close()
