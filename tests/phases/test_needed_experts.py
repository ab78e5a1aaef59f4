"""A recipe that plays from experts, where there are none: refused at the start, or counted and said."""

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.phases import prepare as preparing
from coevo_jax.run_folder.run import create_run
from tests.audit.recipes import evaluate, explore, learn, recipe
from tests.letters_env import LettersEnv
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")

SEGMENTS = recipe(
    explore("target"),
    {"branch": {"agent": "target", "into": "recovered", "at": "expert_turns"}},
    learn("target", {"imitate": "beneficial_segments", "of": ["target", "recovered"], "weight": 1.0}),
    evaluate("target"),
)


def prepare_without(monkeypatch, folder, first: int, last: int, *overrides: str):
    """Prepare a run in an environment without experts of some tasks."""
    whole, none = LettersEnv.expert, {f"train/{number}" for number in range(first, last)}
    monkeypatch.setattr(
        LettersEnv, "expert", lambda self, task: None if task.id in none else whole(self, task)
    )
    overrides = overrides or (SEGMENTS, "agents.target.epochs=1")
    run = create_run(tiny_config(folder, *overrides, "explore.tasks=['40:50']"))
    try:
        preparing.prepare(run)
    finally:
        run.close()


def test_a_round_without_experts_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"none of the 10 tasks of explore\.tasks 40:50 has an expert"):
        prepare_without(monkeypatch, tmp_path, 40, 50)


def test_tasks_without_an_expert_are_counted(monkeypatch, tmp_path, capsys):
    prepare_without(monkeypatch, tmp_path, 40, 43)
    said = " ".join(capsys.readouterr().out.split())
    assert "recipe.branch_recovered: 3 of the 10 tasks of 40:50 have no expert that fits" in said


CORRECTED = ("recipe=daug", "agents={}")


def test_suggestions_without_experts_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"recipe\.learn_corrector and recipe\.explore_corrected would do"):
        prepare_without(monkeypatch, tmp_path, 40, 50, *CORRECTED)


def test_tasks_without_suggestions_are_counted(monkeypatch, tmp_path, capsys):
    prepare_without(monkeypatch, tmp_path, 40, 43, *CORRECTED)
    said = " ".join(capsys.readouterr().out.split())
    assert "recipe.learn_corrector and recipe.explore_corrected: 3 of the 10 tasks of 40:50 have no" in said
