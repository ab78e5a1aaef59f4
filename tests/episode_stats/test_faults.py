"""Why environments broke: counted by reason, kept with the episodes, told by the audit alike."""

from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.audit.reading import read_episodes
from coevo_jax.audit.statistics import outcome
from coevo_jax.audit.statistics import summary as audited
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.episode_stats.faults import fault_reasons, reason_words
from coevo_jax.episode_stats.summary import summarize
from coevo_jax.report.cast import fault_lines
from coevo_jax.trajectory import Branch, Ending, Trajectory, Turn

FINE = Trajectory(
    task_id="a",
    agent="target",
    sample=0,
    prompt="p",
    turns=(Turn(response="r", action="r", observation="o"),),
    reward=0.25,
    ending=Ending.FAILED,
    tokens=np.arange(3, dtype=np.int32),
    agent_mask=np.array([False, True, True]),
    logps=np.zeros(3, np.float32),
)


def fault(task: str, sample: int, why: str) -> Trajectory:
    return replace(FINE, task_id=task, sample=sample, reward=0.0, ending=Ending.FAULT, fault=why)


EPISODES = [
    FINE,
    fault("b", 1, "KeyError: 'x'\n  at line 3"),
    fault("b", 0, "KeyError: 'x'\n  at line 9"),
    fault("c", 0, "no answer within 60 s"),
    replace(FINE, task_id="d", ending=Ending.LOST, reward=0.0),
]


def test_reasons_are_counted_by_their_first_line():
    reasons = fault_reasons(EPISODES)
    assert reasons == [
        {"reason": "KeyError: 'x'", "count": 2, "first": "b, sample 1"},
        {"reason": "no answer within 60 s", "count": 1, "first": "c, sample 0"},
    ]
    assert reason_words(reasons) == (
        "2 times KeyError: 'x' (first: b, sample 1); 1 time no answer within 60 s (first: c, sample 0)"
    )
    assert fault_reasons([FINE]) == []
    assert fault_reasons([fault("a", 0, "")]) == [{"reason": "unknown", "count": 1, "first": "a, sample 0"}]
    many = [fault(str(n), 0, f"reason {n % 9}") for n in range(40)]
    assert [one["count"] for one in fault_reasons(many)] == [5, 5, 5, 5, 4]
    [long] = fault_reasons([fault("a", 0, "x" * 1000)])
    assert len(long["reason"]) == 200


def test_reasons_are_stored_and_files_without_any_are_as_they_were(tmp_path):
    write_trajectories(tmp_path / "some.parquet", EPISODES)
    write_trajectories(tmp_path / "none.parquet", [FINE])
    assert [one.fault for one in read_trajectories([tmp_path / "some.parquet"])] == [
        *("", "KeyError: 'x'\n  at line 3", "KeyError: 'x'\n  at line 9", "no answer within 60 s", "")
    ]
    assert "fault" not in read_columns(tmp_path / "none.parquet")
    branch = Branch(collection="target", sample=0, turns=1, tokens=2)
    both = [replace(EPISODES[1], branch=branch), FINE]
    write_trajectories(tmp_path / "both.parquet", both)
    [broken, fine] = read_trajectories([tmp_path / "both.parquet"])
    assert (broken.branch, broken.fault, fine.branch, fine.fault) == (branch, both[0].fault, None, "")


def read_columns(path):
    import pyarrow.parquet as pq

    return pq.read_schema(path).names


@pytest.mark.parametrize("episodes", [EPISODES, [FINE], [fault(str(n), n, f"r{n % 7}") for n in range(20)]])
def test_a_summary_has_the_reasons_that_the_audit_finds(episodes, tmp_path):
    found = summarize(episodes, hard_negative_threshold=0.6, seed=0)
    assert ("fault_reasons" in found) == any(one.ending is Ending.FAULT for one in episodes)
    write_trajectories(tmp_path / "a.parquet", episodes)
    own = [outcome(one) for one in read_episodes(tmp_path / "a.parquet", ("turns", "agent_mask"))]
    assert audited(own, 0.6, 0).get("fault_reasons") == found.get("fault_reasons")


def test_pages_say_why():
    summaries = [summarize(EPISODES, hard_negative_threshold=0.6, seed=0), {"faults": 0}]
    [line] = fault_lines(summaries, ["Round 1 · Target", "Round 2 · Target"])
    assert line.startswith("Round 1 · Target: 4 faults: 2 times KeyError: 'x' (first: b, sample 0); ")
