"""`python -m tests.real.slurm FOLDER [PLAY ...]`: launch/gpu/slurm.sh on a real SLURM of two nodes.

Each play submits the letters environment's tiny run as a job of two nodes, does something to it, and checks
what came of it: whether work was committed, whether the job was queued again, and how it ended. JAX runs on
the CPUs. What was typed and what SLURM said is printed; the last line counts the plays that held.
"""

import getpass
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coevo_jax.run_folder.manifest import Manifest, read_manifest
from tests.hosts.runs import QUICK, ROOT
from tests.real.slurm_cluster import NODES, Cluster, wait_for
from tests.tiny import CONFIG

LONG = "warm_start.epochs=10000"  # of a warm start that nobody waits for
TINY = [
    "mesh.data=2",
    "model.num_layers=1",
    "recipe=rft",
    "warm_start={tasks: '0:24', epochs: 60, learning_rate: 1e-3}",
    "explore={tasks: ['40:48'], samples: 2, block_tasks: 8}",
    "evaluate={split: dev, tasks: ':6'}",
    "checkpoint.every_steps=1000000",  # so whatever is committed inside a phase was committed at the end
]


class Plays:
    """A repository with a config in it, and a cluster that runs it."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._root, self.cluster = folder / "repository", cluster
        for name in ("coevo_jax", "configs", "launch", "tests"):
            shutil.copytree(ROOT / name, self._root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.glob("requirements*.txt"):
            shutil.copy(path, self._root)
        config = CONFIG.partition("recipe:")[0] + "agents: {target: {epochs: 1}}\nevaluate: {split: dev}\n"
        config = config.replace("name: letters", "name: 'tests.letters_env:make_letters'")
        (self._root / "configs/tiny.yaml").write_text(config)
        _environment_of(self._root, folder / "venv")
        self._variables = cluster.environment | {
            "COEVO_VENV": str(folder / "venv"),
            "COEVO_CACHE": str(folder / "cache"),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": QUICK,
        }

    def submit(self, name: str, *overrides: str) -> str:
        """The number of a job of two nodes that plays the tiny run under a name."""
        command = ["launch/gpu/slurm.sh", "--name", name, "--nodes", "2", "--cpus", "2", "--time", "1:00:00"]
        command += ["configs/tiny.yaml", f"name={name}", *TINY, *overrides]
        print(f"  $ {' '.join(command[: command.index('configs/tiny.yaml') + 2])} ...", flush=True)
        done = subprocess.run(
            command, cwd=self._root, env=self._variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def manifest(self, name: str) -> Manifest | None:
        """The commit record of a run; None where there is none yet."""
        folder = self._root / "runs" / name
        return read_manifest(folder) if (folder / "manifest.json").is_file() else None

    def steps(self, name: str) -> int:
        """How many optimizer steps of the warm start a run has logged."""
        path = self._root / "runs" / name / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return sum('"warm_start"' in line for line in lines)

    def results(self, name: str) -> dict[str, Any]:
        """What came out of a run, without what its clock said."""
        found = json.loads((self._root / "runs" / name / "results.json").read_text(encoding="utf-8"))
        return {key: found[key] for key in ("explorations", "evaluations") if key in found}

    def log(self, name: str) -> str:
        """What the job's own shell and its hosts said."""
        files = sorted((self._root / "logs" / name).glob("job-*.log"))
        return "".join(file.read_text(encoding="utf-8") for file in files)

    def wait_in_warm_start(self, name: str, number: str) -> None:
        """Wait until the job is in the middle of its warm start."""
        wait_for(f"{name}: 20 steps", lambda: self.steps(name) >= 20 or self.state(number) in OVER)
        assert self.state(number) == "RUNNING", self.log(name)

    def state(self, number: str) -> str:
        """The job's state, as SLURM has it."""
        return self.cluster.job(number).get("JobState", "")

    def ended(self, name: str, number: str) -> dict[str, str]:
        """What SLURM says of a job that is over; prints it."""
        wait_for(f"{name}: the end", lambda: self.state(number) in OVER)
        job = self.cluster.job(number)
        said = {key: job[key] for key in ("JobState", "ExitCode", "Restarts")}
        print(
            f"  {time.strftime('%T')} {' '.join(f'{key}={value}' for key, value in said.items())}", flush=True
        )
        return said

    def committed(self, name: str) -> int:
        """The step at which a run was committed in the middle of its warm start; 0 where it was not."""
        manifest = self.manifest(name)
        if manifest is None or manifest.running is None or manifest.running.name != "warm_start":
            return 0
        return manifest.running.position

    def requeued(self, name: str, number: str) -> int:
        """Wait until the job waits in the queue again; the step that it had committed by then."""
        wait_for(f"{name}: queued again", lambda: self.cluster.job(number).get("Restarts") == "1")
        wait_for(f"{name}: waiting", lambda: self.state(number) in ("PENDING", "RUNNING"))
        step = self.committed(name)
        print(f"  {time.strftime('%T')} Restarts=1, committed at step {step} of the warm start", flush=True)
        assert step > 0, self.log(name)
        return step


OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL")
DONE = {"JobState": "COMPLETED", "ExitCode": "0:0"}


def start(plays: Plays) -> None:
    """Two hosts find each other and take the run to its end."""
    number = plays.submit("start")
    assert plays.ended("start", number) == DONE | {"Restarts": "0"}, plays.log("start")
    assert "process 1 of 2 on" in plays.log("start")


def requeue(plays: Plays) -> None:
    """`scontrol requeue` in mid warm start: committed, queued again, results of an undisturbed run."""
    number = plays.submit("requeue")
    plays.wait_in_warm_start("requeue", number)
    plays.cluster.do("scontrol", "requeue", number)
    plays.requeued("requeue", number)
    assert plays.ended("requeue", number) == DONE | {"Restarts": "1"}, plays.log("requeue")
    assert plays.results("requeue") == plays.results("start")


def preemption(plays: Plays) -> None:
    """A job of a higher partition takes the nodes, with a grace time: as with `scontrol requeue`."""
    number = plays.submit("preemption")
    plays.wait_in_warm_start("preemption", number)
    taker = [
        "sbatch",
        "--parsable",
        "--partition=high",
        "--nodes=2",
        "--gpus-per-node=1",
        "--output=/dev/null",
    ]
    plays.cluster.do(*taker, "--wrap=sleep 5")
    plays.requeued("preemption", number)
    assert "asked to end, as by a preemption; queued again" in plays.log("preemption")
    assert plays.ended("preemption", number) == DONE | {"Restarts": "1"}, plays.log("preemption")
    assert plays.results("preemption") == plays.results("start")


def cancel(plays: Plays) -> None:
    """`scancel`: committed, and not queued again."""
    number = plays.submit("cancel", LONG)
    plays.wait_in_warm_start("cancel", number)
    plays.cluster.do("scancel", number)
    said = plays.ended("cancel", number)
    assert (said["JobState"], said["Restarts"]) == ("CANCELLED", "0")
    wait_for("the hosts' end", lambda: plays.log("cancel").count(": exit code 143") == 2)
    step = plays.committed("cancel")
    print(f"  committed at step {step} of the warm start", flush=True)
    assert step > 0 and "queued again" not in plays.log("cancel")


def time_limit(plays: Plays) -> None:
    """Three minutes remain of the job's time: committed, queued again, and on from there."""
    number = plays.submit("limit", LONG)
    plays.wait_in_warm_start("limit", number)
    hours, minutes, _ = map(int, plays.cluster.job(number)["RunTime"].split(":"))
    plays.cluster.do("scontrol", "update", f"jobid={number}", f"timelimit={hours * 60 + minutes + 4}")
    step = plays.requeued("limit", number)
    plays.cluster.do("scontrol", "update", f"jobid={number}", "timelimit=60")
    assert "the time limit is near; queued again" in plays.log("limit")
    assert plays.log("limit").count(": exit code 143") == 2
    wait_for("further steps", lambda: plays.steps("limit") > step + 5 or plays.state(number) in OVER)
    assert plays.state(number) == "RUNNING", plays.log("limit")
    plays.cluster.do("scancel", number)
    plays.ended("limit", number)


def drained(plays: Plays) -> None:
    """A node is drained under the run: the run goes on to its end, and nothing new begins on the node."""
    number = plays.submit("drained")
    plays.wait_in_warm_start("drained", number)
    plays.cluster.do("scontrol", "update", f"nodename={NODES[1]}", "state=drain", "reason=repair")
    assert plays.ended("drained", number) == DONE | {"Restarts": "0"}, plays.log("drained")
    assert plays.results("drained") == plays.results("start")
    waiting = plays.submit("waiting")
    time.sleep(15)
    print(f"  {time.strftime('%T')} the next job: {plays.cluster.job(waiting)['JobState']}", flush=True)
    assert plays.state(waiting) == "PENDING"
    plays.cluster.do("scancel", waiting)
    plays.cluster.do("scontrol", "update", f"nodename={NODES[1]}", "state=resume")


def lost_node(plays: Plays) -> None:
    """A node goes down under the run: queued again by SLURM; the run begins where it was committed."""
    number = plays.submit("lost")
    plays.wait_in_warm_start("lost", number)
    plays.cluster.do("scontrol", "update", f"nodename={NODES[1]}", "state=down", "reason=lost")
    wait_for("queued again", lambda: plays.cluster.job(number).get("Restarts") == "1")
    # Refused where the node has come back by itself.
    plays.cluster.ask("scontrol", "update", f"nodename={NODES[1]}", "state=resume")
    assert plays.ended("lost", number) == DONE | {"Restarts": "1"}, plays.log("lost")
    assert plays.results("lost") == plays.results("start")


PLAYS: dict[str, Callable[[Plays], None]] = {
    "start": start,
    "requeue": requeue,
    "preemption with grace": preemption,
    "scancel": cancel,
    "time limit": time_limit,
    "a node drained": drained,
    "a node lost": lost_node,
}


def _environment_of(root: Path, venv: Path) -> None:
    """A virtual environment with this one's packages, in which the requirements count as installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = next(venv.glob("lib/python*/site-packages"))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text("".join(f"{path}\n" for path in ours))
    wanted = b"".join((root / name).read_bytes() for name in ("requirements.txt", "requirements-gpu.txt"))
    (venv / ".installed-requirements-gpu.txt").write_text(hashlib.sha256(wanted).hexdigest() + "\n")


def main(folder: Path, *names: str) -> int:
    held = 0
    chosen = names or tuple(PLAYS)
    with Cluster(folder) as cluster:
        plays = Plays(folder, cluster)
        for name in chosen:
            print(f"{name}: {PLAYS[name].__doc__}", flush=True)
            try:
                PLAYS[name](plays)
            except AssertionError as error:
                print(f"  did not hold: {error}", flush=True)
                cluster.ask("scancel", "--user", getpass.getuser())  # what is left of it
            else:
                held += 1
        version = cluster.ask("sinfo", "--version")
    print(f"{version}: {held} of {len(chosen)} plays held ({', '.join(chosen)})")
    return 0 if held == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
