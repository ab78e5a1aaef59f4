"""The file of rows: read back as written, one row a run, and what cannot go on in it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from coevo_jax.audit.check import Check
from coevo_jax.commands.actions import study as actions
from coevo_jax.commands.study import main, parse, seeds_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.study.measures import audit_counts, rounded, task_rewards
from coevo_jax.study.plan import plan_study
from coevo_jax.study.rows import check_rows, line_of, read_rows, write_row
from coevo_jax.trajectory import Ending, Trajectory
from tests.study.small import configs, made_row


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "small.jsonl"
    assert read_rows(path) == []
    rows = [made_row("eto", 0, [1.0, 0.25, None]), made_row("coevo", 0, [0.5, 1.0, 0.0])]
    for row in rows:
        write_row(path, row)
    assert read_rows(path) == rows
    text = path.read_text()
    assert text == "".join(line_of(row) + "\n" for row in rows) and "\n\n" not in text
    for line in text.splitlines():
        keys = list(json.loads(line))
        assert keys == sorted(keys)


def test_a_runs_new_row_takes_the_place_of_its_old_one(tmp_path):
    path = tmp_path / "small.jsonl"
    for method in ("eto", "coevo"):
        write_row(path, made_row(method, 0, [1.0]))
    write_row(path, made_row("eto", 0, [0.5]))
    write_row(path, made_row("eto", 1, [0.75]))
    found = [(row["method"], row["seed"], row["evaluations"][-1]["rewards"]) for row in read_rows(path)]
    assert found == [("eto", 0, [0.5]), ("coevo", 0, [1.0]), ("eto", 1, [0.75])]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "lacks study, method, seed, status, config, base"),
        ('{"study": "a", "method": "b", "seed": 0, "status": "finished", "config": "c"}', "lacks base"),
        (line_of(made_row("eto", 1, [1.0], status="fine")), "status: found 'fine'"),
        (line_of(made_row("eto", 0, [1.0])), "method eto and seed 0 stand in line 1 already"),
    ],
)
def test_broken_rows_are_refused_by_their_line(line, words, tmp_path):
    path = tmp_path / "small.jsonl"
    path.write_text(line_of(made_row("eto", 0, [1.0])) + "\n" + line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}:2: ") and words in str(caught.value)


def test_rows_of_another_base_or_study_are_refused(tmp_path):
    cells = plan_study(configs(tmp_path, "eto"), (0,), tmp_path / "runs")
    good = made_row("eto", 0, [1.0], base=None)
    check_rows(tmp_path / "x.jsonl", [good], cells)
    for changed, words in [
        ({"base": "b"}, "base: found 'b' in the row of eto, seed 0"),
        ({"study": "s"}, "study"),
    ]:
        with pytest.raises(ConfigError, match=words):
            check_rows(tmp_path / "x.jsonl", [good | changed], cells)


def test_a_config_that_was_changed_after_its_test_is_refused(tmp_path):
    cells = plan_study(configs(tmp_path, "eto"), (0,), tmp_path / "runs")
    row = made_row("eto", 0, [1.0], base=None, test={"agents": {}})
    check_rows(tmp_path / "x.jsonl", [row | {"config": cells[0].digest}], cells)
    with pytest.raises(ConfigError, match="test tasks are played once for a final config"):
        check_rows(tmp_path / "x.jsonl", [row], cells)
    check_rows(tmp_path / "x.jsonl", [made_row("eto", 0, [1.0], base=None)], cells)  # it has played none


@pytest.mark.parametrize("part", ["test", "sampled"])
def test_only_finished_runs_play_later_and_once(part, tmp_path, monkeypatch):
    arguments = SimpleNamespace(jobs=1, all_cores=False)
    cells = plan_study(configs(tmp_path, "eto", "coevo"), (0,), tmp_path / "runs")
    path = tmp_path / "small.jsonl"
    played = []

    def play(left, part, *, write, **_):
        for cell in left:
            played.append(cell.key)
            write(cell, {"agents": {"target": {"mean_reward": 0.5}}})

    monkeypatch.setattr(actions, "play_finished", play)

    def once():
        actions.play_left(part, cells, read_rows(path), arguments, tmp_path, path)

    with pytest.raises(
        ConfigError, match=r"method eto, seed 0: found no row, expected a finished run of config"
    ):
        once()
    for cell in cells:
        write_row(path, made_row(cell.method, 0, [1.0], config=cell.digest, base=None))
    write_row(path, made_row("eto", 0, [1.0], config="another", base=None))
    with pytest.raises(ConfigError, match="found a row that says finished of config another"):
        once()
    write_row(path, made_row("eto", 0, [1.0], config=cells[0].digest, base=None, status="diverged"))
    with pytest.raises(ConfigError, match="found a row that says diverged"):
        once()
    assert not played
    write_row(path, made_row("eto", 0, [1.0], config=cells[0].digest, base=None))
    once()
    assert played == [("eto", 0), ("coevo", 0)]
    assert [row[part]["agents"]["target"]["mean_reward"] for row in read_rows(path)] == [0.5, 0.5]
    once()
    assert len(played) == 2


def trajectory(task: str, reward: float, ending: Ending = Ending.FAILED) -> Trajectory:
    return Trajectory(
        task_id=task,
        agent="target",
        sample=0,
        prompt="",
        turns=(),
        reward=reward,
        ending=ending,
        tokens=np.zeros(0, np.int32),
        agent_mask=np.zeros(0, bool),
        logps=np.zeros(0, np.float32),
    )


def test_rewards_stand_in_the_order_of_their_tasks():
    played = [trajectory("b", 1 / 3), trajectory("a", 1.0, Ending.SOLVED), trajectory("c", 0, Ending.FAULT)]
    found = task_rewards(played)
    assert found["rewards"] == [1, 0.333, None] and json.dumps(found["rewards"]) == "[1, 0.333, null]"
    assert task_rewards(played[::-1]) == found
    assert task_rewards([*played, trajectory("b", 2 / 3)])["rewards"][1] == 0.5
    other = task_rewards([trajectory("d", 0), *played[1:]])
    assert other["tasks"] != found["tasks"]


def test_an_audit_is_counted_and_its_broken_checks_named():
    checks = [
        Check(name=str(n), state=s, words="")
        for n, s in enumerate(("held", "BROKEN", "held", "not checkable"))
    ]
    assert audit_counts(checks) == {
        "held": 2,
        "broken": 1,
        "not_checkable": 1,
        "words": "2 held, 1 broken, 1 not checkable",
        "broken_checks": ["1"],
    }
    assert "broken_checks" not in audit_counts(checks[:1])


def test_numbers_are_rounded_wherever_they_stand():
    assert rounded({"a": [1 / 3, {"b": (2 / 3, 7, None, "x", True)}]}) == {
        "a": [0.333333, {"b": [0.666667, 7, None, "x", True]}]
    }


@pytest.mark.parametrize(("text", "seeds"), [("5", (0, 1, 2, 3, 4)), ("5:8", (5, 6, 7)), ("0:1", (0,))])
def test_seeds_are_a_number_or_a_range(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["0", "3:3", "5:2", "-1", "a", "1,2", ""])
def test_other_seeds_are_refused(text):
    with pytest.raises(SystemExit) as caught:
        parse(["x.yaml", f"--seeds={text}"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "give the configs of a study"),
        (["rounds=1"], "give the configs of a study"),
        (["--table", "nowhere.md"], "nowhere.md: no such file"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_lines_that_mean_nothing_are_refused(line, words):
    with pytest.raises(ConfigError, match=words):
        main(line)
