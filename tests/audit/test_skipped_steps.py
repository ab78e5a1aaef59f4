"""A run that skips steps: its audit holds, and killed in their midst it ends in the same bits."""

import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.run_folder.manifest import SKIPPED
from coevo_jax.run_folder.run import create_run
from tests.audit.breaking import states
from tests.measured import curve
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

OPTIONS = (
    "agents.target.loss=tests.audit.own_losses:far_apart",
    *("optimizer.nonfinite=skip", "batch.pairs=2", "explore.tasks=['40:52']", "checkpoint.keep=all"),
    *("warm_start.epochs=5", "model.num_layers=1", "evaluate.tasks=':9'"),
)
LEARN = "round-01/learn_target"


def exactly(folder):
    """The log with its numbers spelled: one that is none equals itself then."""
    return [
        (phase, step, {name: repr(one) for name, one in own.items()}) for phase, step, own in curve(folder)
    ]


def test_skipped_steps_are_counted_kept_and_the_same_after_kills(tmp_path, monkeypatch):
    unhurt = create_run(tiny_config(tmp_path / "whole", *OPTIONS))
    coevolve(unhurt)
    [record] = [one for one in unhurt.manifest.done if one.name == LEARN]
    skipped = record.records[SKIPPED]
    assert 1 < len(skipped) < record.position  # some steps are taken
    assert all(one["cause"] == "pair" for one in skipped)
    found = states(unhurt.folder)
    assert found[f"nonfinite/{LEARN}"] == found[f"adam/{LEARN}"] == "held"
    assert "broken" not in {state.lower() for state in found.values()}

    def of_learning(found) -> bool:
        return found.running is not None and found.running.name == LEARN

    kill_at_commits(monkeypatch, "before", first=2, every=3, counted=of_learning)
    run, kills = coevolve_through_kills(create_run(tiny_config(tmp_path / "killed", *OPTIONS)))
    assert kills > 2
    assert exactly(run.folder) == exactly(unhurt.folder)
    names = sorted(path.relative_to(unhurt.folder) for path in unhurt.folder.glob("nonfinite/*.parquet"))
    assert len(names) == len(skipped)
    for name in names:
        assert (run.folder / name).read_bytes() == (unhurt.folder / name).read_bytes(), name
    unhurt.close()
    run.close()
