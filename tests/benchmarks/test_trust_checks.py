"""The checks of what the code brings in: found, nothing found, and not checked are told apart."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import trust

LOOKED_UP = {"name": "a", "version": "1", "vulns": []}
KNOWN = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "version": "1", "skip_reason": "not on the index"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([LOOKED_UP], 0, "1 packages, 0 known vulnerabilities, 0 NOT LOOKED UP"),
        ([LOOKED_UP, KNOWN], 1, "| b | 2 | X-1 | 3 |"),
        ([KNOWN, SKIPPED], 1, "1 NOT LOOKED UP: the index has no advisories for c"),
        ([LOOKED_UP, SKIPPED], 2, "error: vulnerabilities: not checked: 2 packages, 0 known"),
    ],
)
def test_what_was_not_looked_up_is_no_clean_bill(monkeypatch, capsys, packages, code, words):
    monkeypatch.setattr(trust, "installed", lambda *_: Path("bin"))
    monkeypatch.setattr(trust, "answer", lambda *_: {"dependencies": packages})
    assert trust.main(["vulnerabilities"]) == code
    assert words in "".join(capsys.readouterr())


@pytest.mark.parametrize("check", trust.CHECKS)
def test_a_tool_that_cannot_be_had_or_says_nothing_is_one_line(monkeypatch, capsys, check):
    def ran(command, **_):
        last = "ERROR: No matching distribution" if "pip" in command else ""
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=f"noise\n{last}")

    monkeypatch.setattr(subprocess, "run", ran)
    assert trust.main([check]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{trust.TOOLS[check]} cannot be installed" in said
    monkeypatch.setattr(trust, "installed", lambda *_: Path("bin"))
    assert trust.main([check]) == 2
    assert "ended with 1 and no answer: noise" in capsys.readouterr().err
