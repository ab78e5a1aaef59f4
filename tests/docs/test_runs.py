"""The commands of the README and docs/ run as printed, page by page, in a copy of the project that is small.

The configs are the shipped ones with a quickstart of seconds in the place of configs/quickstart.yaml, which
the others extend: the toy environment, a tiny model. The README's commands are processes of their own, as
whoever types them has them; those of the other pages share one, which keeps what it has imported and
compiled (`tests.one_process`), and what an earlier page has run in the same state is not run again. What
is left out is named by `unrun`, and is parsed, resolved or dry-run by `tests.docs.test_commands`.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import FOREIGN, PAGES, ROOT, Command, blocks, commands, examples
from tests.one_process import ASK, SOCKET, Kept, kept_process
from tests.shared import made_once
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


# What pages' own configs are given beside their lines, which are read all the same: less where a run is long,
# and more where agents must be right at times.
GIVEN = {
    "best.yaml": ("warm_start.epochs=10",),
    "guess.yaml": (
        *("warm_start.epochs=1", "explore.tasks=['100:120']", "evaluate.tasks=0:20"),
        *("agents.target.epochs=1", "agents.failure.epochs=1"),
    ),
}


def taken(page: str) -> list[Command]:
    """The commands of a page that are run here, each once."""
    found: dict[tuple[str, ...], Command] = {}
    for one in commands(page):
        if unrun(one) is None:
            found.setdefault(one.typed, one)
    return list(found.values())


def own(page: str) -> list[Command]:
    """Those that no page before it has, but for what goes by a file of the page's."""
    earlier = {one.typed for other in list(PAGES)[: list(PAGES).index(page)] for one in taken(other)}
    files = {*examples(page)}
    return [one for one in taken(page) if one.typed not in earlier or files & {*one.words}]


def environment_of(folder: Path) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "COEVO_VENV"}
    return environment | {"PYTHONPATH": str(folder), "COEVO_CACHE": str(folder / "cache")}


def run(folder: Path, words: tuple[str, ...], kept: Kept | None = None) -> str:
    """Run words as a shell in the folder does, and require that they succeed; what they print.

    `kept` is the process that runs the project's Python commands; without it, each has its own.
    """
    expanded = (
        [str(path) for word in words for path in sorted(folder.glob(word)) or [word]]
        if any("*" in word for word in words)
        else list(words)
    )
    if expanded[0] == "python":
        expanded[0] = ".venv/bin/python"
    own = environment_of(folder)
    how = kept.call(own) if kept else {"env": own}
    done = subprocess.run(expanded, cwd=folder, capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


PRINTED = "printed-by-README.txt"  # what its commands said
# The environment's interpreter: where there is a process that runs the project's commands, it is asked.
PYTHON = f"""\
#!/bin/sh
if [ -n "${SOCKET}" ] && [ "$1" = -m ] && [ "${{2#launch.}}" != "$2" ]; then
    shift
    exec {shlex.join(ASK)} "$@"
fi
exec "{sys.executable}" "$@"
"""


def make_checkout(folder: Path) -> None:
    """The project with a small quickstart, and an environment that is installed already."""
    shutil.copytree(ROOT / "launch", folder / "launch")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("coevo_jax", "tests", "benchmarks", *(path.name for path in ROOT.glob("requirements*.txt"))):
        (folder / name).symlink_to(ROOT / name)
    small = CONFIG.replace("name: tiny", "name: quickstart").replace("{name: letters}", f"{{name: {TOY}}}")
    small = small.replace("epochs: 10", "epochs: 4")
    (folder / "configs/quickstart.yaml").write_text(small)
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    installed = (ROOT / "requirements.txt").read_bytes() * 2
    (folder / ".venv/.installed-requirements.txt").write_text(hashlib.sha256(installed).hexdigest() + "\n")


def play(folder: Path, kept: Kept) -> None:
    """Make the small checkout in which what a page takes for granted is there, beginning with the README."""
    make_checkout(folder)
    (folder / PRINTED).write_text("".join(run(folder, command.words) for command in taken("README.md")))
    shutil.copytree(folder / "runs/quickstart", folder / "runs/a")
    more = ("runs_dir=runs/seeds", "name=sft-more")
    experts = ("webshop", "--tasks", "0:20", "--to", "eto-sft", "--out", "experts.json")
    for words in (
        ("launch.train", "--fork", "runs/quickstart", "configs/quickstart-sft-more.yaml", *more),
        ("launch.train", "configs/quickstart-nat.yaml", "rounds=1"),
        ("launch.data", "experts", *experts),
    ):
        run(folder, ("python", "-m", *words), kept)
    shutil.copytree(folder / "runs/quickstart", folder / "runs/seeds/quickstart")


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    """This test process's own for Python commands."""
    with kept_process(os.environ) as process:
        yield process


@pytest.fixture(scope="module")
def played(tmp_path_factory, kept) -> Path:
    """A small checkout with finished runs and exported experts, which one test process makes for all."""
    return made_once(tmp_path_factory, "checkout", lambda folder: play(folder, kept))


def masked(line: str) -> str:
    """A printed line without its numbers and their columns."""
    return " ".join(re.sub(r"\d[\d.,]*", "#", line).split())


def output_is_of_that_form(printed: str) -> None:
    """What the README shows is what the commands print, but for its numbers; collapses come and go."""
    lines = {masked(line) for line in printed.splitlines()}
    shown = "\n".join(blocks(PAGES["README.md"].read_text(), "text")).splitlines()
    assert len(shown) >= 5
    for line in shown:
        assert masked(line) in lines or line.startswith("Collapse in round "), line


def environment_of_ones_own(folder: Path) -> None:
    results = json.loads((folder / "runs/guess/results.json").read_text())
    assert results["config"]["env"]["name"] == "guess_env:GuessEnv"
    assert results["pairs"] and results["evaluations"][-1]["n"] == 20


def loss_of_ones_own(folder: Path) -> None:
    results = json.loads((folder / "runs/gap-hinge/results.json").read_text())
    assert results["config"]["agents"]["target"]["loss"] == "my_losses:gap_hinge"


def recipes_of_ones_own(folder: Path) -> None:
    for name, kind in (("failures-alone", "failure_failure"), ("best-over-worst", "best_over_worst")):
        results = json.loads((folder / "runs" / name / "results.json").read_text())
        assert [row["kind"] for row in results["pairs"]] == [kind] * len(results["pairs"]) != []
        assert {row["agent"] for row in results["explorations"]} == {"target"}


def method_of_ones_own(folder: Path) -> None:
    results = json.loads((folder / "runs/retries/results.json").read_text())
    assert {row["phase"] for row in results["explorations"]} == {"explore_target", "branch_retries"}
    assert sum(row["points"] for row in results["explorations"] if "points" in row) > 0
    plan = json.loads((folder / "runs/retries/plans/round-01-target.json").read_text())
    assert plan["steps"]


CLAIMS = {
    "docs/environments.md": environment_of_ones_own,
    "docs/losses.md": loss_of_ones_own,
    "docs/method.md": recipes_of_ones_own,
    "docs/methods.md": method_of_ones_own,
}


@pytest.mark.slow
def test_the_readmes_commands_print_what_it_shows(played):
    output_is_of_that_form((played / PRINTED).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md" and own(page)])
def test_the_pages_commands_run(page, played, kept, tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(played, checkout, symlinks=True)
    for name, text in examples(page).items():
        (checkout / name).write_text(text)
    for command in own(page):
        given = (value for name in command.configs for value in GIVEN.get(name, ()))
        run(checkout, (*command.words, *given), kept)
    if page in CLAIMS:
        CLAIMS[page](checkout)


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
