"""Runs that begin with another run's warm start: what they take over, what is refused, the same numbers."""

from pathlib import Path

import jax
import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.train import main
from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.phases import table
from coevo_jax.phases.agents import restore_agents
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.world import EXPERTS_FILE, build_world
from coevo_jax.run_folder import fork
from coevo_jax.run_folder.fork import can_fork, fork_run
from coevo_jax.run_folder.manifest import checkpoint_root, read_manifest
from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.run_folder.run import Run, create_run, open_run
from tests.measured import curve, results
from tests.tiny import Killed, tiny_config, write_config

pytestmark = pytest.mark.usefixtures("letters")

COEVO = ("warm_start.epochs=3", "model.num_layers=1")
ETO = (*COEVO, "recipe=eto")
LEARN = "{learn: {agent: student, sources: [{pairs: expert_over, of: student}]}}"
STUDENT = f"recipe=[{{explore: {{agent: student}}}}, {LEARN}]"
BEGIN = ["prepare", "warm_start", "round-00/evaluate_target"]
EXPLORATIONS = ["round-01/explore_target", "round-01/explore_failure"]


def explored(folder: Path, *overrides: str) -> Path:
    """A run that was killed when it would first learn from pairs."""
    run = create_run(tiny_config(folder, *overrides))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(table.PHASES, "learn", die)
        with pytest.raises(Killed):
            coevolve(run)
    run.close()
    return run.folder


@pytest.fixture(scope="module")
def source(letters, tmp_path_factory):
    return explored(tmp_path_factory.mktemp("source"), *COEVO)


def die(*_):
    raise Killed


def taken_over(run: Run) -> list[str]:
    return [record.name for record in run.manifest.done]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_alike_up_to_the_first_learning_it_takes_over_the_explorations_and_leaves_its_source_alone(
    source, tmp_path
):
    before = contents(source)
    config = tiny_config(tmp_path, *COEVO, "agents.target.epochs=1", "checkpoint.keep=1")
    run = fork_run(source, config)
    assert taken_over(run) == [*BEGIN, *EXPLORATIONS]
    assert run.checkpoints.steps() == [run.manifest.record("warm_start").records["checkpoint"]]
    assert {line["phase"] for line in read_metrics(run.folder / "metrics.jsonl")} <= set(taken_over(run))
    assert not (run.folder / "pairs").exists() and not (run.folder / "references").exists()
    run.close()
    assert contents(source) == before


@pytest.mark.parametrize(
    ("own", "taken"),
    [
        (ETO, BEGIN),
        ((*COEVO, "explore.samples=3"), BEGIN),
        ((*COEVO, "rounds=2"), [*BEGIN, *EXPLORATIONS]),
        ((*COEVO, STUDENT), BEGIN[:2]),
        ((*COEVO, "recipe=frozen-failure"), [*BEGIN, *EXPLORATIONS]),
    ],
    ids=["no failure agent", "more roll-outs", "more rounds", "a lead of another name", "a frozen one"],
)
def test_what_it_takes_over_depends_on_how_it_explores(source, own, taken, tmp_path):
    config = tiny_config(tmp_path, *own)
    assert can_fork(source, config)
    run = fork_run(source, config)
    assert taken_over(run) == taken
    world = build_world(config, run.folder)
    try:
        agents = restore_agents(run, world)
    finally:
        world.close()
    assert tuple(agents.states) == agents_of(config.recipe)
    first, *others = [jax.device_get(agent.params) for agent in agents.states.values()]
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    run.close()


def test_what_a_fork_would_change_is_refused(source, tmp_path):
    for overrides, words in (
        (["seed=5"], r"cannot be forked: seed is 0 there and 5 in this config; only what comes after"),
        (["warm_start.epochs=4"], r"warm_start\.epochs is 3 there and 4"),
        (["batch.rows=2"], r"batch\.rows is 4 there and 2"),
        (["explore.tasks=['40:50']"], r"explore\.tasks is \('40:60',\) there and \('40:50',\)"),
        (["rounds=0"], r"explore\.tasks is \('40:60',\) there and None"),
    ):
        config = tiny_config(tmp_path, *COEVO, *overrides)
        with pytest.raises(ConfigError, match=words):
            fork_run(source, config)
        assert not can_fork(source, config)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="holds a run of another config"):
        config = load_config(source / "config.yaml")
        fork_run(source, config.model_copy(update={"method": "other"}))
    create_run(tiny_config(tmp_path, *ETO)).close()
    unfinished, other = tmp_path / "runs" / "tiny", tiny_config(tmp_path, *ETO, "name=other")
    assert not can_fork(unfinished, other)
    with pytest.raises(ConfigError, match="its warm start is not finished"):
        fork_run(unfinished, other)


def test_a_damaged_source_is_named_and_nothing_is_left(source, tmp_path):
    run = fork_run(source, tiny_config(tmp_path, *ETO))
    run.close()
    manifest = read_manifest(run.folder)
    stored = Path(checkpoint_root(run.folder, manifest)) / str(manifest.checkpoint)
    files = [path for path in stored.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    for path, words in ((largest, "the checkpoint is incomplete"), (run.folder / EXPERTS_FILE, "changed")):
        content = path.read_bytes()
        path.unlink()  # a link: the source keeps its own
        path.write_bytes(content[:-1])
        with pytest.raises(ConfigError, match=rf"{path.name}.*{words}"):
            fork_run(run.folder, tiny_config(tmp_path, *ETO, "name=second"))
        assert not (tmp_path / "runs" / "second").exists()
        path.write_bytes(content)


def test_what_a_killed_fork_left_is_prepared_again_without_touching_its_source(source, tmp_path, monkeypatch):
    config = tiny_config(tmp_path, *ETO)
    with monkeypatch.context() as patch:
        patch.setattr(fork, "write_manifest", die)
        with pytest.raises(Killed):
            fork_run(source, config)
    inodes = {path: path.stat().st_ino for path in (source / "tokenizer").iterdir()}
    linked = tmp_path / "runs" / "tiny" / "tokenizer"
    assert {path.name: path.stat().st_ino for path in linked.iterdir()} == {
        path.name: inode for path, inode in inodes.items()
    }
    run = open_run(linked.parent)
    assert run.manifest.done == ()
    prepare(run)
    run.close()
    for path, inode in inodes.items():
        assert path.stat().st_ino == inode != (linked / path.name).stat().st_ino


def test_from_the_command_line_it_starts_once_and_then_resumes(source, tmp_path, monkeypatch, capsys):
    command = ["--auto-resume", "--fork", str(source), str(write_config(tmp_path)), *COEVO]
    command += [f"runs_dir={tmp_path / 'runs'}", "agents.target.epochs=1"]
    monkeypatch.setitem(table.PHASES, "learn", die)
    for _ in range(2):
        with pytest.raises(Killed):
            main(command)
    done = [record.name for record in read_manifest(tmp_path / "runs" / "tiny").done]
    assert done == [record.name for record in read_manifest(source).done]
    said = capsys.readouterr().out
    assert said.count("begun with ") == 1 and "round-01/explore_failure" in " ".join(said.split())
    with pytest.raises(ConfigError, match="--fork starts a run: give a config file"):
        main(["--fork", str(source), "--resume", str(tmp_path / "runs" / "tiny")])


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "own"), [(COEVO, ETO), (ETO, COEVO)], ids=["to ETO", "from ETO"])
def test_a_method_ends_in_the_numbers_of_its_own_warm_start(begun, own, tmp_path):
    begin = explored(tmp_path / "begun", *begun)
    runs = [create_run(tiny_config(tmp_path / "own", *own))]
    runs.append(fork_run(begin, tiny_config(tmp_path / "forked", *own)))
    for run in runs:
        coevolve(run)
        run.close()
    whole, forked = (run.folder for run in runs)
    assert results(whole) == results(forked)
    assert curve(whole) == curve(forked)
