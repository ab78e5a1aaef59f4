"""Suggestions: the audit's own draws against the builders', and runs that are audited, edited and killed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.audit.audit import run_audit
from coevo_jax.audit.distortions import NAMES, suggested
from coevo_jax.audit.hints import KEPT, TAUGHT, tell
from coevo_jax.audit.reading import Episode
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.methods.corrections import corrections, kept_corrections
from coevo_jax.methods.distortion import OPERATIONS, suggestions
from coevo_jax.methods.hints import hinted
from coevo_jax.methods.table import builder_options
from coevo_jax.run_folder.run import create_run
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_record,
    edit_rows,
    end,
    finished,
    finished_once,
    manifest,
)
from tests.audit.recipes import override
from tests.tiny import SPELLING, coevolve_through_kills, kill_at_commits, tiny_config

TEXTS = st.text(alphabet="ab A[](),'=_", max_size=12)
TURNS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)
CHOICES = st.lists(st.sampled_from(OPERATIONS), min_size=1, unique=True)


@given(TURNS, TEXTS, st.sampled_from([0.0, 0.3, 1.0]), CHOICES, st.integers(0, 3), st.integers(0, 2))
def test_two_codes_distort_alike(turns, prompt, share, operations, seed, sample):
    common: dict[str, Any] = {"task_id": "t", "agent": "expert", "sample": 0, "prompt": prompt, "reward": 1.0}
    rows = [{"response": action, "action": action, "observation": answer} for action, answer in turns]
    arrays = {"tokens": np.zeros(0, np.int32), "agent_mask": np.zeros(0, bool), "logps": np.zeros(0)}
    ours = Episode(**common, ending="solved", turns=rows)
    theirs = Trajectory(**common, **arrays, ending=Ending.SOLVED, turns=tuple(Turn(**row) for row in rows))
    wanted = suggestions(
        theirs,
        share=share,
        operations=operations,
        seed=seed,
        phase="round-01/p",
        sample=sample,
        offered=str.split,
    )
    name = (seed, "round-01/p", sample)
    assert suggested(ours, share, operations, name, str.split) == [tuple(one) for one in wanted]


@given(TEXTS, TEXTS, st.sampled_from(["{text} {action}", "{action}: {text}!", "({text}) {action}."]))
def test_two_codes_tell_alike(text, action, wording):
    assert tell(text, action, wording) == hinted(text, action, wording)


@pytest.mark.parametrize("builder, known", [(corrections, TAUGHT), (kept_corrections, KEPT)])
def test_the_defaults_are_the_builders(builder, known):
    assert {name: default for name, (_, default) in builder_options(builder).items()} == known
    assert NAMES == OPERATIONS


# A corrector that learns, and a target that does not know everything yet.
LEARNS = (
    *("recipe=daug", "env={name: spelling}", "model.num_layers=1", "evaluate.tasks=':9'"),
    *("warm_start.epochs=14", "explore.tasks=['40:60']", "batch.row_length=256", "rollout.max_tokens=256"),
    override("agents", {"target": {"epochs": 2}, "corrector": {"epochs": 8, "learning_rate": [1e-2]}}),
)
OTHERWISE = (
    *LEARNS,
    override("recipe.explore_corrected.hints.while_same", True),
    override("recipe.explore_corrected.hints.operations", ["replace_word", "other_action"]),
    override("recipe.explore_corrected.hints.share", 0.8),
    override("recipe.explore_corrected.hints.wording", "{text} [{action}]"),
    override("recipe.learn_corrector.corrections.wording", "{text} [{action}]"),
    override("recipe.learn_corrector.corrections.plain_weight", 0.5),
    override("recipe.learn_corrector.corrections.copies", 3),
    override("recipe.learn_target.kept_corrections.threshold", 0.6),
    override("recipe.learn_target.kept_corrections.repeats", True),
)
PLAY, TEACH, LEARN = "round-01/explore_corrected", "round-01/learn_corrector", "round-01/learn_target"


@pytest.fixture(scope="module")
def spelling():
    from coevo_jax.envs.registry import ENVIRONMENTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "spelling", SPELLING)
        yield


@pytest.fixture(scope="module")
def whole(spelling, tmp_path_factory):
    return finished_once(tmp_path_factory, *LEARNS)


def assert_held(run: Path) -> None:
    others = [one for one in run_audit(run, None) if one.state != "held"]
    assert not others, others


def shards(run: Path, name: str) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.glob(f"trajectories/round-01/{name}-*"))


def recorded(run: Path, name: str) -> dict[str, Any]:
    return next(one["records"] for one in manifest(run)["done"] if one["name"] == name)


def sources(run: Path, name: str) -> set[str]:
    plan = json.loads((run / f"plans/round-01-{name}.json").read_text())
    return {one["source"] for one in plan["trajectories"]}


@pytest.mark.slow
def test_a_run_of_the_shipped_recipe_holds_and_corrects_something(whole):
    assert_held(whole)
    counts = recorded(whole, PLAY)["hints"]
    assert counts["episodes"] == 40 and counts["without"] == 0
    assert counts["suggested"] > 80 and 15 < counts["distorted"] < counts["suggested"] / 2
    assert counts["corrected"] > counts["followed"] and len(counts["by_operation"]) > 1
    assert sources(whole, "corrector") == {"corrections"} and "expert" in sources(whole, "target")
    played = read_trajectories([whole / path for path in shards(whole, "corrected")])
    assert all(one.hints and one.hints[0] for one in played)


@pytest.mark.slow
def test_other_options_hold_too_and_something_is_kept(spelling, tmp_path):
    run = finished(tmp_path, *OTHERWISE)
    assert_held(run)
    assert sources(run, "target") == {"expert", "corrected"}
    played = read_trajectories([run / path for path in shards(run, "corrected")])
    assert any("" in one.hints for one in played)  # some parted from their expert


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


@breaks(f"hints/{PLAY}", f"tokens/{PLAY}")
def another_suggestion(run: Path) -> None:
    edit_rows(run, shards(run, "corrected")[0], lambda rows: rows[0]["hints"].__setitem__(0, "sing"))


@breaks(f"hints/{PLAY}")
def another_count_of_corrected(run: Path) -> None:
    edit_record(run, PLAY, lambda one: one["records"]["hints"].update(corrected=999))


@breaks(f"hints/{PLAY}")
def another_count_of_an_operation(run: Path) -> None:
    edit_record(run, PLAY, lambda one: one["records"]["hints"]["by_operation"].update(other_action=1))


@breaks(f"plan/{TEACH}")
def another_correction(run: Path) -> None:
    edit_json(run, "plans/round-01-corrector.json", lambda plan: plan["trajectories"][0].update(tokens=9))


@breaks(f"plan/{LEARN}")
def a_kept_success_with_its_suggestions(run: Path) -> None:
    """Its tokens are more than those without."""

    def longer(plan):
        one = next(one for one in plan["trajectories"] if one["source"] == "expert")
        one["source"] = "corrected"

    edit_json(run, "plans/round-01-target.json", longer)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_in_the_same_numbers(whole, tmp_path, monkeypatch):
    def of_the_corrector(state) -> bool:
        return state.running is not None and "correct" in state.running.name

    kill_at_commits(monkeypatch, "before", first=2, every=4, counted=of_the_corrector)
    run, kills = coevolve_through_kills(create_run(tiny_config(tmp_path, *LEARNS, "checkpoint.keep=all")))
    assert kills >= 3
    killed = end(run)
    plans = ("plans/round-01-corrector.json", "plans/round-01-target.json")
    for path in (
        *shards(whole, "corrected"),
        *shards(whole, "target"),
        *shards(whole, "eval-target"),
        *plans,
    ):
        assert (killed / path).read_bytes() == (whole / path).read_bytes(), path
    assert recorded(killed, PLAY)["hints"] == recorded(whole, PLAY)["hints"]
    assert_held(killed)
