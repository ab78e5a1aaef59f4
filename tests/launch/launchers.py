"""What the tests of the launchers share: how a script is called, and what its dry run would start."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCH = ROOT / "launch"

TRAIN = ["configs/quickstart.yaml", 'name=it\'s a "b" $HOME {{NAME}}', "agents.target.beta=[0.1,0.2]"]

# Every way to start launch.train: the script and options enough for it to start.
STARTS = {
    "host": ["launch/host.sh"],
    "machine": ["launch/gpu/machine.sh", "--gpus", "0,1"],
    "slurm": ["launch/gpu/slurm.sh", "--name", "a1", "--nodes", "2", "--gpus=8", "--time", "8:00:00"],
    "vm": ["launch/tpu/vm.sh", "run", "--name", "a1", "--zone", "us-central1-a", "--type", "v5litepod-8"],
    "gke": [
        "launch/tpu/gke.sh",
        "apply",
        "--name",
        "a1",
        "--type",
        "v6e-8",
        "--image",
        "r/i:1",
        "--claim",
        "c",
    ],
    "xpk": ["launch/tpu/xpk.sh", "create", "--name=a1", "--cluster=c", "--type=v6e-8", "--image=r/i:1"],
}


def call(*words: str, path: Path | None = None, root: Path = ROOT, **environment: str):
    """Run a launcher; `path` holds programs that stand before the machine's own."""
    variables = {**os.environ, "LC_ALL": "C", **environment}
    if path is not None:
        variables["PATH"] = f"{path}:{variables['PATH']}"
    return subprocess.run(
        [root / words[0], *words[1:]], capture_output=True, text=True, env=variables, cwd="/", timeout=60
    )


def dry_run(name: str, *train: str, options: tuple[str, ...] = ()) -> str:
    """What a launcher prints with --dry-run."""
    done = call(*STARTS[name], *options, "--dry-run", *train)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(printed: str) -> list[list[str]]:
    """The printed commands as a shell would read them, without comments."""
    return [shlex.split(line) for line in printed.splitlines() if not line.startswith("#")]


def program(folder: Path, name: str, text: str) -> None:
    """A stand-in for a program that is not here, or must not be called."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}")
    (folder / name).chmod(0o755)
