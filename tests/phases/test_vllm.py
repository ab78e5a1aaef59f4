"""Runs through a real vLLM on the CPU: adapters, whole weights, tied and not, and what is refused.

`./launch/test.sh --real vLLM` installs one; COEVO_VLLM=/path/to/its/venv names another.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases import serving as served_phase
from coevo_jax.rollout.endpoint import Endpoint, list_models
from tests.phases.test_serving import LORA, explored, finished, through
from tests.test_backbone_run import backbone, config_on

VLLM = os.environ.get("COEVO_VLLM")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VLLM is None, reason="needs vLLM: ./launch/test.sh --real vLLM"),
    pytest.mark.usefixtures("letters"),
]

LONGEST = 192
# Widths that vLLM's attention on CPUs has.
SHAPE = {
    "hidden_size": 64,
    "head_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "architectures": ["Qwen3ForCausalLM"],  # else vLLM takes it for a model of embeddings
}
GREEDY = ("explore.temperature=0", "explore.samples=1", "recipe=frozen-failure", "evaluate.tasks=':1'")
ADAPTERS = ("--enable-lora", "--max-loras", "2", "--max-lora-rank", "8")


@contextmanager
def serving(folder: Path, log: Path, *options: str, dtype: str = "float32", port: int = 0):
    """A vLLM of a checkpoint folder; gives its address and its process."""
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    own = os.environ | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PATH": f"{VLLM}/bin:{os.environ['PATH']}",
    }
    own.pop("XLA_FLAGS", None)
    own.pop("PYTHONPATH", None)
    command = [f"{VLLM}/bin/vllm", "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--dtype", dtype, "--max-model-len", str(LONGEST), "--max-num-seqs", "8"]
    command += ["--generation-config", "vllm", *options]
    url = f"http://127.0.0.1:{port}/v1"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=own, cwd=log.parent, start_new_session=True
        )
        try:
            wait_until_up(url, process, log)
            yield url, process
        finally:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """End a server and the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_up(url: str, process: subprocess.Popen, log: Path, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            list_models(Endpoint(url=url, timeout=1.0), once=True)
            return
        except ConfigError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(1.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def untied(home):
    return backbone(home / "untied", "qwen3", "qwen3", **SHAPE)


@pytest.fixture(scope="module")
def with_adapters(untied, home):
    with serving(untied, home / "adapters.log", *ADAPTERS) as (url, _):
        yield url


def recorded(run) -> dict:
    paths = sorted((run.folder / "trajectories" / "round-01").glob("*.parquet"))
    return {(t.task_id, t.agent, t.collection, t.sample): t.logps for t in read_trajectories(paths)}


def largest_difference(one, other) -> float:
    """Between the recorded log-probabilities of two runs that wrote the same."""
    ours, theirs = recorded(one), recorded(other)
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[key] - theirs[key]).max()) for key in ours)


def test_adapters_play_the_episodes_of_the_engine(untied, with_adapters, tmp_path):
    local = finished(config_on(tmp_path, untied, LORA, *GREEDY, "rollout.joining=as_ready", "name=local"))
    through_vllm = through("vllm_lora", with_adapters, "timeout: 120.0")
    served = finished(config_on(tmp_path, untied, LORA, *GREEDY, *through_vllm))
    assert explored(served) == explored(local) and len(explored(served)) > 10
    difference = largest_difference(served, local)
    print(f"adapters: {len(explored(served))} episodes equal, log-probabilities within {difference:.2g}")
    assert difference < 1e-4


def test_a_rank_that_the_server_does_not_take_is_known_before_the_warm_start(
    untied, with_adapters, tmp_path, monkeypatch, capsys
):
    config_on(tmp_path, untied)
    wide = "model.lora={rank: 16, warm_start: adapter}"
    arguments = [str(tmp_path / "config" / "tiny.yaml"), f"runs_dir={tmp_path / 'runs'}", wide]
    arguments += ["batch.row_length=192", "rollout.max_tokens=192"]
    monkeypatch.setattr(sys, "argv", ["train", *arguments, *through("vllm_lora", with_adapters)])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "--max-lora-rank" in said and "Traceback" not in said
    (manifest,) = (tmp_path / "runs").glob("*/manifest.json")
    assert [phase["name"] for phase in json.loads(manifest.read_text())["done"]] == ["prepare"]


@pytest.mark.parametrize("family", ["untied", "tied"])
def test_whole_weights_play_the_episodes_of_the_engine(family, home, tmp_path):
    folder = backbone(home / family, "qwen3", "qwen3", **SHAPE, tie_word_embeddings=family == "tied")
    alone = "explore.together=false"
    local = finished(config_on(tmp_path, folder, *GREEDY, alone, "rollout.joining=as_ready", "name=local"))
    with serving(folder, home / f"{family}.log") as (url, _):
        served = finished(
            config_on(tmp_path, folder, *GREEDY, alone, *through("vllm", url, "timeout: 120.0"))
        )
    assert explored(served) == explored(local)
    print(f"{family}: log-probabilities within {largest_difference(served, local):.2g}")
    assert largest_difference(served, local) < 1e-4


def test_a_server_that_keeps_its_head_is_known_before_the_warm_start(home, tmp_path, monkeypatch):
    """With tied embeddings vLLM answers 200 to a reload, and writes with the head that it had before.

    That is why a run sends weights with a head of their own.
    """
    monkeypatch.setattr("coevo_jax.phases.serving.form_of", lambda load, tied: "merged")
    folder = backbone(home / "kept", "qwen3", "qwen3", **SHAPE, tie_word_embeddings=True)
    other = backbone(home / "other", "qwen3", "qwen3", **SHAPE, tie_word_embeddings=True)
    doubled(folder)
    with serving(other, home / "kept.log") as (url, _):
        config = config_on(tmp_path, folder, *GREEDY, "explore.together=false", *through("vllm", url))
        with pytest.raises(ConfigError, match=r"differ from the learner's by up to .* nats"):
            finished(config)
    (manifest,) = (tmp_path / "config" / "runs").glob("*/manifest.json")
    assert [phase["name"] for phase in json.loads(manifest.read_text())["done"]] == ["prepare"]


def doubled(folder: Path) -> None:
    """Other weights of the same shapes."""
    for path in folder.glob("*.safetensors"):
        save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def test_another_type_is_found_out(untied, home, tmp_path):
    """vLLM's own choice for a checkpoint in float32 is bfloat16."""
    with serving(untied, home / "bfloat16.log", *ADAPTERS, dtype="auto") as (url, _):
        config = config_on(tmp_path, untied, LORA, *GREEDY, *through("vllm_lora", url))
        with pytest.raises(ConfigError, match=r"differs? from the learner's by up to .* --dtype float32"):
            finished(config)


def test_two_of_bfloat16_differ_by_no_more_than_its_rounding(untied, home, tmp_path, monkeypatch):
    """With whole weights: random ones as large as these round worse than a trained model's."""
    seen = []
    real = served_phase.differences

    def watched(*arguments, **more):
        seen.extend(real(*arguments, **more))
        return seen

    monkeypatch.setattr(served_phase, "differences", watched)
    with serving(untied, home / "two.log", dtype="bfloat16") as (url, _):
        more = ["explore.together=false", "model.dtype=bfloat16", *through("vllm", url, "timeout: 120.0")]
        finished(config_on(tmp_path, untied, *GREEDY, *more))
    assert len(seen) >= 4 * 16
    print(f"bfloat16: {len(seen)} tokens, log-probabilities within {max(seen):.2g}")


def test_a_server_that_is_killed_stops_the_run_and_a_new_one_goes_on(
    untied, home, tmp_path, monkeypatch, capsys
):
    local = finished(config_on(tmp_path, untied, LORA, *GREEDY, "rollout.joining=as_ready", "name=local"))
    killed = []
    with serving(untied, home / "killed.log", *ADAPTERS) as (url, process):
        from coevo_jax.phases import explore  # where an exploration asks for its agents

        real = explore.serve

        def deadly(*arguments):
            served = real(*arguments)
            killed.append(kill(process))
            return served

        monkeypatch.setattr(explore, "serve", deadly)
        more = through("vllm_lora", url, "timeout: 5.0")
        arguments = [str(tmp_path / "config" / "tiny.yaml"), f"runs_dir={tmp_path / 'config' / 'runs'}", LORA]
        arguments += ["batch.row_length=192", "rollout.max_tokens=192", "warm_start.epochs=1"]
        arguments += ["warm_start.tasks='0:8'", *GREEDY, *more, "name=served"]
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_command(main)
    said = capsys.readouterr().err
    assert killed and stop.value.code == 2 and "continue with --resume" in said and "Traceback" not in said
    monkeypatch.setattr(explore, "serve", real)
    folder = tmp_path / "config" / "runs" / "served"
    port = int(url.rpartition(":")[2].removesuffix("/v1"))
    with serving(untied, home / "again.log", *ADAPTERS, port=port):
        monkeypatch.setattr(sys, "argv", ["train", "--resume", str(folder)])
        run_command(main)
    ends = [json.loads((one / "results.json").read_text()) for one in (local.folder, folder)]
    assert ends[0]["evaluations"] == ends[1]["evaluations"]
