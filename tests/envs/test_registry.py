"""The registry: names, options checked once, errors that help."""

import sys

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Env
from coevo_jax.envs.intercode_sql.options import InterCodeSqlOptions
from coevo_jax.envs.registry import ENVIRONMENTS, make_env

TINY = {
    "train_databases": 1,
    "dev_databases": 1,
    "test_databases": 1,
    "train_tasks": 4,
    "dev_tasks": 2,
    "test_tasks": 2,
}


def test_a_factory_makes_separate_instances():
    factory = make_env("intercode_sql", {**TINY, "max_turns": 6})
    one, other = factory(), factory()
    assert one is not other
    assert isinstance(one, Env)
    assert len(one.tasks("train")) == 4
    assert one.max_turns(one.tasks("train")[0]) == 6
    assert ENVIRONMENTS["intercode_sql"].options is InterCodeSqlOptions


def test_every_environment_has_options_with_help():
    for name, spec in ENVIRONMENTS.items():
        assert callable(spec.make), name
        assert spec.generate_at is None or callable(spec.generate), name
        for field, info in spec.options.model_fields.items():
            assert info.description, f"{name}.{field} has no help"
            assert not info.is_required(), f"{name}.{field} has no default"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "intercode",
            {},
            r"env\.name: found 'intercode', expected one of intercode_sql, .*did you mean 'intercode_sql'",
        ),
        ("chess", {}, r"env\.name: found 'chess', expected one of intercode_sql, .*package\.module:make"),
        (
            "intercode_sql",
            {"max_turn": 3},
            r"env\.options\.max_turn: unknown key \(did you mean 'max_turns'\?\)",
        ),
        ("intercode_sql", {"max_turns": "3"}, r"env\.options\.max_turns: found \"3\" \(string\), expected"),
        ("intercode_sql", {"max_turns": 0}, r"env\.options\.max_turns: found 0"),
        ("intercode_sql", {"min_rows": 41}, r"env\.options: .*expected min_rows at most max_rows \(40\)"),
        ("intercode_sql", {"row_cap": 40}, r"env\.options: .*expected row_cap greater than max_rows \(40\)"),
        (
            "intercode_sql",
            {"tasks_path": "x", "seed": 1},
            r"env\.options: .*no generator option.*\(.*: seed\)",
        ),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_env(name, options)


def test_a_missing_task_file_is_a_clear_error():
    factory = make_env("intercode_sql", {"tasks_path": "no/such/file.jsonl"})
    with pytest.raises(ConfigError, match=r"no/such/file\.jsonl: found no readable text"):
        factory()


MINE = """
from coevo_jax.config.strict import StrictModel

class Options(StrictModel):
    size: int = 3
    '''How many.'''

def make_mine(options: "Options"):
    return ("made", options.size)

def make_bare(options):
    return None

def make_many(options: Options, other: int):
    return None

def make_plain(options: dict):
    return None

CONSTANT = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A current directory with a user's package, fresh for every test."""
    package = tmp_path / "zoo_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "env.py").write_text(MINE)
    (package / "broken.py").write_text("import math\n\nmath.nothing\n")
    (package / "syntax.py").write_text("def make(:\n")
    (package / "lacks.py").write_text("import package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo_of_mine"]:
        del sys.modules[name]


def test_an_environment_of_ones_own_is_found_in_the_current_directory(own):
    assert make_env("zoo_of_mine.env:make_mine", {"size": 4})() == ("made", 4)
    with pytest.raises(ConfigError, match=r"env\.options\.sise: unknown key \(did you mean 'size'\?\)"):
        make_env("zoo_of_mine.env:make_mine", {"sise": 4})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zoo_of_min.env:make_mine", r"no module 'zoo_of_min' \(did you mean 'zoo_of_mine'\?\); looked in"),
        ("zoo_of_mine.envs:make_mine", r"no module 'zoo_of_mine\.envs' \(did you mean 'env'\?\)"),
        ("zoo_of_mine.env:make_min", r"env\.py has no 'make_min' \(did you mean 'make_mine'\?\)"),
        ("zoo_of_mine.env:CONSTANT", r"CONSTANT in .*env\.py is of type int, expected a function"),
        ("zoo_of_mine.env:make_bare", r"signature \(options\); expected one parameter annotated with a Stri"),
        ("zoo_of_mine.env:make_many", r"other: int\); expected one parameter annotated"),
        ("zoo_of_mine.env:make_plain", r"\(options: dict\); expected one parameter annotated"),
        ("zoo_of_mine.broken:make", r"importing zoo_of_mine\.broken failed: AttributeError.*broken\.py:3\)"),
        ("zoo_of_mine.syntax:make", r"importing zoo_of_mine\.syntax failed: SyntaxError.*syntax\.py:1\)"),
        ("zoo_of_mine.lacks:make", r"lacks failed: ModuleNotFoundError: No module named 'package_that_no"),
        ("zoo_of_mine.env:", r"expected the form package\.module:make_function"),
        (":make", r"expected the form package\.module:make_function"),
        ("zoo of mine:make", r"expected the form package\.module:make_function"),
    ],
)
def test_what_is_wrong_with_an_environment_of_ones_own_is_said(own, name, message):
    with pytest.raises(ConfigError, match=message):
        make_env(name, {})
