"""What XLA's own compiler says of NVIDIA GPUs, on a machine without one.

It comes with requirements-gpu-compiler.txt, which `./launch/test.sh --real "GPU compiler"` installs for the
slow tests, or GPU_COMPILER=/path/to/the/folder/around/it names; there is NVIDIA's assembler, too.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coevo_jax.commands import compile as command
from coevo_jax.config.strict import ConfigError
from coevo_jax.machine import chips
from coevo_jax.machine.chips import BY_NAME, find_machine
from coevo_jax.machine.gpus import FRACTION, GPUS, target
from tests.tiny import write_config

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "models" / "gpu_compile.py"
GIB = 2**30
PRODUCTS = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")


@pytest.mark.parametrize("name", GPUS)
def test_every_card_is_described_whole(name):
    gpu, text = GPUS[name], target(GPUS[name])
    assert text.count("{") == text.count("}")
    words = [f"core_count: {gpu.cores}", f"device_memory_size: {gpu.memory}", f'name: "{gpu.kind}"']
    assert all(word in text for word in words)
    assert ("ACCELERATED" in text) == (gpu.capability >= (9, 0))
    assert BY_NAME[name].memory == int(gpu.memory * FRACTION) and chips.CHIPS[gpu.kind] is BY_NAME[name]


def test_without_the_compiler_the_cpus_stands_in(monkeypatch):
    monkeypatch.setattr(chips, "has_gpu_compiler", lambda: False)
    machine = find_machine("h100:1")
    assert machine.stand_in and machine.platform == "gpu" and machine.memory == BY_NAME["h100"].memory


def test_slices_are_of_tpus(tmp_path):
    for topology, slices in (("h100:8", 2), (None, 2), ("v5e:2x2", 0)):
        with pytest.raises(ConfigError, match=f"--slices {slices}: found .*, expected 1, or more slices of"):
            find_machine(topology, slices)
    page = tmp_path / "page.md"
    with pytest.raises(ConfigError, match="--slices: a table's machines are those of the configs' headers"):
        command.parse([str(write_config(tmp_path)), "--slices", "2", "--table", str(page)])


@pytest.mark.parametrize(
    ("dies", "code"), [("os._exit(0)", 0), ("os._exit(1)", 1), ("os._exit(2)", 2), ("os.abort()", None)]
)
def test_a_compiler_that_ends_its_process_is_one_message(dies, code, monkeypatch, tmp_path):
    monkeypatch.setattr("coevo_jax.machine.gpus.has_gpu_compiler", lambda: True)
    monkeypatch.setattr(command, "COMMAND", f"import os; {dies}")
    arguments = [str(write_config(tmp_path)), "--topology", "h100:1"]
    if code is not None:
        assert command.main(arguments) == code
        return
    with pytest.raises(ConfigError, match=r"the GPU's compiler ended its process \(SIGABRT\)"):
        command.main(arguments)


@pytest.fixture(scope="module")
def compiler() -> Path:
    if "GPU_COMPILER" not in os.environ:
        pytest.skip("GPU_COMPILER is not set: the folder around the compiler for GPUs")
    return Path(os.environ["GPU_COMPILER"])


def compiled(compiler: Path, out: Path, card: str, *what: str, flags: str = ""):
    environment = {**os.environ, "PYTHONPATH": str(compiler), "XLA_FLAGS": flags}
    command = [sys.executable, SCRIPT, out, card, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("card", ["a100", "h100", "b200"])
def test_kernels_are_compiled_without_spilling_registers(card, compiler, tmp_path):
    dump = tmp_path / "dump"
    made = compiled(compiler, tmp_path / "out.json", card, "kernels", flags=f"--xla_dump_to={dump}")
    names = "tree_attention_d_keys tree_attention_d_queries tree_attention_forward"
    assert made == [names] * 4
    found = [path for path in dump.glob("*.ptx") if ".entry tree_attention" in path.read_text()]
    assert len(found) == 12
    (assembler,) = compiler.glob("nvidia/*/bin/ptxas")
    products = []
    for path in found:
        text = path.read_text()
        architecture = re.search(r"^\.target (\w+)", text, re.MULTILINE)
        arguments = ["-v", "--gpu-name", architecture[1], path, "-o", os.devnull]
        said = subprocess.run([assembler, *arguments], capture_output=True, text=True, check=True).stderr
        (name,) = re.findall(r"\.entry (tree_attention_\w+)\(", text)
        products.append({word for word in PRODUCTS if word in text})
        print(card, name, products[-1], re.findall(r"Used \d+ registers", said))
        spilled = [int(count) for count in re.findall(r"(\d+) bytes spill", said)]
        assert spilled == [0, 0], f"{name} in {path.name}: {said}"
    assert all(products)
    if card == "h100":  # blocks of 64 tokens, in the first two cases, are products of a whole group of warps
        assert sum("wgmma.mma_async" in one for one in products) >= 6


@pytest.mark.slow
def test_a_microbatch_has_few_launches_and_no_float32_product(compiler, tmp_path):
    found = compiled(compiler, tmp_path / "out.json", "h100", "step")
    print(f"\ntemporaries {found['temporary_bytes'] / GIB:.2f} GiB, fusions {found['fusions_of_layers']}")
    assert found["temporary_bytes"] < 3.2 * GIB
    assert found["products"] == ["bf16 bf16"]
    forward, backward = sorted(found["fusions_of_layers"])
    assert forward <= 30 and backward <= 80


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["1024", "4096"])
def test_a_token_of_64_slots_reads_weights_and_caches_about_once(tokens, compiler, tmp_path):
    found = compiled(compiler, tmp_path / "out.json", "h100", "decode", tokens)
    times = found["bytes"] / found["weights_and_cache"]
    print(
        f"\n64 slots of {tokens}: {found['bytes'] / GIB:.2f} GiB, {times:.3f} times weights and cache; of it"
    )
    print("\n".join(f"{share:.3f} {what}" for what, share in found["largest"].items()))
    assert 1 < times <= 1.2
    assert found["temporary_bytes"] < 0.02 * found["weights_and_cache"]  # no copy of a cache


@pytest.mark.slow
def test_under_fsdp_gradients_are_sent_once_and_weights_gathered(compiler, tmp_path):
    found = compiled(compiler, tmp_path / "out.json", "h100", "fsdp")
    assert found["reduce-scatter"] == pytest.approx(4, rel=1e-3)  # float32
    assert 2 * 1.9 < found["all-gather"] + 2 < 2 * 3.1  # bfloat16, of layers forward and backward
