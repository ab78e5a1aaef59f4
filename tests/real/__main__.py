"""What the tests of every day cannot have: real servers and search engines, installed for the purpose.

`./launch/test.sh --real` runs it, outside CI: it needs a network and takes minutes. Each part installs what
it needs in a temporary folder. What held is written to docs/real.md with the date and the versions; the exit
code is 1 where something did not.

COEVO_SPIDER and COEVO_MYSQL_ANSWERS, where they are set, let MySQL's part compare the real data's golds and
kept answers, too (tests/envs/test_sql_server.py).
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import requires
from pathlib import Path

from tests.real.model_files import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "docs" / "real.md"
ASSEMBLER = "nvidia-cuda-nvcc==13.5.37"
HEAD = """# What held against the real things

Written by `./launch/test.sh --real`, the newest run of each part.

| part | date | held | with | took |
|---|---|---|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a part."""

    held: bool
    said: str  # its last line, or the version it ran against
    seconds: float


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Run a command from the repository's root, show what it says at once; its exit code and its words."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        said.append(line)
    return process.wait(), "".join(said)


def mysql(folder: Path) -> tuple[bool, str]:
    """The emulation of MySQL beside a real server, and the environment on that server."""
    code, said = run(["tests/real/mysqld.sh", str(folder)])
    version = re.search(r"Ver (\S+)", said)
    if code or version is None:
        return False, "mysqld could not be had"
    test = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", "tests/envs/test_sql_server.py"]
    code, said = run(test, COEVO_MYSQLD=str(folder / "mysqld"))
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]*", said)
    return code == 0, f"MySQL {version[1]}: {counted[-1] if counted else 'no summary'}"


def search(folder: Path) -> tuple[bool, str]:
    """WebShop's search beside Pyserini's."""
    code, said = run([sys.executable, "-m", "tests.real.webshop_search"], TMPDIR=str(folder))
    equal = re.findall(r"\d+ of \d+ equal", said)
    return code == 0, f"Pyserini 1.6.0: {' queries, '.join(equal)} terms" if equal else "no answer"


def replays(folder: Path) -> tuple[bool, str]:
    """Stored episodes of every environment played again, 200 of each, in threads and in processes."""
    test = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", "tests/envs/test_replayed.py"]
    code, said = run(test, COEVO_REPLAYED="200")
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]*", said)
    return code == 0, f"200 episodes each: {counted[-1] if counted else 'no summary'}"


def slurm(folder: Path) -> tuple[bool, str]:
    """launch/gpu/slurm.sh on a SLURM of two nodes that is started here."""
    code, said = run([sys.executable, "-m", "tests.real.slurm", str(folder)])
    return code == 0, said.strip().splitlines()[-1]


def xpk(folder: Path) -> tuple[bool, str]:
    """What the real XPK would give to Kubernetes for launch/tpu/xpk.sh's commands."""
    code, said = run([sys.executable, "-m", "tests.real.xpk", str(folder)])
    return code == 0, f"xpk 1.16.0: {said.strip().splitlines()[-1]}"


def newest_python(folder: Path) -> tuple[bool, str]:
    """The default suite, or the tests that COEVO_REAL_TESTS names, on Python 3.13 and the newest jax."""
    chosen = os.environ.get("COEVO_REAL_TESTS", "").split()
    code, said = run(["tests/real/python313.sh", str(folder), "-n", "2", *chosen])
    versions = re.search(r"^versions: (\S+) (jax \S+)$", said, re.MULTILINE)
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]* in [^\n]*", said)
    if versions is None or not counted:
        return False, "a system with Python 3.13 could not be had"
    tests = " ".join(chosen) or "the default suite"
    return code == 0, f"{versions[2]} on its Python {versions[1]}: {tests}: {counted[-1]}"


def tpu_compiler(folder: Path) -> tuple[bool, str]:
    """The kernels, a whole step, the preflight and a cell of its page by the compiler of TPUs."""
    (wanted,) = [line.split(";")[0].strip() for line in requires("jax") or [] if line.startswith("libtpu")]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    code, _ = run([*pip, "--target", str(folder), wanted])
    if code:
        return False, f"{wanted} could not be had"
    files = ("models/test_flash_attention.py", "preflight/test_tpu.py", "preflight/test_scaling.py")
    test = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", *(f"tests/{file}" for file in files)]
    code, said = run(test, LIBTPU=str(folder))
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]*", said)
    return code == 0, f"{wanted}: {counted[-1] if counted else 'no summary'}"


def gpu_compiler(folder: Path) -> tuple[bool, str]:
    """The kernels, a learning step and its collectives by the compiler of NVIDIA GPUs, and its assembler."""
    lines = (ROOT / "requirements-gpu-compiler.txt").read_text().split()
    wanted = [line for line in lines if line.startswith("jax-cuda")]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    code, _ = run([*pip, "--target", str(folder), *wanted, ASSEMBLER])
    if code:
        return False, f"{wanted[0]} could not be had"
    test = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", "tests/preflight/test_gpu_compiler.py"]
    code, said = run(test, GPU_COMPILER=str(folder))
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]*", said)
    return code == 0, f"{wanted[0]}, {ASSEMBLER}: {counted[-1] if counted else 'no summary'}"


def openenv(folder: Path) -> tuple[bool, str]:
    """The client of OpenEnv beside real servers, by every check of conformance."""
    code, said = run([sys.executable, "-m", "tests.real.hubs", "openenv", str(folder)])
    counted = re.findall(r"^([^\n:]+): (\d+) passed, (\d+) failed", said, re.MULTILINE)
    servers = "; ".join(f"{name} {passed} passed, {failed} failed" for name, passed, failed in counted)
    return code == 0, f"openenv 0.10.0: {servers or 'no server'}"


def textarena(folder: Path) -> tuple[bool, str]:
    """TextArena's games by every check of conformance, and their tests."""
    code, said = run([sys.executable, "-m", "tests.real.hubs", "textarena", str(folder)])
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]*", said)
    return code == 0, f"textarena 0.7.4: {counted[-1] if counted else 'no summary'}"


def vllm(folder: Path) -> tuple[bool, str]:
    """Runs through vLLM on the CPU: adapters, whole weights with tied embeddings and without."""
    venv = Path(os.environ.get("COEVO_VLLM", folder / "venv"))  # one that tests/real/vllm.sh has made before
    code, said = run(["tests/real/vllm.sh", str(venv)])
    version = re.search(r"^(vllm \S+)", said, re.MULTILINE)
    if code or version is None:
        return False, "vLLM could not be had"
    test = [sys.executable, "-m", "pytest", "-n", "0", "-s", "-m", "slow", "tests/phases/test_vllm.py"]
    code, said = run(test, COEVO_VLLM=str(venv))
    seen = re.findall(r"^\.?(\w+: [^\n]*within \S+)", said, re.MULTILINE)
    counted = re.findall(r"\d+ (?:passed|failed|skipped)[^\n]*", said)
    return code == 0, f"{version[1]}: {'; '.join([*seen, counted[-1] if counted else 'no summary'])}"


def bucket(folder: Path) -> tuple[bool, str]:
    """Checkpoints on an emulator of Google Cloud Storage, killed, gone on with, forked and damaged."""
    code, said = run([sys.executable, "-m", "tests.real.bucket", str(folder)])
    counted = re.findall(r"^\d+ objects [^\n]*", said, re.MULTILINE)
    return code == 0, f"gcp-storage-emulator 2026.7.19: {counted[-1] if counted else 'no answer'}"


QUICK = {  # programs that compile soonest, each once: real vocabularies on tiny models
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "HF_HUB_OFFLINE": "1",
}


def tokenizers(folder: Path) -> tuple[bool, str]:
    """Real tokenizers and templates of every family, and a round, an export and a next run with each."""
    cache = str(folder / "jax")
    command = [sys.executable, "-m", "tests.real.families", str(folder)]
    code, said = run(command, JAX_COMPILATION_CACHE_DIR=cache, **QUICK)
    return code == 0, f"{'; '.join(VERSIONS)}: {said.strip().splitlines()[-1]}"


def exports(folder: Path) -> tuple[bool, str]:
    """Exports in transformers 4, in the pinned one and in llama.cpp's converter."""
    cache = str(folder / "jax")
    command = [sys.executable, "-m", "tests.real.exports", str(folder)]
    code, said = run(command, JAX_COMPILATION_CACHE_DIR=cache, **QUICK)
    seen = re.findall(r"^(?:transformers \d|llama\.cpp's converter).*", said, re.MULTILINE)
    return code == 0, "; ".join(seen) or "no export"


PARTS = {
    "MySQL": mysql,
    "WebShop's search": search,
    "Replays": replays,
    "SLURM": slurm,
    "XPK": xpk,
    "TPU compiler": tpu_compiler,
    "GPU compiler": gpu_compiler,
    "Python 3.13": newest_python,
    "OpenEnv": openenv,
    "TextArena": textarena,
    "vLLM": vllm,
    "Bucket": bucket,
    "Tokenizers": tokenizers,
    "Exports": exports,
}


def play(part: str) -> Outcome:
    """Run a part in a folder of its own, which goes afterwards."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        held, said = PARTS[part](Path(folder))
    return Outcome(held=held, said=said, seconds=time.monotonic() - began)


def write(outcomes: dict[str, Outcome]) -> None:
    """Put the outcomes into the log; parts that did not run keep their rows."""
    kept = {}
    if LOG.is_file():
        for line in LOG.read_text(encoding="utf-8").splitlines():
            name = line.removeprefix("| ").partition(" |")[0]
            kept |= {name: line} if name in PARTS else {}
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    for part, one in outcomes.items():
        said = one.said.replace("|", "/")
        python = f"Python {platform.python_version()}"
        held = "yes" if one.held else "**no**"
        kept[part] = f"| {part} | {now} | {held} | {said}; {python} | {one.seconds:.0f} s |"
    LOG.write_text(HEAD + "".join(f"{kept[part]}\n" for part in PARTS if part in kept), encoding="utf-8")


def main(parts: list[str]) -> int:
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"error: no part {unknown[0]!r}; expected {', '.join(PARTS)}", file=sys.stderr)
        return 2
    outcomes = {part: play(part) for part in parts or PARTS}
    write(outcomes)
    print(LOG.read_text(encoding="utf-8"))
    return 0 if all(one.held for one in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
