"""The preflight of paper-scale configs with the TPU's own compiler, on a machine without a TPU.

The compiler comes with libtpu, which `./launch/test.sh --real "TPU compiler"` installs for these slow tests,
or LIBTPU=/path/to/the/folder/around/it names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import libtpu_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def libtpu() -> Path:
    return libtpu_folder()


def compile_config(libtpu: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(libtpu), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "launch.compile", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_a_7b_with_adapters_fits_its_headers_slice(libtpu, tmp_path):
    config, out = "configs/paper/llama2-7b-webshop-lora.yaml", tmp_path / "out.json"
    done = compile_config(libtpu, config, "--topology", "v5e:4x4", "--json", out)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())
    assert found["fits"] and found["chips"] == 16
    held = found["phases"]["learning"]["resident_gib"]
    # 6,738 million weights in bfloat16 over 16 chips; 40 million of each agent's adapters with their moments.
    assert held["frozen base"] == pytest.approx(6738e6 * 2 / 16 / 2**30, rel=0.01)
    assert held["target: Adam's moments"] == pytest.approx(2 * held["target: parameters"], rel=0.01)
    rollouts = found["phases"]["roll-outs"]["resident_gib"]
    assert rollouts["roll-out copy"] == pytest.approx(6738e6 * 2 / 4 / 2**30, rel=0.01)
    step = found["phases"]["learning"]["programs"]["DPO microbatch"]
    assert 0 < step["own_gib"] < 8
    sent = {one["kind"]: one["sent_gib"] for one in step["collectives"]}
    # The base is gathered in bfloat16, forward and backward, and both times at least once.
    assert sum(sent.values()) > 2 * 6738e6 * 2 * 15 / 16 / 2**30 / 2
    assert 0.2 < step["seconds"]["compute"] < 5 and found["run"]["chip_hours"] > 1


@pytest.mark.slow
def test_what_is_too_large_is_exit_code_1_with_the_arrays(libtpu):
    small = ["model.num_layers=2", "rollout.slots=1024", "rounds=0", "warm_start.tasks=:10"]
    done = compile_config(
        libtpu, "configs/paper/llama2-7b-webshop.yaml", "--topology", "v5e:4x4", "mesh.tensor=1", *small
    )
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-4000:]
    assert "It does not fit: roll-outs" in done.stdout
    assert "slots (KV cache) cache/keys/0" in done.stdout and "lockstep" in done.stdout


@pytest.mark.slow
def test_what_the_compiler_refuses_is_told_with_what_it_needs(libtpu, tmp_path):
    out, config = tmp_path / "out.json", "configs/paper/qwen3-0.6b-intercode-sql.yaml"
    large = ["batch.rows=256", "model.num_layers=1", "rollout.slots=1", "rollout.max_tokens=1024", "rounds=0"]
    done = compile_config(libtpu, config, "--topology", "v5e:1x1", *large, "--json", out)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-4000:]
    step = json.loads(out.read_text())["phases"]["warm start"]["programs"]["SFT microbatch"]
    needed = 256 * 4096 * 1024 * 2 / 2**30  # hidden states of all tokens, of which a step has several
    assert step["refused"] and step["own_gib"] > max(3 * needed, 15.75)
    assert "It does not fit: warm start, SFT microbatch" in done.stdout and "there are 15.75" in done.stdout


@pytest.mark.slow
def test_slices_send_each_other_the_gradients_and_nothing_else(libtpu, tmp_path):
    out, config = tmp_path / "out.json", "configs/paper/qwen3-0.6b-intercode-sql.yaml"
    shape = ["mesh.data=2", "mesh.fsdp=8", "batch.rows=16", "model.num_layers=2", "rollout.max_tokens=1024"]
    done = compile_config(libtpu, config, "--topology", "v5e:2x4", "--slices", 2, *shape, "--json", out)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())
    assert (found["machine"], found["chips"]) == ("v5e:2x4 x 2 slices", 16)
    sent = {
        name: {one["kind"]: one["sent_gib"] for one in program["collectives"]}
        for phase in found["phases"].values()
        for name, program in phase["programs"].items()
    }
    own = 4 * (151936 * 1024 + 2 * (2 * 1024 * 128 * 24 + 3 * 1024 * 3072)) / 8 / 2**30  # a chip's gradients
    step = sent["DPO microbatch"]
    assert step["between slices"] == pytest.approx(2 * own, rel=0.02)  # a part to sum, and the sum
    assert step["all-gather"] > step["between slices"]  # weights, within a slice
    rest = [kinds.get("between slices", 0.0) for name, kinds in sent.items() if "microbatch" not in name]
    assert max(rest) < own / 1000


@pytest.mark.slow
def test_a_copy_over_two_hosts_plays_in_lockstep_on_their_chips(libtpu, tmp_path):
    config, out = "configs/paper/qwen3-32b-webshop-lora.yaml", tmp_path / "out.json"
    done = compile_config(libtpu, config, "--topology", "v5e:4x8", "model.num_layers=2", "--json", out)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "roll-outs over 8 chips of 2 hosts" in " ".join(done.stdout.split())
    found = json.loads(out.read_text())["phases"]["roll-outs"]
    weights = 2 * (2 * 5120 * 128 * (64 + 8) + 3 * 5120 * 25600) + 2 * 151936 * 5120
    assert found["resident_gib"]["roll-out copy"] == pytest.approx(weights * 2 / 8 / 2**30, rel=0.01)
    sent = {one["kind"] for one in found["programs"]["decode"]["collectives"]}
    assert "all-reduce" in sent  # of a copy that no host has whole
