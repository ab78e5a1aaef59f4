"""A SLURM cluster of two nodes on this machine, in a folder of its own, from Debian's packages.

Needs Debian's apt-get, as root, and a network. Nothing is installed: the packages are unpacked. Each node has
one GPU, as far as SLURM can tell, and a name that resolves nowhere: only its address leads to it.
"""

import getpass
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

NODES = ("rack1-node1-ib", "rack1-node2-ib")
PATIENCE = 600.0  # seconds that anything may take on a busy machine
CONF = """\
ClusterName=test
SlurmctldHost={host}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
PluginDir={files}/usr/lib/x86_64-linux-gnu/slurm-wlm
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
MinJobAge=3600
NodeName={nodes[0]} NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=8 Gres=gpu:1
NodeName={nodes[1]} NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=8 Gres=gpu:1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=300 MaxTime=INFINITE
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


class Cluster:
    """The cluster while it runs, as a context. `environment` is what a user's shell has there.

    Args:
      folder: its own; the path is short, since a socket lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self._files, self._folder = folder / "files", folder / "slurm"
        path = f"{self._files}/usr/sbin:{self._files}/usr/bin:{os.environ['PATH']}"
        libraries = f"{self._files}/usr/lib/x86_64-linux-gnu"
        self.environment = os.environ | {
            "PATH": path,
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm",
            "SLURM_CONF": str(self._folder / "slurm.conf"),
        }
        self._stack = ExitStack()

    def __enter__(self) -> "Cluster":
        _unpack(self._files)
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:  # jobs end with their cluster
            self.ask("scancel", "--user", getpass.getuser())
            wait_for("the end of all jobs", lambda: not self.ask("squeue", "--noheader"))

    def _start(self) -> None:
        for folder in (self._folder, self._folder / "state"):
            folder.mkdir()
        (self._folder / "slurm.conf").write_text(
            CONF.format(
                host=socket.gethostname(),
                user=getpass.getuser(),
                folder=self._folder,
                files=self._files,
                ports=_free_ports(3),
                nodes=NODES,
            )
        )
        (self._folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File=/dev/null\n")
        key = self._folder / "munge.key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o600)
        munge = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "munge.log"}
        munge |= {"pid-file": "munge.pid", "seed-file": "munge.seed"}
        named = [f"--{name}={self._folder / file}" for name, file in munge.items()]
        self._daemon("munged", "--foreground", "--force", *named)
        wait_for("munge's socket", (self._folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D", "-c")
        step = f"{self._files}/usr/sbin/slurmstepd"
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node, "-d", step)
        wait_for("two nodes", lambda: self.ask("scontrol", "show", "nodes").count("SlurmdStartTime=2") == 2)
        wait_for("two idle nodes", lambda: self.ask("sinfo", "-h", "-p", "low", "-o", "%t %D") == "idle 2")
        time.sleep(2)  # they count as idle a moment before they take work

    def _daemon(self, *command: str) -> None:
        process = subprocess.Popen(
            [f"{self._files}/usr/sbin/{command[0]}", *command[1:]],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def ask(self, *command: str) -> str:
        """What a command of SLURM's prints; nothing where it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def do(self, *command: str) -> str:
        """Give a command that has to succeed; what it prints."""
        print(f"  {time.strftime('%T')} $ {' '.join(command)}", flush=True)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says, by field."""
        words = self.ask("scontrol", "--oneliner", "show", "job", number).split(" ")
        return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def wait_for(what: str, there: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
      AssertionError: it was not so within PATIENCE.
    """
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.5)


def _unpack(files: Path) -> None:
    """Debian's packages, without installing them."""
    packages = files.with_name("packages")
    (packages / "partial").mkdir(parents=True)
    options = [f"Dir::Cache::archives={packages}", "APT::Install-Recommends=false", "APT::Sandbox::User="]
    chosen = ["slurmctld", "slurmd", "slurm-client", "munge"]
    given = [word for option in options for word in ("-o", option)]
    subprocess.run(["apt-get", "-qq", "update"], check=False)  # an old list will do
    get = ["apt-get", "-qq", *given, "install", "--yes", "--reinstall", "--download-only"]
    subprocess.run([*get, *chosen], check=True)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, files], check=True)
    for name in ("slurmctld", "slurmd", "slurmstepd"):  # which look at the name that they are called by
        (files / "usr/sbin" / name).symlink_to(f"{name}-wlm")


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
