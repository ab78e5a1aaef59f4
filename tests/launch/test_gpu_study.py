"""The study on a real backbone: what its launcher would start, and what it refuses."""

import shutil

import pytest

from coevo_jax.machine.gpus import FRACTION
from tests.launch.launchers import LAUNCH, ROOT, call, commands, program

SCRIPT = "launch/gpu/study.sh"


def test_a_dry_run_names_every_config_of_the_study():
    done = call(SCRIPT, "--gpu", "2", "--seeds=3:5", "--dry-run", "model.path=a b", COEVO_VENV="/venv")
    assert done.returncode == 0, done.stderr
    setup, study = commands(done.stdout)
    assert setup[1:] == ["requirements-gpu.txt"]
    configs = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("configs/study/qwen3-0.6b-*.yaml"))
    assert len(configs) == 5
    assert "CUDA_VISIBLE_DEVICES=2" in study and f"XLA_PYTHON_CLIENT_MEM_FRACTION={FRACTION}" in study
    start = study.index("timeout")
    assert study[start:] == [
        *("timeout", "--foreground", "--signal=TERM", "6h", "/venv/bin/python", "-m", "launch.study"),
        *(*configs, "--seeds", "3:5", "--jobs", "1", "--all-cores", "model.path=a b"),
    ]


@pytest.mark.parametrize(
    ("ended", "words"), [("124", "stopped after 6 hours; the same command goes on"), ("1", "")]
)
def test_it_ends_as_the_study_does_and_says_when_its_time_was_up(ended, words, tmp_path):
    root, programs = tmp_path / "root", tmp_path / "programs"
    (root / "launch" / "gpu").mkdir(parents=True)
    for name in ("gpu/study.sh", "launcher.sh"):
        shutil.copy(LAUNCH / name, root / "launch" / name)
    program(root / "launch", "setup.sh", "true")
    program(programs, "nvidia-smi", "true")
    program(programs, "timeout", f"exit {ended}")
    done = call(SCRIPT, path=programs, root=root)
    assert done.returncode == int(ended), done.stderr
    assert done.stdout.strip() == words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hours", "0"], "--hours: found '0', expected a whole number from 1 on"),
        (["--seeds", "three"], "--seeds: found 'three', expected a number such as 3, or 3:5"),
        (["--gpus", "0"], "unknown option '--gpus' (did you mean '--gpu'?)"),
        (["configs/study/sql-eto.yaml"], "found 'configs/study/sql-eto.yaml', expected overrides"),
    ],
)
def test_what_it_cannot_do_is_refused(words, told):
    done = call(SCRIPT, *words, "--dry-run")
    assert done.returncode == 2 and told in done.stderr


def test_a_machine_without_a_gpu_is_told_so(tmp_path):
    program(tmp_path, "nvidia-smi", "exit 9")
    done = call(SCRIPT, path=tmp_path)
    assert done.returncode == 2 and "no NVIDIA GPU here" in done.stderr
