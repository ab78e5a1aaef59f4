"""A config is a path, or the bare name of one that comes with the code; messages speak as the user does."""

import sys
from pathlib import Path

import pytest

from coevo_jax import files
from coevo_jax.commands.configs import KINDS, config_file, read_config, shipped_configs
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called, shipped

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_shipped_config_has_a_name_of_its_own():
    paths = [path for kind in KINDS for path in (ROOT / "configs" / kind).glob("*.yaml")]
    assert sorted(shipped_configs().values()) == sorted(paths)


def test_a_bare_name_is_found_from_any_folder_with_what_it_extends():
    assert config_file("quickstart") == shipped() / "quickstart.yaml"
    assert config_file("qwen3-4b-webshop") == shipped("paper") / "qwen3-4b-webshop.yaml"
    assert read_config("qwen3-4b-webshop", ["rounds=0"]).env.name == "webshop"
    assert read_config("quickstart", []).runs_dir == "runs"


def test_a_file_of_that_name_comes_first_and_a_folder_does_not(tmp_path):
    (tmp_path / "quickstart").mkdir()
    assert config_file("quickstart") == shipped() / "quickstart.yaml"
    (tmp_path / "webshop").write_text("rounds: 0\n")
    assert config_file("webshop") == Path("webshop")
    assert config_file(str(tmp_path / "webshop")) == tmp_path / "webshop"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "quickstrat",
            r"quickstrat: no such file, and no config of that name \(did you mean 'quickstart'\?\)",
        ),
        ("configs/quickstart.yaml", r"no such file \(a config 'quickstart' comes with the code\)"),
        ("nowhere.yaml", r"nowhere\.yaml: no such file"),
        (".", r"\.: cannot be read"),
    ],
)
def test_what_is_neither_is_refused_with_the_nearest(text, words):
    with pytest.raises(ConfigError, match=words):
        read_config(text, [])


@pytest.mark.parametrize(
    ("typed", "is_installed", "words"),
    [
        ("/repository/launch/train.py", False, "python -m launch.train --resume x"),
        ("/venv/bin/coevo", False, "coevo train --resume x"),
        ("/venv/bin/coevo", True, "coevo train --resume x"),
        ("-c", True, "coevo train --resume x"),
    ],
)
def test_a_command_is_named_as_it_was_typed(typed, is_installed, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [typed])
    monkeypatch.setattr(files, "installed", lambda: is_installed)
    assert as_called("python -m launch.train --resume x") == words
