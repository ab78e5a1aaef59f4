"""What the README promises: its example of one's own loss runs as printed, its table is current."""

import json
import re
import sys
from pathlib import Path

import pytest

from coevo_jax.commands.train import main
from coevo_jax.learning.loss_table import loss_markdown
from tests.tiny import CONFIG

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


@pytest.mark.slow
def test_the_example_of_an_own_loss_trains(tmp_path, monkeypatch, letters):
    """As a user would do it, on the toy environment in the quickstart's place."""
    section = README.partition("<!-- example:own-loss -->")[2]
    code, config = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1] for kind in ("python", "yaml"))
    command = re.search(r"```\n(.*launch\.train (\S+))\n```", section)
    assert len((code + config + command[1]).splitlines()) < 30
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text(CONFIG)
    (tmp_path / "my_losses.py").write_text(code)
    (tmp_path / command[2]).write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["recipe=eto", "warm_start.epochs=3"]
    main([command[2], *small, "model.num_layers=1"])
    sys.modules.pop("my_losses")
    results = json.loads((tmp_path / "runs" / "gap-hinge" / "results.json").read_text())
    assert results["config"]["agents"]["target"]["loss"] == "my_losses:gap_hinge"
    assert [e["round"] for e in results["evaluations"]] == [0, 1]


def test_the_table_of_losses_is_current():
    found = README.partition("<!-- table:losses -->\n")[2].partition("\n<!-- /table -->")[0]
    assert found == loss_markdown(), "run python -m benchmarks.losses"


@pytest.mark.parametrize("words", ["launch.sweep", "benchmarks.losses"])
def test_the_commands_it_names_exist(words):
    assert words in README
    root = Path(__file__).resolve().parent.parent
    assert (root / (words.replace(".", "/") + ".py")).is_file()
