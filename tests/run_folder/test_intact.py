"""What is read of a run besides its committed files, and what a run cannot have written."""

import json
import os
import shutil
import socket
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.phases.fault_watch import AgentBroken, require_numbers
from coevo_jax.phases.prepare import prepare
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.folder import create_folder
from coevo_jax.run_folder.manifest import PhaseRecord, read_manifest, write_manifest
from coevo_jax.run_folder.run import create_run, open_run
from coevo_jax.sweep import plan_sweep, run_sweep
from tests.data.test_parquet import trajectory
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")


@pytest.fixture(scope="module")
def prepared(letters, tmp_path_factory):
    run = create_run(tiny_config(tmp_path_factory.mktemp("prepared")))
    prepare(run)
    run.close()
    return run.folder


@pytest.fixture
def run(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "tiny")


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json", "other.txt"])
def test_a_stray_file_beside_the_tokenizers_is_named(run, name):
    (run / "tokenizer" / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"tokenizer/{name}: never committed, but tokenizer/ is read as a"):
        open_run(run)


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"python": "2.7"}', "changed since it was committed"), ("{", "changed since"), (None, "missing, but")],
)
def test_where_a_run_was_made_is_committed(run, content, words):
    path = run / "environment.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"{path}: {words}"):
        open_run(run)


def test_an_earlier_versions_record_of_where_it_was_made_is_named_where_it_is_none(run):
    """Its manifest has no digest of it."""
    write_manifest(run, replace(read_manifest(run), environment_sha256=None))
    opened = open_run(run)
    (run / "environment.json").write_text("{")
    with pytest.raises(ConfigError, match=r"environment\.json: not the record of where a run was made"):
        opened.environment()
    opened.close()


def test_phases_are_those_of_the_config_in_their_order(run):
    manifest = read_manifest(run)
    for phases, words in (
        ([*manifest.done, PhaseRecord(name="round-09/learn_nobody")], "phase 2: found round-09/learn_nobody"),
        ([PhaseRecord(name="warm_start"), *manifest.done], "phase 1: found warm_start, expected prepare"),
    ):
        write_manifest(run, replace(manifest, done=tuple(phases)))
        with pytest.raises(ConfigError, match=rf"manifest\.json: {words}"):
            open_run(run)


def test_a_folder_is_given_free_by_a_run_that_cannot_be_opened(run, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("coevo_jax.run_folder.run.Checkpointer", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_run(run)
    open_run(run).close()


def test_what_a_killed_start_left_beside_the_run_is_removed(tmp_path):
    config = tiny_config(tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    runs = tmp_path / "runs"
    left = runs / f".tiny.0123456789abcdef.{socket.gethostname()}.{gone.pid}.tmp"
    under_way = runs / f".tiny.0123456789abcdef.{socket.gethostname()}.{os.getpid()}.tmp"
    for path in (left, under_way):
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("")
    create_folder(config)
    assert not left.exists() and under_way.exists()


def test_a_token_of_no_vocabulary_is_named(prepared, tmp_path):
    config = tiny_config(tmp_path)
    phase = next(phase for phase in schedule(config) if phase.kind == "explore")
    path = tmp_path / "trajectories" / "round-01" / "target-00000-of-00001.parquet"
    write_trajectories(path, [trajectory(), trajectory(tokens=np.array([1, 10**6, 2], np.int32))])
    manifest = read_manifest(prepared)
    record = PhaseRecord(name=phase.name, files={str(path.relative_to(tmp_path)): ""})
    manifest = replace(manifest, done=(*manifest.done, record))
    with pytest.raises(ConfigError, match=r"target-.*: row 1: tokens: found 1000000, expected ids below"):
        read_collection(tmp_path, manifest, phase)
    # A checkpoint's embedding may have more rows than its tokenizer has tokens, all of which can be sampled.
    assert len(read_collection(tmp_path, manifest, phase, rows=10**6 + 1)) == 2
    with pytest.raises(ConfigError, match=r"found 1000000, expected ids below 1000000"):
        read_collection(tmp_path, manifest, phase, rows=10**6)


def test_an_agent_whose_probabilities_are_no_numbers_is_named():
    require_numbers("explore", [trajectory()])
    broken = trajectory(logps=np.array([0, np.nan, -1], np.float32))
    with pytest.raises(AgentBroken, match=r"explore: the target agent gives token 1 .* db/1 .* nan, exp"):
        require_numbers("explore", [trajectory(), broken])


def test_the_record_says_what_it_did_before(run):
    """Every field of a manifest that a run wrote passes, and its digest is of the file as it lies there."""
    content = json.loads((run / "manifest.json").read_text())
    assert content["environment_sha256"] and read_manifest(run).record("prepare")


def test_of_two_sweeps_that_share_a_cell_the_second_is_told_and_the_first_goes_on(tmp_path):
    config = tiny_config(tmp_path, "recipe=eto")
    cells = plan_sweep(config, agent=None, losses=["sigmoid", "ipo"], betas=[], seeds=[0])
    first = create_run(cells[0].config)
    before = read_manifest(first.folder)
    with pytest.raises(ConfigError, match=rf"{first.folder}: another process is working on this run"):
        run_sweep(cells)
    assert not cells[1].folder.exists()
    first.commit(first.begin("prepare"), files=[], finished=True)
    first.close()
    assert read_manifest(first.folder).done and not before.done
