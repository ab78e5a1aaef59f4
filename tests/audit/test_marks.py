"""Marks as the audit derives them, by hand and beside the builder; a run of four grades, whole and broken."""

import json
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.marks import bare, graded, marks_in, prompt_problems, remarked
from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import Episode
from coevo_jax.audit.sides import Side
from coevo_jax.config.recipe import ImitationSource
from coevo_jax.methods.marks import graded as built
from coevo_jax.methods.material import Material
from coevo_jax.report.terminal import rounds_table
from coevo_jax.run_folder.results import load_results, main_evaluations
from coevo_jax.stored.evaluate import evaluate_stored
from coevo_jax.stored.export import export_agent
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    broken,
    collected,
    copy,
    edit_json,
    edit_record,
    edit_rows,
    finished_once,
    manifest,
)
from tests.audit.recipes import FOUR, MARKED
from tests.tiny import tiny_config

SHORT = ("explore.tasks=['40:60']", "evaluate.tasks=':9'", "evaluate.split=dev")


class Openings:
    """A rendering whose prompts are their letters."""

    def opening(self, task: str) -> list[int] | None:
        return None if "|" in task else [ord(letter) for letter in task]


OPENINGS = cast(Any, Openings())


def source_of(**options: Any) -> ImitationSource:
    return ImitationSource.model_validate({"imitate": "graded", "of": ["a"], "weight": 1.0, **options})


def side(prompt: str, mark: str = "", reward: float = 0.5) -> Side:
    tokens = np.array([*map(ord, prompt), 1, 2, 3], np.int32)
    episode = Episode(
        task_id="t",
        agent="a",
        sample=0,
        reward=reward,
        ending="failed",
        prompt=prompt,
        turns=({"response": "x", "action": "x", "observation": ""},),
        tokens=tokens,
        agent_mask=np.array([False] * len(prompt) + [True, False, True]),
    )
    return Side(source="a", episode=episode, length=len(tokens), mark=mark)


def test_a_task_stands_bare_under_its_own_mark_alone():
    assert bare("", "Copy") == "Copy" == bare("{task} [1]", "Copy [1]") == bare("[Bad] {task}", "[Bad] Copy")
    assert bare("{task} [1]", "Copy") is None and bare("ab{task}b", "ab") is None
    assert bare("ab{task}b", "abb") == ""


def test_prompts_are_held_against_the_phase():
    marked = Phase(name="p", kind="evaluate", agent="a", mark="{task} [1]")
    plain = Phase(name="p", kind="evaluate", agent="a")
    marks = set(FOUR)
    assert not [*prompt_problems("w", "Copy [1]", marked, marks), *prompt_problems("w", "Copy", plain, marks)]
    [missing] = prompt_problems("w", "Copy [2]", marked, marks)
    [twice] = prompt_problems("w", "Copy [2] [1]", marked, marks)
    [stray] = prompt_problems("w", "[Bad] Copy", plain, marks)
    assert "expected one under the mark '{task} [1]'" in missing
    assert "under the mark '{task} [2]', expected the mark '{task} [1]' alone" in twice
    assert stray.endswith("expected no mark")


def test_other_tokens_stand_in_front_of_the_agents_first():
    found = remarked(side("ab [1]", "{task} [1]"), "[Bad] {task}", OPENINGS)
    assert found.episode.prompt == "[Bad] ab" and found.mark == "[Bad] {task}"
    assert found.episode.tokens.tolist() == [*map(ord, "[Bad] ab"), 1, 2, 3]
    assert found.episode.agent_mask.tolist() == [False] * 8 + [True, False, True]
    assert found.length == 11
    with pytest.raises(NotCheckable, match="like a special token"):
        remarked(side("a|b"), "{task} [1]", OPENINGS)
    with pytest.raises(ValueError, match="not under the mark"):
        remarked(side("ab", "{task} [1]"), "[Bad] {task}", OPENINGS)


ACTIONS = st.lists(st.sampled_from(["", "x", "y"]), max_size=5)
EPISODES = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), ACTIONS), max_size=12)


@given(
    EPISODES,
    st.sampled_from([None, 0.0, 0.7, 2.0]),
    st.booleans(),
    st.sampled_from([None, 1, 2]),
    st.integers(0, 3),
)
def test_the_builder_and_the_audit_agree(episodes, ratio, unparsable, repeats, seed):
    """Two codes for one rule: tasks, samples and marks, in one order."""
    options = {
        "marks": tuple(FOUR),
        "bounds": (1.0, 0.5, 0.0),
        "failures_per_success": ratio,
        "drop_unparsable": unparsable,
        "most_repeats": repeats,
        "draw_seed": seed,
    }
    sides, trajectories = [], []
    for number, (reward, actions) in enumerate(episodes):
        turns = [{"response": action, "action": action, "observation": ""} for action in actions]
        common: dict[str, Any] = {"task_id": f"t{number % 3}", "agent": "a", "sample": number // 3}
        common |= {"prompt": "p", "reward": reward, "tokens": np.array([1, number], np.int32)}
        common |= {"agent_mask": np.array([False, True]), "logps": np.zeros(2, np.float32)}
        ending = Ending.SOLVED if reward >= 1 else Ending.FAILED
        episode = Episode(**common, ending=ending.value, turns=turns)
        sides.append(Side(source="a", episode=episode, length=2))
        trajectories.append(Trajectory(**common, ending=ending, turns=tuple(Turn(**turn) for turn in turns)))
    ours = [
        (one.episode.task_id, one.episode.sample, one.mark)
        for one in graded(source_of(**options), [sides], OPENINGS)
    ]
    theirs = [
        (one.trajectory.task_id, one.trajectory.sample, one.mark)
        for one in built(Material(played=(trajectories,), experts={}), **options)
    ]
    assert ours == theirs


def test_the_defaults_are_the_builders(letters, tmp_path):
    from coevo_jax.audit.marks import DEFAULTS
    from coevo_jax.methods.table import builder_options

    assert {name: default for name, (_, default) in builder_options(built).items()} == DEFAULTS
    assert marks_in(tiny_config(tmp_path, *MARKED)) == set(FOUR)


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *SHORT, *MARKED)


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)
LEARN = "round-01/learn_student"


@breaks(f"plan/{LEARN}")
def another_count_under_a_mark(run):
    edit_record(run, LEARN, lambda one: one["records"]["marks"][0].update(count=1))


@breaks(f"plan/{LEARN}")
def another_mark_in_the_plan(run):
    def swap(plan):
        next(one for one in plan["trajectories"] if one.get("mark") == FOUR[0])["mark"] = FOUR[3]

    edit_json(run, "plans/round-01-student.json", swap)


@breaks("tokens/round-01/evaluate_worst")
def an_evaluation_without_its_mark(run):
    def bared(rows):
        rows[0]["prompt"] = bare(FOUR[3], rows[0]["prompt"])

    edit_rows(run, "trajectories/round-01/eval-worst-00000-of-00002.parquet", bared)


@breaks("report/results.json")
def an_evaluation_of_another_mark(run):
    def change(results):
        next(one for one in results["evaluations"] if one.get("name") == "worst")["mark"] = FOUR[1]

    edit_json(run, "results.json", change)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


@pytest.mark.slow
def test_a_run_of_four_grades_holds_and_its_evaluations_stand_apart(whole):
    assert broken(whole) == {}
    record = next(one["records"] for one in manifest(whole)["done"] if one["name"] == LEARN)
    marks = {one["mark"]: one for one in record["marks"]}
    assert set(marks) >= {FOUR[0], ""} and len(marks) >= 4  # "" is the experts'
    assert marks[FOUR[0]]["mean_reward"] == 1 and 0.5 <= marks[FOUR[1]]["mean_reward"] < 1
    results = load_results(whole)
    found = [(e["round"], e.get("name"), e.get("mark")) for e in results["evaluations"]]
    own = [(1, None, FOUR[0]), (1, "worst", FOUR[3]), (1, "unmarked", None)]
    assert found == [(0, None, None), *own]
    assert [e["round"] for e in main_evaluations(results, "student")] == [0, 1]
    agents = list(rounds_table(results).columns[1].cells)
    assert agents == ["student", "student", "student, worst", "student, unmarked"]
    page = (whole / "report.html").read_text()
    assert "Student, worst" in page and "under the mark “[Bad] {task}”" in page


@pytest.mark.slow
def test_a_stored_agent_is_used_under_the_recipes_mark(whole, tmp_path, capsys):
    run = copy(whole, tmp_path)
    options: dict[str, Any] = {
        "agent": "student",
        "split": "dev",
        "tasks": ":9",
        "temperature": 0.0,
        "samples": 1,
    }
    results = {e.get("name"): e for e in load_results(run)["evaluations"] if e["round"] == 1}
    asked = {None: (None, ""), "worst": (FOUR[3], "-worst"), "unmarked": ("", "-unmarked")}
    for name, (mark, suffix) in asked.items():
        summary, path = evaluate_stored(run, mark=mark, **options)
        assert path.name == f"student-dev{suffix}.json"
        assert json.loads(path.read_text())["mark"] == results[name].get("mark", "")
        assert summary["mean_reward"] == results[name]["mean_reward"]
    assert "warning" not in capsys.readouterr().out
    _, path = evaluate_stored(run, mark="{task} Well?", **options)
    assert path.name.startswith("student-dev-mark-")
    assert "not known to have learned under '{task} Well?'" in " ".join(capsys.readouterr().out.split())
    out = export_agent(run, tmp_path / "out", agent="student", form="merged")
    assert json.loads((out / "prompt_mark.json").read_text()) == {"mark": FOUR[0]}
