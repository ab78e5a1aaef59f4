"""The train command as a user meets it: clear errors, exit codes, a full disk, and kill -9."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coevo_jax.commands.actions.train import open_or_create
from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main, parse
from coevo_jax.config.strict import ConfigError
from coevo_jax.hosts.processes import Processes
from coevo_jax.run_folder import folder as folder_module
from coevo_jax.run_folder.manifest import read_manifest
from tests.measured import curve, results
from tests.one_process import ASK, kept_process
from tests.tiny import write_config

ROOT = Path(__file__).parent.parent.parent
TRAIN = [sys.executable, "-m", "tests.letters_train"]
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


BAD_INPUT = {
    "missing file": (["nowhere.yaml"], r"nowhere\.yaml"),
    "unknown key": ([QUICKSTART, "agents.target.bete=[0.1]"], r"target\.bete.*did you mean 'beta'"),
    "wrong type": ([QUICKSTART, "rounds=many"], r"rounds: found \"many\""),
    "impossible": ([QUICKSTART, "model.num_kv_heads=3"], r"num_kv_heads"),
    "unknown environment": (
        [QUICKSTART, "env.name=intercode_sqll"],
        r"env\.name.*did you mean 'intercode_sql'",
    ),
    "unknown environment option": (
        [QUICKSTART, "env.options.sead=1"],
        r"env\.options\.sead.*did you mean 'seed'",
    ),
    "unknown loss": ([QUICKSTART, "agents.target.loss=sigmoyd"], r"target\.loss.*did you mean 'sigmoid'"),
    "too many devices": ([QUICKSTART, "mesh.data=64", "batch.rows=64"], r"needs 64 devices, found 8"),
    "nothing given": ([], r"give either a config file or --resume"),
    "two ways to resume": (["--auto-resume", "--resume", "runs/x"], r"--auto-resume .* give a config file"),
    "a profile of no step": (
        [QUICKSTART, "--profile", "10:10"],
        r"--profile: found '10:10', expected FIRST:",
    ),
    "a profile of one number": ([QUICKSTART, "--profile", "10"], r"--profile: found '10', .* such as 10:13"),
    "a profile before the first step": ([QUICKSTART, "--profile", "0:2"], r"--profile: found '0:2'"),
    "resume of nothing": (["--resume", "nowhere"], r"nowhere: the folder does not exist"),
}


@pytest.mark.parametrize("case", sorted(BAD_INPUT))
def test_bad_input_is_one_clear_error_and_nothing_is_written(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = BAD_INPUT[case]
    with pytest.raises(ConfigError, match=words):
        main(arguments)
    assert not list(tmp_path.iterdir())


def test_a_user_error_exits_with_2_and_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "nowhere.yaml"])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: nowhere.yaml") and "Traceback" not in error


def test_auto_resume_starts_a_run_and_goes_on_with_it(letters, tmp_path):
    arguments = ["--auto-resume", str(write_config(tmp_path)), f"runs_dir={tmp_path / 'runs'}"]
    open_or_create(parse(arguments), Processes()).close()
    before = tree(tmp_path / "runs")
    assert "tiny/manifest.json" in before
    open_or_create(parse(arguments), Processes()).close()
    assert tree(tmp_path / "runs") == before
    with pytest.raises(
        ConfigError, match=r"holds a run of another config \(seed: found 0, this config has 1\)"
    ):
        open_or_create(parse([*arguments, "seed=1"]), Processes())
    with pytest.raises(ConfigError, match="this run exists; continue it with"):
        open_or_create(parse(arguments[1:]), Processes())


def test_a_run_that_was_moved_is_the_same_run_to_auto_resume(letters, tmp_path):
    config = str(write_config(tmp_path))
    open_or_create(parse(["--auto-resume", config, f"runs_dir={tmp_path / 'runs'}"]), Processes()).close()
    (tmp_path / "runs").rename(tmp_path / "mounted")
    before = tree(tmp_path / "mounted")
    there = ["--auto-resume", config, f"runs_dir={tmp_path / 'mounted'}"]
    run = open_or_create(parse(there), Processes())
    run.close()
    assert run.folder == tmp_path / "mounted" / "tiny" and tree(tmp_path / "mounted") == before
    with pytest.raises(ConfigError, match=r"another config \(seed: found 0, this config has 1\)"):
        open_or_create(parse([*there, "seed=1"]), Processes())


def test_of_two_starts_at_once_one_runs_and_the_other_says_so(letters, tmp_path, monkeypatch):
    """The other start makes its folder after this one has looked for it, and before it makes its own."""
    arguments = ["--auto-resume", str(write_config(tmp_path)), f"runs_dir={tmp_path / 'runs'}"]
    describe, others = folder_module.describe_environment, []

    def be_late():
        monkeypatch.setattr(folder_module, "describe_environment", describe)
        others.append(open_or_create(parse(arguments), Processes()))
        return describe()

    monkeypatch.setattr(folder_module, "describe_environment", be_late)
    with pytest.raises(ConfigError, match="tiny: another process has just begun this run"):
        open_or_create(parse(arguments), Processes())
    with pytest.raises(ConfigError, match="tiny: another process is working on this run"):
        open_or_create(parse(arguments), Processes())
    others[0].close()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny"], "what was half made is gone"
    open_or_create(parse(arguments), Processes()).close()


def test_help_lists_every_option_with_its_doc(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for words in ("agents.NAME.beta", "Root of all randomness", "env.options of scienceworld"):
        assert words in text


DATABASE = {"database": "zoo", "tables": ["CREATE TABLE pet (name TEXT)"], "rows": [["pet", [["Rex"]]]]}
TASK = {"id": "zoo/1", "split": "train", "db": "zoo", "question": "Who is there?", "family": "list"}
BROKEN_LINES = {
    "no JSON": ('{"id": "zoo/2",', "expected a JSON object"),
    "a missing field": (json.dumps(TASK | {"id": "zoo/2"}), "gold: missing"),
    "an unknown database": (
        json.dumps(TASK | {"id": "zoo/2", "db": "zo", "gold": "x"}),
        "did you mean 'zoo'",
    ),
    "a query that fails": (
        json.dumps(TASK | {"id": "zoo/2", "gold": "SELECT age FROM pet"}),
        "no such column",
    ),
}


@pytest.mark.parametrize("case", sorted(BROKEN_LINES))
def test_a_broken_task_file_is_named_with_its_line(case, tmp_path):
    line, words = BROKEN_LINES[case]
    path = tmp_path / "tasks.jsonl"
    good = [json.dumps(DATABASE), json.dumps(TASK | {"gold": "SELECT name FROM pet"})]
    path.write_text("".join(text + "\n" for text in [*good, line]))
    config = tmp_path / "run.yaml"
    config.write_text(f"rounds: 0\nenv: {{name: intercode_sql, options: {{tasks_path: {path}}}}}\n")
    with pytest.raises(ConfigError, match=rf"tasks\.jsonl:3: .*{words}"):
        main([str(config), f"runs_dir={tmp_path / 'runs'}"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_the_run_goes_on(letters, tmp_path, monkeypatch, capsys):
    import coevo_jax.run_folder.manifest as manifest

    config = write_config(tmp_path)
    real, calls = manifest.write_parts, 0

    def full_after_some(path, parts):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, parts)

    monkeypatch.setattr(manifest, "write_parts", full_after_some)
    monkeypatch.setattr(sys, "argv", ["train", str(config), f"runs_dir={tmp_path / 'runs'}", "rounds=0"])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    main(["--resume", str(tmp_path / "runs" / "tiny")])
    results = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())
    assert results["evaluations"][0]["n"] == 20


def test_no_room_for_a_checkpoint_is_found_before_it_is_begun(letters, tmp_path, monkeypatch, capsys):
    import coevo_jax.run_folder.checkpoint as checkpoint

    usage = type("Usage", (), {"free": 100_000})()
    monkeypatch.setattr(sys, "argv", ["train", str(write_config(tmp_path)), f"runs_dir={tmp_path / 'runs'}"])
    with monkeypatch.context() as full:
        full.setattr(checkpoint.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(SystemExit) as stop:
            run_command(main)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "checkpoints/0" in error and "No space left on device" in error and "Traceback" not in error
    folder = tmp_path / "runs" / "tiny"
    assert not (folder / "checkpoints" / "0").exists()
    assert json.loads((folder / "manifest.json").read_text())["checkpoint"] is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, float]:
    """A run of a process that nobody stopped, and the seconds it took."""
    folder = tmp_path_factory.mktemp("whole")
    command = [*TRAIN, str(write_config(folder)), f"runs_dir={folder / 'runs'}"]
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "runs" / "tiny", time.monotonic() - start


@pytest.mark.slow
def test_sigterm_ends_a_run_and_the_same_command_goes_on_with_it(whole, tmp_path):
    """In the warm start, in an exploration, while learning: each time the launcher's command comes back.

    The first time it ends a process of the run's own; then the process is kept, with its programs, and what
    ends is the command. Of `kill -9` below, no process keeps anything.
    """
    runs, output = tmp_path / "runs", tmp_path / "output.txt"
    words = ["--auto-resume", str(write_config(tmp_path)), f"runs_dir={runs}"]

    def end(phase: str, pattern: str, process: subprocess.Popen[bytes], number: int) -> None:
        while not list((runs / "tiny").glob(pattern)):
            assert process.poll() is None, output.read_text()
            time.sleep(0.05)
        os.kill(number, signal.SIGTERM)
        assert process.wait() == 143, output.read_text()
        last = output.read_text().splitlines()[-1]
        assert last == "stopped by SIGTERM; what is done is committed: continue with --resume"
        manifest = read_manifest(runs / "tiny")
        assert manifest.running is not None and manifest.running.name == phase
        assert manifest.running.position > 0

    with output.open("wb") as sink:
        process = subprocess.Popen([*TRAIN, *words], cwd=ROOT, stdout=sink, stderr=sink)
    end("warm_start", "checkpoints/0*", process, process.pid)  # its first commit, not yet final
    with kept_process(os.environ) as kept:
        ask = {"args": [*ASK, TRAIN[-1], *words], "cwd": ROOT, **kept.call(os.environ)}
        for phase, pattern in {
            "round-01/explore_target": "trajectories/round-01/target-00000-*",
            "round-01/learn_failure": "references/round-01-failure.npy",
        }.items():
            with output.open("wb") as sink:
                process = subprocess.Popen(**ask, stdout=sink, stderr=sink)
            end(phase, pattern, process, kept.process)
        subprocess.run(**ask, check=True, capture_output=True)
    assert results(runs / "tiny") == results(whole[0])
    assert curve(runs / "tiny") == curve(whole[0])


@pytest.mark.slow
def test_kill_9_at_any_moment_ends_in_the_same_numbers(whole, tmp_path):
    """A real process, killed while it starts and then at moments of its work; against one never stopped."""
    config = write_config(tmp_path)
    folder = tmp_path / "runs" / "killed"
    arguments = [str(config), f"runs_dir={tmp_path / 'runs'}", "name=killed"]
    output = tmp_path / "output.txt"

    def committed() -> bytes:
        path = folder / "manifest.json"
        return path.read_bytes() if path.exists() else b""

    # Shares of the time that a whole run takes: before it has begun, and past the first commits of a process.
    for commits, share in ((0, 0.15), (1, 0.01), (3, 0.02), (6, 0.03)):
        with output.open("wb") as sink:
            process = subprocess.Popen([*TRAIN, *arguments], cwd=ROOT, stdout=sink, stderr=sink)
        before = committed()
        while commits:
            assert process.poll() is None, output.read_text()
            commits, before = commits - (before != (now := committed())), now
            time.sleep(0.002)
        time.sleep(share * whole[1])
        process.kill()
        assert process.wait() == -signal.SIGKILL, output.read_text()
        if committed():
            arguments = ["--resume", str(folder)]
    assert arguments[0] == "--resume"
    assert "round-01/evaluate_failure" not in {record.name for record in read_manifest(folder).done}
    subprocess.run([*TRAIN, *arguments], cwd=ROOT, check=True, capture_output=True)
    assert results(folder) == results(whole[0])
