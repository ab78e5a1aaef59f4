"""The commands of the README and docs/ run as printed, page by page, in a copy of the project that is small.

The configs are the shipped ones with a quickstart of seconds in the place of configs/quickstart.yaml, which
the others extend: the toy environment, a tiny model. What is left out is named by `unrun`, and is parsed,
resolved or dry-run by `tests.docs.test_commands`.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import FOREIGN, PAGES, ROOT, Command, blocks, commands, examples
from tests.tiny import CONFIG

TOY = '"tests.letters_env:make_letters"'
UNRUN_PROGRAMS = {
    "benchmarks.": "measures for minutes, some beside peers that are installed for it",
    "launch.compile": "compiles for chips that are not here",
    "launch.scaling": "compiles for hours for chips that are not here",
    "launch.serve": "answers until a signal ends it; tests/openai_server serves",
    "launch.study": "hours of many runs; tests/study has one of seconds",
    "launch/gpu/": "needs a cluster; tests/launch calls it with --dry-run",
    "launch/tpu/": "needs a cloud; tests/launch calls it with --dry-run",
    "launch/host.sh": "tests/launch runs it",
    "launch/setup.sh": "installs from the package index",
    "launch/test.sh": "is what runs these tests",
    "pytest": "is what runs these tests",
    "tests.real.": "installs from the package index",
}
UNRUN_WORDS = {
    "data/official": "data that are not shipped",
    "hub:": "the network",
    "scienceworld": "minutes of a simulator",
    "textarena": "a package that is not installed; tests/real plays its games",
    "textworld": "minutes of a game compiler",
    "ws://": "a server of another project; tests/envs/test_openenv.py checks one of its own",
    "--losses": "a sweep of many runs; tests/commands/test_sweep.py has one",
}


def unrun(command: Command) -> str | None:
    """Why a command is not run here; None where it is."""
    reasons = [why for program, why in UNRUN_PROGRAMS.items() if command.program.startswith(program)]
    reasons += [why for part, why in UNRUN_WORDS.items() if any(part in word for word in command.arguments)]
    if any(
        one.startswith("configs/") and not one.startswith("configs/quickstart") for one in command.configs
    ):
        reasons.append("a run of hours, or one that needs an accelerator")
    if command.program in FOREIGN:
        reasons.append("another project's")
    if not command.arguments and not command.block:
        reasons.append("a name, not a call")
    return reasons[0] if reasons else None


def run(folder: Path, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run words as a shell in the folder does, and require that they succeed."""
    expanded = (
        [str(path) for word in words for path in sorted(folder.glob(word)) or [word]]
        if any("*" in word for word in words)
        else list(words)
    )
    if expanded[0] == "python":
        expanded[0] = ".venv/bin/python"
    environment = {key: value for key, value in os.environ.items() if key != "COEVO_VENV"}
    environment |= {"PYTHONPATH": str(folder), "COEVO_CACHE": str(folder / "cache")}
    done = subprocess.run(expanded, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done


def make_checkout(folder: Path) -> None:
    """The project with a small quickstart, and an environment that is installed already."""
    shutil.copytree(ROOT / "launch", folder / "launch")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("coevo_jax", "tests", "benchmarks", *(path.name for path in ROOT.glob("requirements*.txt"))):
        (folder / name).symlink_to(ROOT / name)
    small = CONFIG.replace("name: tiny", "name: quickstart").replace("{name: letters}", f"{{name: {TOY}}}")
    (folder / "configs/quickstart.yaml").write_text(small)
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    installed = (ROOT / "requirements.txt").read_bytes() * 2
    (folder / ".venv/.installed-requirements.txt").write_text(hashlib.sha256(installed).hexdigest() + "\n")


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> Path:
    """A small checkout in which what a page takes for granted is there: finished runs, exported experts."""
    folder = tmp_path_factory.mktemp("checkout")
    make_checkout(folder)
    run(folder, ("./launch/quickstart.sh",))
    more = ("runs_dir=runs/seeds", "name=sft-more")
    fork = ("launch.train", "--fork", "runs/quickstart", "configs/quickstart-sft-more.yaml", *more)
    run(folder, ("python", "-m", *fork))
    shutil.copytree(folder / "runs/quickstart", folder / "runs/seeds/quickstart")
    shutil.copytree(folder / "runs/quickstart", folder / "runs/a")
    run(folder, ("python", "-m", "launch.train", "configs/quickstart-nat.yaml", "rounds=1"))
    experts = ("webshop", "--tasks", "0:20", "--to", "eto-sft", "--out", "experts.json")
    run(folder, ("python", "-m", "launch.data", "experts", *experts))
    return folder


@pytest.fixture
def checkout(played, tmp_path) -> Path:
    shutil.copytree(played, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def masked(line: str) -> str:
    """A printed line without its numbers and their columns."""
    return " ".join(re.sub(r"\d[\d.,]*", "#", line).split())


def output_is_of_that_form(folder: Path, printed: str) -> None:
    """What the README shows is what the commands print, but for its numbers; collapses come and go."""
    lines = {masked(line) for line in printed.splitlines()}
    shown = "\n".join(blocks(PAGES["README.md"].read_text(), "text")).splitlines()
    assert len(shown) >= 5
    for line in shown:
        assert masked(line) in lines or line.startswith("Collapse in round "), line


def loss_of_ones_own(folder: Path, printed: str) -> None:
    results = json.loads((folder / "runs/gap-hinge/results.json").read_text())
    assert results["config"]["agents"]["target"]["loss"] == "my_losses:gap_hinge"


def recipes_of_ones_own(folder: Path, printed: str) -> None:
    for name, kind in (("failures-alone", "failure_failure"), ("best-over-worst", "best_over_worst")):
        results = json.loads((folder / "runs" / name / "results.json").read_text())
        assert [row["kind"] for row in results["pairs"]] == [kind] * len(results["pairs"]) != []
        assert {row["agent"] for row in results["explorations"]} == {"target"}


def method_of_ones_own(folder: Path, printed: str) -> None:
    results = json.loads((folder / "runs/retries/results.json").read_text())
    assert {row["phase"] for row in results["explorations"]} == {"explore_target", "branch_retries"}
    assert sum(row["points"] for row in results["explorations"] if "points" in row) > 0
    plan = json.loads((folder / "runs/retries/plans/round-01-target.json").read_text())
    assert plan["steps"]


CLAIMS = {
    "README.md": output_is_of_that_form,
    "docs/losses.md": loss_of_ones_own,
    "docs/method.md": recipes_of_ones_own,
    "docs/methods.md": method_of_ones_own,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(unrun(one) is None for one in commands(page))]
)
def test_the_pages_commands_run(page, checkout):
    for name, text in examples(page).items():
        (checkout / name).write_text(text)
    if page == "README.md":
        shutil.rmtree(checkout / "runs")  # its first command makes the run
    taken = [command for command in dict.fromkeys(commands(page)) if unrun(command) is None]
    printed = "".join(run(checkout, command.words).stdout for command in taken)
    if page in CLAIMS:
        CLAIMS[page](checkout, printed)


@pytest.mark.parametrize("rule", [*UNRUN_PROGRAMS, *UNRUN_WORDS])
def test_every_exception_is_one_of_a_command(rule):
    found = [command for page in PAGES for command in commands(page)]
    assert any(
        command.program.startswith(rule) or any(rule in word for word in command.arguments)
        for command in found
    )


def test_most_of_what_a_user_types_is_run():
    found = [command for page in PAGES for command in commands(page)]
    assert sum(unrun(command) is None for command in found) >= 30
