"""A command line is understood, and a config refused, before anything heavy is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coevo_jax.commands.coevo import SUBCOMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    *("jax", "flax", "optax", "orbax", "transformers", "tokenizers", "scipy", "pyarrow", "datasets"),
    *("tensorflow_datasets", "torch", "scienceworld", "textworld", "pymysql", "sqlite3", "tensorboardX"),
)
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")
BAD_CONFIG = {
    "unknown key": [QUICKSTART, "agents.target.bete=[0.1]"],
    "wrong value": [QUICKSTART, "rounds=many"],
    "impossible": [QUICKSTART, "model.num_kv_heads=3"],
    "no such file": ["nowhere.yaml"],
    "no such name": ["quickstarts"],
    "unknown loss": [QUICKSTART, "agents.target.loss=sigmoyd"],
}
BAD_ENVIRONMENT = {
    "unknown environment": [QUICKSTART, "env.name=intercode_sqll"],
    "unknown option": [QUICKSTART, "env.options.sead=1"],
    "wrong option": [QUICKSTART, "env.name=webshop", "env.options={split_by: size}"],
}
NO_RUN = {"no run": ["nowhere"]}
REFUSED: dict[str, dict[str, list[str]]] = {
    "train": BAD_CONFIG | BAD_ENVIRONMENT | {"no run": ["--resume", "nowhere"], "nothing": []},
    "evaluate": NO_RUN,
    "play": NO_RUN,
    "report": NO_RUN,
    "compile": BAD_CONFIG,
    "export": {"no run": ["nowhere", "--out", "x"]},
    "sweep": {
        name: [*words, "--losses", "sigmoid"] for name, words in (BAD_CONFIG | BAD_ENVIRONMENT).items()
    },
    "base": {
        name: [*words, "--out", "x"]
        for name, words in (BAD_CONFIG | BAD_ENVIRONMENT | {"plays rounds": [QUICKSTART]}).items()
    },
    "study": BAD_CONFIG | BAD_ENVIRONMENT | {"nothing": [], "no page": ["--table", "nowhere.md"]},
    "data": {
        "generates nothing": ["generate", "scienceworld", "--out", "x"],
        "no players": ["generate", "scienceworld", "--players", "--out", "x.jsonl"],
        "unknown option": ["generate", "webshop", "--out", "x", "sead=1"],
        "unknown format": ["convert", "x", "--to", "eto", "--out", "y"],
    },
    "conformance": {"unknown option": ["webshop", "sead=1"], "unknown environment": ["webshopp"]},
    "audit": NO_RUN,
    "serve": NO_RUN,
    "replay": NO_RUN,
    "scaling": {"nothing": []},
}

# Runs `main` of every command with every line, each like a process of its own, and says how each ended, what
# it printed as an error and which heavy packages are there by then.
PROGRAM = """
import contextlib, io, json, sys
from coevo_jax.commands.cli import run_command
from coevo_jax.commands.coevo import main

heavy, lines = json.load(sys.stdin)
for line in lines:
    said = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            run_command(main, line)
        except SystemExit as end:
            code = end.code
    print(json.dumps([line, code, said.getvalue(), [name for name in heavy if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, tuple[int, str, list[str]]]:
    """By command line, one after the other in one process: exit code, what it said, heavy modules so far."""
    lines = [[name, "--help"] for name in SUBCOMMANDS] + [["--help"], ["--version"], ["trian"]]
    lines += [[name, *words] for name, cases in REFUSED.items() for words in cases.values()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([HEAVY, lines]),
        cwd=tmp_path_factory.mktemp("empty"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return {" ".join(line): (code, said, heavy) for line, code, said, heavy in rows}


def test_every_command_has_its_refusals_here():
    assert set(REFUSED) == set(SUBCOMMANDS)
    modules = {path.stem for path in (ROOT / "launch").glob("*.py")} - {"__init__"}
    assert modules == set(SUBCOMMANDS)


@pytest.mark.parametrize("name", [*SUBCOMMANDS, ""])
def test_help_needs_nothing_heavy(name, ended):
    assert ended[f"{name} --help".strip()] == (0, "", [])


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in REFUSED for case in REFUSED[name]])
def test_a_refusal_needs_nothing_heavy(name, case, ended):
    code, said, heavy = ended[" ".join([name, *REFUSED[name][case]])]
    assert code == 2 and "error: " in said and "Traceback" not in said
    assert heavy == []


def test_a_command_that_is_none_is_told_the_nearest(ended):
    assert ended["trian"] == (2, "error: coevo: found the command 'trian' (did you mean 'train'?)\n", [])


@pytest.mark.parametrize("line", [["train", "--help"], ["report", "--help"], ["--help"]])
def test_output_that_nobody_reads_ends_without_a_word(line, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it, argparse ends it, with 0
    reading, writing = os.pipe()
    os.close(reading)
    code = "from coevo_jax.commands.coevo import main\nfrom coevo_jax.commands.cli import run_command\n"
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"{code}run_command(main)", *line],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_table_that_nobody_reads_ends_without_a_word_and_another_broken_pipe_is_told():
    """What rich prints, flushed as it goes; and an error of the work, which is not the reader's."""
    code = (
        "import os, sys\nfrom coevo_jax.commands.cli import run_command\n"
        "def table(argv):\n"
        "    from coevo_jax.progress import CONSOLE\n"
        "    CONSOLE.print('x' * 9000)\n"
        "def work(argv):\n    raise BrokenPipeError('an environment')\n"
        "run_command(globals()[sys.argv[1]])"
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code]
    shown = subprocess.run(
        [*command, "table"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (shown.returncode, shown.stderr) == (141, "")
    worked = subprocess.run([*command, "work"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert worked.returncode == 1 and "BrokenPipeError: an environment" in worked.stderr
