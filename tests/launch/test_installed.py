"""The package as a user installs it: a wheel, in an environment of its own, away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.tiny import write_config

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("coevo_jax", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def call(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that knows nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def coevo(tmp_path_factory) -> Path:
    """The program in a new environment that sees this one's packages; nothing is downloaded."""
    source, home = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("venv")
    for name in [*SOURCES, *(path.name for path in ROOT.glob("requirements*.txt"))]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    built = call(
        *pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", home, source, cwd=source
    )
    assert built.returncode == 0, built.stderr
    venv.create(home / "venv", with_pip=False)
    python = home / "venv" / "bin" / "python"
    wheel = next(home.glob("*.whl"))
    done = call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    own = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    (Path(own.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(source)
    return python.with_name("coevo")


def test_help_names_the_commands(coevo, tmp_path):
    said = call(coevo, "--help", cwd=tmp_path)
    assert said.returncode == 0 and "\n  train " in said.stdout, said.stderr
    said = call(coevo, "data", "--help", cwd=tmp_path)
    assert "usage: coevo data" in said.stdout and "python -m launch" not in said.stdout


def test_a_shipped_config_is_found_by_its_name_with_what_it_extends(coevo, tmp_path):
    said = call(coevo, "train", "qwen3-4b-webshop", "rounds=many", cwd=tmp_path)
    assert said.returncode == 2 and 'rounds: found "many"' in said.stderr
    said = call(coevo, "train", "quickstrat", cwd=tmp_path)
    assert said.returncode == 2 and "did you mean 'quickstart'?" in said.stderr
    assert not list(tmp_path.iterdir())


def test_the_metadata_has_the_pins_of_the_requirements(coevo, tmp_path):
    code = (
        "import json\nfrom importlib.metadata import distribution\nhere = distribution('coevo_jax')\n"
        "print(json.dumps([here.requires, here.metadata.get_all('Provides-Extra'), here.version]))"
    )
    requires, extras, _ = json.loads(call(coevo.with_name("python"), "-c", code, cwd=tmp_path).stdout)
    assert sorted(extras) == ["bucket", "dev", "gpu", "textarena", "tpu", "wandb"]
    for extra in ("", *extras):
        lines = (ROOT / f"requirements{'-' if extra else ''}{extra}.txt").read_text().splitlines()
        pinned = {line for line in lines if "==" in line and not line.startswith("#")}
        mine = f'; extra == "{extra}"'
        found = {one.removesuffix(mine) for one in requires if one.endswith(mine if extra else one)}
        assert pinned == {one for one in found if "extra ==" not in one}


def test_a_users_environment_is_trained_on_from_any_folder(coevo, tmp_path):
    shutil.copy(ROOT / "tests" / "letters_env.py", tmp_path / "my_letters.py")
    config = write_config(tmp_path)
    words = ("env.name=my_letters:make_letters", "rounds=1", "model.num_layers=1")
    done = call(coevo, "train", config.name, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert json.loads((run / "results.json").read_text())["rounds"] == 1 and (run / "report.html").is_file()
    again = call(coevo, "train", config.name, *words, cwd=tmp_path)
    assert again.returncode == 2 and "continue it with: coevo train --resume runs/tiny" in again.stderr
    assert call(coevo, "audit", run, "--scored", "1", cwd=tmp_path).returncode == 0
