"""A study on the letters environment, from its command to its page: ended in the middle, it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coevo_jax.commands.cli import run_command
from coevo_jax.commands.study import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.study.plan import plan_study
from coevo_jax.study.pool import WorkerLost, run_cells
from coevo_jax.study.rows import read_rows
from tests.study.small import configs, write_configs

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("eto", "sft-more")


def arguments(folder: Path, *words: str) -> list[str]:
    paths = [str(folder / f"small-{method}.yaml") for method in METHODS]
    own = ["--seeds", "2", "--runs-dir", str(folder / "runs"), "--rows", str(folder / "rows.jsonl")]
    return [*paths, *own, *words]


@pytest.fixture(autouse=True)
def workers_of_one_device(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].split(" --xla_force")[0])


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A study in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, "-m", "launch.study", *arguments(folder, *words)]
    return subprocess.Popen(command, cwd=ROOT, **streams)


@pytest.fixture
def finish(capsys):
    """Call the command in this process, whose workers are others all the same: its exit code and words."""

    def call(*words: str) -> tuple[int, str]:
        code = 0
        try:
            run_command(main, words)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def wait_for(ready, process: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if ready() or process.poll() is not None:
            return
        time.sleep(0.1)
    pytest.fail("it did not come to that")


def row_of(path: Path, method: str, seed: int):
    return next((row for row in read_rows(path) if (row["method"], row["seed"]) == (method, seed)), None)


def phases(folder: Path) -> list[str]:
    try:
        return [record.name for record in read_manifest(folder).done]
    except ConfigError:
        return []


@pytest.mark.slow
def test_a_study_that_is_ended_and_killed_goes_on_to_its_page(tmp_path, finish):
    write_configs(tmp_path, *METHODS)
    runs, path = tmp_path / "runs", tmp_path / "rows.jsonl"
    # Ended by a signal while warm starts are made: both runs under way have committed what they had.
    process = begin(tmp_path)
    wait_for(lambda: "prepare" in phases(runs / "small-eto-0"), process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "the same command goes on" in said
    begun = phases(runs / "small-eto-0")
    assert begun and not (runs / "small-sft-more-0").exists()  # which waited for the warm start
    # Killed, with its workers left behind: they end by themselves, and free their runs.
    process = begin(tmp_path, "--jobs", "1")
    wait_for(lambda: row_of(path, "eto", 0), process)
    process.kill()
    process.communicate()
    first = row_of(path, "eto", 0)
    assert first is not None and first["how"] == "resumed"
    assert phases(runs / "small-eto-0")[: len(begun)] == begun
    time.sleep(5)
    # Whole; by one worker from here on, whose programs serve all runs.
    small = arguments(tmp_path, "--jobs", "1")
    code, said = finish(*small)
    assert code == 0, said
    rows = {(row["method"], row["seed"]): row for row in read_rows(path)}
    assert set(rows) == {(method, seed) for method in METHODS for seed in (0, 1)}
    assert rows["eto", 0] == first and "small-eto-0 begins" not in said
    for (method, seed), row in rows.items():
        assert row["status"] == "finished" and row["audit"]["broken"] == 0 == row["audit"]["not_checkable"], (
            row
        )
        results = json.loads((runs / f"small-{method}-{seed}" / "results.json").read_text())
        last = row["evaluations"][-1]
        assert last["mean_reward"] == pytest.approx(results["evaluations"][-1]["mean_reward"], abs=1e-6)
        assert sum(last["rewards"]) / len(last["rewards"]) == pytest.approx(last["mean_reward"], abs=1e-3)
        assert row["cost"]["rollouts"] == 40 and row["cost"]["steps"] > 0
    for seed in (0, 1):
        forked = json.loads((runs / f"small-sft-more-{seed}" / "environment.json").read_text())["forked"]
        assert forked["from"].endswith(f"small-eto-{seed}") and "round-01/explore_target" in forked["phases"]
    # Nothing is left to do; and the test tasks are played once.
    assert finish(*small) == (0, f"{path}: 4 finished\n")
    code, said = finish(*small, "--split", "test")
    tested = read_rows(path)
    assert code == 0 and said.count("test reward target") == 4, said
    assert all(len(row["test"]["agents"]["target"]["rewards"]) == 20 for row in tested)
    code, said = finish(*small, "--split", "test")
    assert code == 0 and said.count("has played the test tasks") == 4 and read_rows(path) == tested
    code, said = finish(*small, "--sampled")
    assert code == 0 and said.count("sampled reward target") == 4, said
    sampled = read_rows(path)
    assert [row["test"] for row in sampled] == [row["test"] for row in tested]
    assert any(row["sampled"]["agents"] != row["test"]["agents"] for row in sampled)
    code, said = finish(*small, "agents.target.epochs=2", "--runs-dir", str(tmp_path / "others"))
    assert code == 2 and "test tasks are played once for a final config" in said
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- table:small-rewards -->\n<!-- /table -->\n<!-- table:small-test -->\n<!-- /table -->\n"
    )
    assert finish("--table", str(page), str(path))[0] == 0
    assert "| eto |" in page.read_text() and "test reward, minus sft-more" in page.read_text()


@pytest.mark.slow
def test_a_run_that_fails_is_a_row_and_its_study_goes_on(tmp_path, finish):
    write_configs(tmp_path, *METHODS, eto="agents: {target: {learning_rate: [1e38], epochs: 3}}\n")
    words = arguments(tmp_path, "--seeds", "1", "--jobs", "1")
    code, said = finish(*words)
    rows = {row["method"]: row for row in read_rows(tmp_path / "rows.jsonl")}
    assert rows["eto"]["status"] == "diverged" and "round-01/learn_target" in rows["eto"]["why"], said
    assert rows["eto"]["evaluations"][0]["round"] == 0 and rows["sft-more"]["status"] == "finished"
    assert code == 0 and "1 diverged, 1 finished" in said
    assert finish(*words)[1] == f"{tmp_path / 'rows.jsonl'}: 1 diverged, 1 finished\n"


@pytest.mark.slow
def test_a_worker_that_is_gone_ends_the_study(tmp_path, monkeypatch):
    cells = plan_study(configs(tmp_path, "eto"), (0,), tmp_path / "runs")
    monkeypatch.setattr("coevo_jax.study.pool.serve", leave)
    with pytest.raises(WorkerLost, match="exit code 3"):
        run_cells(
            cells,
            {cells[0].key: "waiting"},
            jobs=1,
            pinned=False,
            logs=tmp_path / "logs",
            write=lambda cell, row: pytest.fail("it has no row"),
            say=lambda words: None,
        )


def leave(connection, core, log):
    """A worker that takes a cell and ends without a word; only one that is not pinned ends so."""
    connection.recv()
    os._exit(3 if core is None else 4)
