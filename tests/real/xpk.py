"""launch/tpu/xpk.sh beside the real XPK: what its own dry run would give to Kubernetes.

python -m tests.real.xpk FOLDER       XPK is installed there
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.launch.launchers import LAUNCH, STARTS, TRAIN, call, commands

XPK = "xpk==1.16.0"
UNKNOWN = ("v5litepod-1", "v5litepod-4")  # XPK has none; the launcher refuses them
NEVER_RETRIED, RETRIED = (1, 2), (137, 143)  # a crash and a refusal; a lost machine and a preemption
OPTIONS = ("--project=p", "--zone=us-east5-a", "--env=A=b c", "--restarts=7")


def planned(xpk: Path, kind: str, *options: str) -> tuple[dict[str, Any], str, str]:
    """The JobSet that XPK would create for a type, what the launcher printed, and what it warned of."""
    words = [f"--type={kind}" if word.startswith("--type=") else word for word in STARTS["xpk"]]
    done = call(*words, *OPTIONS, *options, "--dry-run", *TRAIN)
    assert done.returncode == 0, done.stderr
    command = commands(done.stdout)[-1]
    shown = subprocess.run(
        [str(xpk), *command[1:], "--dry-run"], capture_output=True, text=True, cwd=xpk.parent, check=False
    )
    assert shown.returncode == 0, f"{shlex.join(command)}\n{shown.stdout}\n{shown.stderr}"
    found = re.search(r"^(apiVersion: jobset.*?)\n\[XPK\]", shown.stdout, re.MULTILINE | re.DOTALL)
    assert found, shown.stdout
    return YAML(typ="safe").load(found[1]), command[-1].removeprefix("--command="), done.stderr


def check(kind: str, jobset: dict[str, Any], command: str, warned: str) -> None:
    """Hosts, restarts, environment and command are what the launcher meant."""
    spec = jobset["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    hosts = re.search(r"has (\d+) hosts", warned)
    assert job["parallelism"] == (int(hosts[1]) if hosts else 1), (kind, job["parallelism"], warned)
    assert spec["failurePolicy"]["maxRestarts"] == 7 and pod["terminationGracePeriodSeconds"] == 120
    assert container["image"] == "r/i:1"
    assert {"name": "A", "value": "b c"} in container["env"]
    assert f"({command})" in container["command"][-1]
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "NotIn"
    values = rule["onExitCodes"]["values"]
    assert {*RETRIED} <= {*values} and not {*NEVER_RETRIED} & {*values}


def main(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    xpk = folder / "venv" / "bin" / "xpk"
    subprocess.run([str(xpk.with_name("pip")), "install", "-q", XPK], check=True)
    os.environ["PATH"] = f"{xpk.parent}:{os.environ['PATH']}"
    kinds = re.findall(
        r"^(\S+) +\d+ +\d+ +\S+ +\S+$", (LAUNCH / "tpu" / "slices.sh").read_text(), re.MULTILINE
    )
    held = 0
    for kind in kinds:
        if kind in UNKNOWN:
            words = [f"--type={kind}" if word.startswith("--type=") else word for word in STARTS["xpk"]]
            done = call(*words, "--dry-run", *TRAIN)
            assert done.returncode == 2 and "XPK knows no" in done.stderr, done.stderr
        else:
            check(kind, *planned(xpk, kind))
        held += 1
        print(f"{kind} holds", flush=True)
    for options in (("--spot",), ("--storage=kept",)):
        check("v6e-8", *planned(xpk, "v6e-8", *options))
        held += 1
    print(f"{held} of {len(kinds) + 2} JobSets held")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
