"""One made-up run for the tests of reports."""

from pathlib import Path

import pytest

from tests.report.made_run import make_run


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, shared by the tests: read it, do not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "coevo-0")
