"""Weights & Biases: asked for or not imported, one id for a run's life, every line once."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import coevo_jax.run_folder.wandb_log as wandb_log
from coevo_jax.config.strict import ConfigError
from coevo_jax.phases.world import check_world
from coevo_jax.run_folder.metrics import METRICS_FILE, MetricsLog
from coevo_jax.run_folder.results import load_results
from coevo_jax.run_folder.wandb_log import IDENTITY, WandbLog
from tests.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[2]
ASKED = "log.wandb={project: agents}"

# A run whose process is killed after an uncommitted step, then resumed: its W&B run, on disk.
PLAYED = """
import sys
from pathlib import Path
from coevo_jax.run_folder.run import create_run, open_run
from tests.tiny import tiny_config

folder = Path(sys.argv[1])
run = create_run(tiny_config(folder, "log.wandb={project: agents}"))
run.log.write(1, "warm_start", {"warm_start/loss": 2.0})
run.close()
run = open_run(run.folder)
run.log.write(1, "warm_start", {"warm_start/loss": 2.0})
run.log.write(2, "warm_start", {"warm_start/loss": 1.0})
run.close()
"""


@pytest.fixture
def wandb(monkeypatch):
    """In the place of the package: what it was told."""
    told: dict[str, Any] = {"inits": [], "rows": [], "axes": [], "summary": {}}
    run = SimpleNamespace(
        log=lambda values, step: told["rows"].append((step, values)),
        define_metric=lambda name, step_metric: told["axes"].append((name, step_metric)),
        summary=told["summary"],
        finish=lambda: None,
    )

    def init(**options):
        told["inits"].append(options)
        return run

    class WandbError(Exception):
        pass

    package = SimpleNamespace(
        init=init, Settings=lambda **options: options, errors=SimpleNamespace(Error=WandbError)
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(wandb_log, "find_spec", lambda _name: True)
    return told


def opened(folder: Path, log: MetricsLog) -> WandbLog:
    watcher = WandbLog(folder, tiny_config(folder, ASKED))
    log.followers = [watcher.write]
    return watcher


def test_a_run_that_does_not_ask_for_it_needs_no_package_and_one_that_does_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_log, "find_spec", lambda _name: None)
    wandb_log.check_wandb(tiny_config(tmp_path))
    with pytest.raises(ConfigError, match=r"log\.wandb: .* pip install -r requirements-wandb\.txt"):
        check_world(tiny_config(tmp_path, ASKED))


def test_a_resumed_run_keeps_its_id_and_counts_on_where_its_log_does(tmp_path, wandb):
    with MetricsLog(tmp_path / METRICS_FILE) as log:
        opened(tmp_path, log)
        log.write(1, "warm_start", {"warm_start/loss": 2.0})
        committed = log.offset()
        log.write(2, "warm_start", {"warm_start/loss": 1.5})  # never committed
    with MetricsLog(tmp_path / METRICS_FILE) as log:
        log.truncate(committed)
        opened(tmp_path, log)
        log.write(2, "warm_start", {"warm_start/loss": 1.5})
        log.write(1, "round-01/learn_target", {"target/loss": 0.5})
    first, second = wandb["inits"]
    assert first["id"] == second["id"] and len(first["id"]) == 16
    assert first["resume"] == "allow" and first["mode"] == "offline" and first["project"] == "agents"
    assert [step for step, _ in wandb["rows"]] == [1, 2, 2, 3]  # W&B ignores a row that it has had
    assert wandb["rows"][0][1] == {"warm_start/loss": 2.0, "warm_start/step": 1}
    assert wandb["rows"][-1][1] == {"target/loss": 0.5, "target/step": 1}
    assert ("warm_start/*", "warm_start/step") in wandb["axes"]


def test_a_fork_tells_of_the_lines_it_begins_with(tmp_path, wandb):
    with MetricsLog(tmp_path / METRICS_FILE) as log:
        log.write(1, "warm_start", {"warm_start/loss": 2.0})
        opened(tmp_path, log)
        assert [step for step, _ in wandb["rows"]] == [1]
        opened(tmp_path, log)
    assert [step for step, _ in wandb["rows"]] == [1]


def test_the_summary_has_the_newest_results(tmp_path, wandb):
    (tmp_path / "results.json").write_bytes((ROOT / "tests" / "report" / "earlier_results.json").read_bytes())
    results = load_results(tmp_path)
    with MetricsLog(tmp_path / METRICS_FILE) as log:
        opened(tmp_path, log).show(results)
    last = results["evaluations"][-1]
    assert wandb["summary"][f"eval/{last['agent']}/mean_reward"] == last["mean_reward"]


def test_what_wandb_refuses_is_a_user_error(tmp_path, wandb, monkeypatch):
    package: Any = sys.modules["wandb"]

    def refuse(**_options):
        raise package.errors.Error("no API key configured")

    monkeypatch.setattr(package, "init", refuse)
    with pytest.raises(ConfigError, match=r"log\.wandb: no API key configured"):
        WandbLog(tmp_path, tiny_config(tmp_path, ASKED))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed (requirements-wandb.txt)")
def test_the_package_itself_writes_a_run_and_its_resumption_offline(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PLAYED, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *map(Path, sys.path)]))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "tiny"
    identity = (folder / IDENTITY).read_text().split('"')[3]
    files = sorted(folder.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(files) >= 1
    assert all(b"warm_start/loss" in path.read_bytes() for path in files)
    assert done.stdout == ""
