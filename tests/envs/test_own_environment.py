"""The environment of one's own: file, conformance and training are as docs/environments.md says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MOST_LINES = 60


@pytest.fixture(scope="module")
def section() -> str:
    """The how-to."""
    _, found, rest = (
        (ROOT / "docs/environments.md").read_text().partition("\n## An environment of your own\n")
    )
    assert found, "docs/environments.md has no section 'An environment of your own'"
    return rest.split("\n## ")[0]


@pytest.fixture
def folder(section, tmp_path) -> Path:
    """A user's folder with the two files of the page."""
    for name, language in (("guess_env.py", "python"), ("guess.yaml", "yaml")):
        block = re.search(rf"`{re.escape(name)}`:\n\n```{language}\n(.*?)```", section, re.DOTALL)
        assert block, f"docs/environments.md: no {language} block after `{name}`:"
        (tmp_path / name).write_text(block[1])
    return tmp_path


def run(section: str, folder: Path, module: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the page's command line of a module, in the user's folder."""
    [line] = re.findall(rf"^\.venv/bin/python -m {re.escape(module)} (.*)$", section, re.MULTILINE)
    command = [sys.executable, "-m", module, *line.split(), *more]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_is_short_and_passes_every_check(section, folder):
    assert len((folder / "guess_env.py").read_text().splitlines()) < MOST_LINES
    done = run(section, folder, "launch.conformance", "--timeout", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^27 passed, 0 failed, 2 skipped", done.stdout, re.MULTILINE)
    assert re.search(r"^27 passed, 0 failed, 2 skipped", section, re.MULTILINE)


def test_the_careless_version_fails_as_it_says(section, folder):
    careful = "1 - min(abs(guess - self._number), 10) / 10"
    path = folder / "guess_env.py"
    assert careful in path.read_text()
    path.write_text(path.read_text().replace(careful, "max(0.0, 1 - abs(guess - self._number) / 10)"))
    done = run(section, folder, "launch.conformance", "--check", "malformed_actions", "rewards")
    assert done.returncode == 1
    assert re.search(r"^1 passed, 1 failed", done.stdout, re.MULTILINE)
    assert "OverflowError" in done.stdout


@pytest.mark.slow
def test_an_agent_is_trained_in_it(section, folder):
    smaller = (
        "warm_start.epochs=1",
        "explore.tasks=['100:120']",
        "evaluate.tasks=':20'",
        "model.num_layers=1",
    )
    done = run(section, folder, "launch.train", *smaller)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "runs" / "guess" / "results.json").read_text())
    assert [one["n"] for one in results["evaluations"]] == [20] * 4
    assert (folder / "runs" / "guess" / "report.html").exists()
