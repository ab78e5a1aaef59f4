"""Injected faults: the table, and a short form of the whole."""

import pytest

from benchmarks.faults.outcomes import ENTERED, REFUSED, Injected, append_rows, outcome_table, read_rows

ROWS = [
    Injected(fault="a bit flipped", method="eto", where="config.yaml", outcome=REFUSED),
    Injected(fault="a bit flipped", method="grpo", where="config.yaml", outcome=REFUSED, lost=1),
    Injected(fault="lie: NaN", method="eto", where="a step", outcome=ENTERED, entered=2),
]


def test_rows_are_kept_and_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, ROWS[:2])
    append_rows(path, ROWS[2:])
    assert read_rows(path) == ROWS and read_rows(tmp_path / "none.jsonl") == []
    lines = outcome_table(ROWS).splitlines()[2:]
    assert lines == [
        f"| a bit flipped | in process | 2 | 2 | {REFUSED}: 2 | 1 | nothing |",
        f"| lie: NaN | in process | 1 | 1 | {ENTERED}: 1 | nothing | 2 |",
    ]
    assert [row.good for row in ROWS] == [True, False, False]


@pytest.mark.slow
def test_a_few_faults_lose_nothing_and_enter_no_pair(capsys):
    from benchmarks.faults.__main__ import main

    assert main(["--in-process", "12", "--kills", "1", "--methods", "eto", "grpo", "--seed", "7"]) == 0
    assert "0 went another way" in capsys.readouterr().out
