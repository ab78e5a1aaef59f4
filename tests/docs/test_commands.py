"""Every command of the README and docs/ is taken by its own parser, and every config it names resolves.

`tests.docs.test_runs` runs those that need no more than this machine; `unrun` there says why others do not.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from coevo_jax.commands.train import parse as parse_train
from coevo_jax.config.reading import load_config, read_options
from coevo_jax.config.strict import validate
from coevo_jax.envs.registry import ENVIRONMENTS
from tests.docs.pages import FILLED_IN, FOREIGN, PAGES, ROOT, Command, all_commands, blocks, examples
from tests.launch.test_launchers import dry_runs

COMMANDS = all_commands()
OURS = [command for command in COMMANDS if command.program not in FOREIGN]
MODULES = [
    command for command in OURS if command.is_python and command.program != "pytest" and command.arguments
]
SCRIPTS = [command for command in OURS if not command.is_python]
LAUNCHERS = ("launch/gpu/", "launch/tpu/", "launch/host.sh")


class Parsed(Exception):
    """A command's own parser took its words."""


def take_words(command: Command, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """What the command's own parser makes of its words; it does no work. None where it only prints help."""
    words = list(command.arguments)
    if "--help" in words:
        return None
    module: Any = importlib.import_module(command.program.replace("launch.", "coevo_jax.commands."))
    if hasattr(module, "parse"):
        return module.parse(words)

    original = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise Parsed(original(self, *args, **kwargs))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [command.program, *words])
    with pytest.raises(Parsed) as found:
        module.main(*([words] if command.program.startswith("launch.") else []))
    return found.value.args[0]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder: this checkout's configs, bases and pages; what an example imports leaves with it."""
    for name in ("bases", "configs", "docs", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write_examples(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that a page prints, where its commands find them."""
    for name, text in examples(page).items():
        (folder / name).write_text(text)
        if name.endswith(".py"):
            monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)


@pytest.mark.parametrize("command", MODULES, ids=str)
def test_the_commands_parser_takes_it(command, folder, monkeypatch):
    write_examples(command.page, folder, monkeypatch)
    taken = take_words(command, monkeypatch)
    name, options = getattr(taken, "name", None), getattr(taken, "options", None)
    if name in ENVIRONMENTS and options:
        validate(ENVIRONMENTS[name].options, read_options(options), str(command))
    for written in command.configs:
        paths = sorted(folder.glob(written))
        assert paths, f"{command}: no such config"
        for path in paths:
            load_config(path.relative_to(folder), getattr(taken, "overrides", ()))


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_the_script_takes_it(command, folder):
    """`launch/quickstart.sh` hands its words to `launch.train`; tests/launch dry-runs the launchers."""
    words = list(command.arguments)
    assert (ROOT / command.program).is_file()
    if not words:
        return
    if command.program == "launch/setup.sh":
        assert all((ROOT / word).is_file() for word in words)
    elif command.program == "launch/test.sh":
        assert f"{words[0]}" in (ROOT / command.program).read_text() and words[0].startswith("--")
    elif command.program == "launch/quickstart.sh" and "--help" not in words:
        taken = parse_train(words)
        if taken.config is not None:
            load_config(taken.config, taken.overrides)
    elif command.program.startswith(LAUNCHERS):
        # tests/launch/test_launchers.py calls those of this page's blocks and of its table with --dry-run.
        assert command.page == "docs/clusters.md"
        assert command.block or " ".join(map(str, command.words)) in dict(dry_runs())
    else:
        assert command.program == "launch/quickstart.sh"


@pytest.mark.parametrize("command", [one for one in OURS if one.program == "pytest"], ids=str)
def test_the_test_files_it_names_exist(command):
    paths = [word for word in command.arguments if "/" in word]
    assert paths and all((ROOT / path).is_file() for path in paths)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_without_a_language_hold_commands_alone(page):
    """So that no command hides among what is printed; that stands in ```text."""
    for command in COMMANDS:
        if command.page == page and command.block and command.is_python:
            module = command.program.split(".")[0]
            assert module in ("launch", "benchmarks", "tests", "pytest")
        elif command.page == page and command.block:
            assert command.program in FOREIGN or (ROOT / command.program).is_file(), str(command)
    languages = {"", "text", "python", "yaml"}
    found = sum(len(blocks(PAGES[page].read_text(), language)) for language in languages)
    assert found * 2 == sum(line.startswith("```") for line in PAGES[page].read_text().splitlines())


def test_what_is_listed_is_used():
    named = {command.program for command in COMMANDS}
    assert named >= FOREIGN, f"not named any more: {FOREIGN - named}"
    text = "".join(path.read_text() for path in PAGES.values())
    assert all(word in text for word in FILLED_IN)


def test_commands_were_found():
    assert len(MODULES) >= 50 and len(SCRIPTS) >= 25
