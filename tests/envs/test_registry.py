"""The registry: names, options checked once, errors that help."""

import pytest

from coevo_jax.config import ConfigError
from coevo_jax.envs.env import Env
from coevo_jax.envs.intercode_sql import InterCodeSqlOptions
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
        ("webshop", {}, r"env\.name: found 'webshop', expected one of intercode_sql"),
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
