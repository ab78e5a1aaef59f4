"""The launchers before they start anything: their dry runs, their words on errors, what linters say."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from coevo_jax.config.reading import load_config
from coevo_jax.machine.gpus import FRACTION
from tests.launch.launchers import LAUNCH, ROOT, STARTS, TRAIN, call, commands, dry_run

SCRIPTS = [*sorted(str(path.relative_to(ROOT)) for path in LAUNCH.rglob("*.sh")), "launch/gpu/job.sbatch"]
TAKEN = "XLA_PYTHON_CLIENT_MEM_FRACTION"
COMMANDS = [script for script in SCRIPTS if "usage()" in (ROOT / script).read_text()]


def linter(name: str) -> str:
    """A linter from the development requirements or the system; the test is skipped where there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (requirements-dev.txt)")
    return found


def test_shellcheck_finds_nothing():
    command = [linter("shellcheck"), "--external-sources", *SCRIPTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_nothing():
    done = subprocess.run([linter("hadolint"), LAUNCH / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def train_arguments(name: str, printed: str) -> list[str]:
    """What follows `launch.train`, or the options of launch/host.sh, in the last command of a dry run."""
    if name == "gke":
        manifest = yaml.safe_load(printed.partition("<<'EOF'\n")[2].removesuffix("EOF\n"))
        words = container(manifest)["command"]
    else:
        words = commands(printed)[-1]
    if name in ("vm", "xpk"):
        words = shlex.split(words[-1].removeprefix("--command="))
    if name == "host":
        words = words[: words.index("2>&1")]
        assert words[words.index("-m") : words.index("-m") + 2] == ["-m", "launch.train"]
    start = next(place for place, word in enumerate(words) if word in ("--auto-resume", "--resume"))
    return words[start:]


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        (["--requirements", "requirements-gpu.txt"], {}, str(FRACTION)),
        (["--requirements", "requirements-gpu.txt"], {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}, "0.5"),
        (["--requirements", "requirements-gpu.txt", "--env", f"{TAKEN}=0.8"], {}, "0.8"),
        ([], {}, None),
    ],
)
def test_jax_is_told_how_much_of_a_gpus_memory_the_preflight_counts_with(words, variables, expected):
    done = call("launch/host.sh", *words, "--dry-run", TRAIN[0], **variables)
    assert done.returncode == 0, done.stderr
    told = re.findall(rf"{TAKEN}=([\d.]+)", done.stdout)
    assert (told[-1] if told else None) == expected  # `env` takes the last one


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return pod["containers"][0]


@pytest.mark.parametrize("name", STARTS)
def test_every_launcher_starts_the_same_command(name):
    assert train_arguments(name, dry_run(name, *TRAIN)) == ["--auto-resume", *TRAIN]
    assert train_arguments(name, dry_run(name, "--resume", "runs/a b")) == ["--resume", "runs/a b"]


@pytest.mark.parametrize("name", STARTS)
def test_the_environment_reaches_the_run_as_given(name):
    setting = "NOTE=a 'b' \"c\" $d"
    printed = dry_run(name, *TRAIN, options=("--env", setting, "--env", "HF_HUB_OFFLINE=1"))
    if name == "gke":
        manifest = yaml.safe_load(printed.partition("<<'EOF'\n")[2].removesuffix("EOF\n"))
        assert {"name": "NOTE", "value": setting.removeprefix("NOTE=")} in container(manifest)["env"]
        return
    words = commands(printed)[-1]
    if name == "vm":
        words = shlex.split(words[-1].removeprefix("--command="))
    assert (f"--env={setting}" if name == "xpk" else setting) in words


def test_a_dry_run_executes_nothing(tmp_path):
    """With a PATH that holds what bash needs and nothing that could start a job, and a folder kept clean."""
    for tool in ("bash", "env", "dirname", "sort", "cat", "hostname", "grep"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    before = {path.name for path in ROOT.iterdir()}
    for words in STARTS.values():
        done = call(*words, "--dry-run", *TRAIN, PATH=str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert {path.name for path in ROOT.iterdir()} == before


def test_the_steps_of_a_tpu_vm():
    printed = dry_run("vm", *TRAIN, options=("--project", "p", "--spot", "--disk", "kept", "--restarts", "2"))
    place = ["--zone=us-central1-a", "--project=p"]
    found = commands(printed)
    create = ["gcloud", "compute", "tpus", "queued-resources", "create", "a1", *place, "--node-id=a1"]
    machine = ["--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"]
    disk = "--data-disk=source=projects/p/zones/us-central1-a/disks/kept,mode=read-write"
    assert found[0] == [*create, *machine, disk]
    assert found[1][3:6] == ["queued-resources", "describe", "a1"]
    assert found[3][:1] == ["git"] and found[3][-1] == str(ROOT / ".cache/coevo_jax.tar.gz")
    assert found[4][3:6] == ["tpu-vm", "scp", str(ROOT / ".cache/coevo_jax.tar.gz")]
    assert found[-1][:-1] == [
        "gcloud",
        "compute",
        "tpus",
        "tpu-vm",
        "ssh",
        "a1",
        *place,
        "--worker=all",
        "--quiet",
    ]
    remote = shlex.split(found[-1][-1].removeprefix("--command="))
    assert remote[:7] == ["cd", "coevo_jax", "&&", "launch/tpu/prepare.sh", "--disk", "&&", "launch/host.sh"]
    assert remote[7:13] == ["--requirements", "requirements-tpu.txt", "--logs", "logs/a1", "--restarts", "2"]
    assert "COEVO_CACHE=/mnt/coevo/cache" in remote and "COEVO_CLUSTER=gcetpu" not in remote


def test_a_tpu_vm_keeps_runs_and_logs_on_its_disk(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")  # this checkout may have a runs/ of its own
    printed = call("launch/tpu/prepare.sh", "--disk", "--dry-run", root=tmp_path).stdout
    found = commands(printed)
    assert ["sudo", "mount", "-o", "discard,defaults", "/dev/DATA_DISK", "/mnt/coevo"] in found
    for folder in ("runs", "logs"):
        assert ["ln", "-sfn", f"/mnt/coevo/{folder}", str(tmp_path / folder)] in found
    assert re.search(r"^# where that disk holds nothing yet:\nsudo mkfs.ext4 ", printed, re.MULTILINE)


def documented() -> list[str]:
    """The launchers' commands in docs/clusters.md, with the variables of their block filled in."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```", (ROOT / "docs/clusters.md").read_text(), re.M | re.S):
        values = dict(re.findall(r'^([A-Z])="(.*)"$', block, re.MULTILINE))
        for line in re.findall(r"^launch/(?:host|gpu/|tpu/).*$", block, re.MULTILINE):
            line = line.partition("  #")[0]
            for name, value in values.items():
                line = line.replace(f"${name}", value)
            found.append(line)
    return found


@pytest.mark.parametrize("line", documented())
def test_the_documented_commands_are_taken(line):
    words = shlex.split(line)
    config = next((place for place, word in enumerate(words) if word.startswith("configs/")), len(words))
    done = call(*words[:config], "--dry-run", *words[config:])
    assert done.returncode == 0, done.stderr
    if config < len(words):
        load_config(ROOT / words[config], words[config + 1 :])


def dry_runs() -> list[tuple[str, list[str]]]:
    """The table of dry runs in docs/clusters.md: each command, and what is said that it prints."""
    rows = re.findall(r"^\| (`launch/[^|]*`) \| (`.*`) \|$", (ROOT / "docs/clusters.md").read_text(), re.M)
    return [(command.strip("`"), re.findall(r"`([^`]*)`", printed)) for command, printed in rows]


def test_the_table_of_dry_runs_is_what_they_print():
    table = dry_runs()
    assert [command.split()[0] for command, _ in table] == [words[0] for words in STARTS.values()]
    for command, expected in table:
        words = command.split()
        done = call(*words[:-1], "--dry-run", words[-1])
        assert done.returncode == 0, done.stderr
        for text in expected:
            assert text in done.stdout, command


def test_the_documented_commands_were_found():
    assert len(documented()) >= 10


@pytest.mark.parametrize("name, larger", [("vm", "v5litepod-16"), ("gke", "v5p-16"), ("xpk", "v6e-64")])
def test_several_hosts_are_started_with_a_warning(name, larger):
    words = [larger if re.fullmatch(r"v\w+-8", word) else word for word in STARTS[name]]
    words = [re.sub(r"^--type=.*", f"--type={larger}", word) for word in words]
    done = call(*words, "--dry-run", *TRAIN)
    assert done.returncode == 0
    assert f"warning: {larger} has" in done.stderr and "one run folder that all of them share" in done.stderr
    assert name != "vm" or "COEVO_CLUSTER=gcetpu" in done.stdout  # on GKE, JAX finds the hosts by itself


@pytest.mark.parametrize(("kind", "hosts"), [("v5litepod-8", 2), ("v6e-8", 2), ("v5p-8", 1), ("v6e-4", 1)])
def test_xpk_makes_a_slice_of_eight_chips_of_two_hosts(kind, hosts):
    """What xpk 1.16 does; tests/real holds every type against it."""
    words = [re.sub(r"^--type=.*", f"--type={kind}", word) for word in STARTS["xpk"]]
    said = call(*words, "--dry-run", *TRAIN).stderr
    assert (f"warning: {kind} has 2 hosts" in said) == (hosts == 2)


def test_slurm_asks_for_one_process_per_node():
    words = commands(dry_run("slurm", *TRAIN))[-1]
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--time=8:00:00", "--job-name=a1"} < set(
        words
    )
    directives = re.findall(r"^#SBATCH (\S+)", (LAUNCH / "gpu/job.sbatch").read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=B:USR1@180", "--open-mode=append"} < set(directives)


LABELS = {
    "v4": "tpu-v4-podslice",
    "v5litepod": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}


def test_slices_have_as_many_chips_as_their_topology():
    rows = re.findall(
        r"^((?:v|tpu)\d\S+) +(\d+) +(\d+) +(\S+) +([\dx]+)$", (LAUNCH / "tpu/slices.sh").read_text(), re.M
    )
    assert len(rows) == 37
    for name, hosts, chips, accelerator, topology in rows:
        sides = [int(side) for side in topology.split("x")]
        product = sides[0] * sides[1] * (sides[2] if len(sides) == 3 else 1)
        family, _, size = name.rpartition("-")
        cores = 2 if family in ("v4", "v5p", "tpu7x") else 1  # these count TensorCores, two a chip
        assert int(hosts) * int(chips) == product == int(size) / cores
        assert accelerator == LABELS[family]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FailureRule(Strict):
    name: str = Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    onJobFailureReasons: list[Literal["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded"]]
    onJobFailureMessagePatterns: list[str] = []


class FailurePolicy(Strict):
    maxRestarts: int = Field(ge=0)
    rules: list[FailureRule]


class JobTemplate(Strict):
    spec: dict[str, Any]  # a batch/v1 JobSpec, checked against Kubernetes' own schema


class ReplicatedJob(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    replicas: int
    template: JobTemplate


class JobSetSpec(Strict):
    failurePolicy: FailurePolicy
    replicatedJobs: list[ReplicatedJob]


class JobSet(Strict):
    """The fields in use of JobSet's v1alpha2, as its API reference declares them."""

    apiVersion: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: dict[str, Any]
    spec: JobSetSpec


def manifest(*options: str) -> dict[str, Any]:
    words = ["launch/tpu/gke.sh", "manifest", *STARTS["gke"][2:], *options, *TRAIN]
    return yaml.safe_load(call(*words).stdout)


def test_the_manifest_is_a_jobset():
    found = manifest("--spot", "--namespace", "team", "--restarts", "7", "--type", "v5p-64")
    checked = JobSet.model_validate(found)
    assert found["metadata"]["name"] == "a1" and found["metadata"]["namespace"] == "team"
    assert checked.spec.failurePolicy.maxRestarts == 7
    job = checked.spec.replicatedJobs[0].template.spec
    assert job["parallelism"] == job["completions"] == 8 and job["backoffLimit"] == 0
    assert job["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert container(found)["resources"] == {"limits": {"google.com/tpu": 4}}
    exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    assert found["metadata"]["annotations"] == exclusive
    assert manifest()["metadata"]["annotations"] == {}, "a host of its own leaves its node pool to others"


UNCOUNTED = "RestartJobSetAndIgnoreMaxRestarts"
# What Kubernetes' Job controller says of a pod that matched a rule of the job's failure policy.
ENDED = {
    "refused": ("failed with exit code 2 matching FailJob rule at index 0", "FailJobSet"),
    "preempted": ("has condition DisruptionTarget matching FailJob rule at index 1", UNCOUNTED),
    "asked to end": ("failed with exit code 143 matching FailJob rule at index 2", UNCOUNTED),
}


@pytest.mark.parametrize("case", ENDED)
def test_a_refusal_is_final_and_a_preemption_does_not_count(case):
    said, action = ENDED[case]
    spec = manifest("--restarts", "7")["spec"]
    matching = [
        rule["action"]
        for rule in spec["failurePolicy"]["rules"]
        if any(re.search(words, said) for words in rule.get("onJobFailureMessagePatterns", [""]))
    ]
    assert matching[0] == action and spec["failurePolicy"]["maxRestarts"] == 7
    rules = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    index = int(said.rpartition(" ")[2])
    assert rules[index]["action"] == "FailJob"
    if "onExitCodes" in rules[index]:
        assert f"exit code {rules[index]['onExitCodes']['values'][0]} " in said
    else:
        assert rules[index]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_names_of_volumes_and_namespaces_are_what_kubernetes_takes():
    long = f"{'a' * 60}.on-filestore.team-1"
    found = manifest("--claim", long, "--namespace", "1234")
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == long
    assert found["metadata"]["namespace"] == "1234"


def test_the_job_inside_follows_kubernetes_own_schema():
    validate = pytest.importorskip("kubernetes_validate", reason="not installed (requirements-dev.txt)")
    spec = manifest("--env", "A=1")["spec"]["replicatedJobs"][0]["template"]["spec"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a1-slice-0"}, "spec": spec}
    validate.validate(job, "1.34", strict=True)
    spec["template"]["spec"]["containers"][0]["imagee"] = "r/i:1"
    with pytest.raises(validate.ValidationError, match="imagee"):
        validate.validate(job, "1.34", strict=True)


def test_the_container_file_copies_what_exists():
    text = (LAUNCH / "Dockerfile").read_text()
    assert re.search(r"^FROM \S+:\d+\.\d+\.\d+\S*$", text, re.MULTILINE), "the base has no exact version"
    sources = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    kept = re.findall(r"^!(\S+)$", (LAUNCH / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    for pattern in {*sources, *kept} - {"."}:
        assert list(ROOT.glob(pattern)), f"{pattern} matches nothing"
    assert (ROOT / re.findall(r"ARG REQUIREMENTS=(\S+)", text)[0]).is_file()


@pytest.mark.parametrize("script", COMMANDS)
def test_help_names_every_option(script):
    done = call(script, "--help")
    assert done.returncode == 0 and done.stderr == ""
    declared = re.search(r"declare -A options=\(([^)]*)\)", (ROOT / script).read_text())
    assert declared, script
    for name in [*re.findall(r"\[([\w-]+)\]", declared[1]), "dry-run"]:
        assert re.search(rf"^ +--{name}\b", done.stdout, re.MULTILINE), f"--{name}"


VM = STARTS["vm"]
BAD = {
    "no arguments": (["launch/gpu/machine.sh"], "give a config file (and overrides), or --resume RUN"),
    "unknown option": (["launch/host.sh", "--logz", "x"], "unknown option '--logz' (did you mean '--logs'?)"),
    "short option": (["launch/host.sh", "-x"], "unknown option '-x' (valid: "),
    "no value": (["launch/host.sh", "--logs"], "--logs needs a value"),
    "flag with value": ([*VM, "--spot=yes", *TRAIN], "--spot takes no value"),
    "no such config": (
        ["launch/host.sh", "configs/quikstart.yaml"],
        "no such config: 'configs/quikstart.yaml' (did you mean 'configs/quickstart.yaml'?)",
    ),
    "no override": (["launch/host.sh", TRAIN[0], "--logs"], "override '--logs': expected key=value"),
    "resume and more": (
        ["launch/host.sh", "--resume", "runs/a", "b=1"],
        "--resume needs the folder of a run",
    ),
    "unknown requirements": (
        ["launch/host.sh", "--requirements", "requirements-gqu.txt", *TRAIN],
        "unknown value 'requirements-gqu.txt' (did you mean 'requirements-gpu.txt'?)",
    ),
    "no number": (
        [*STARTS["slurm"], "--nodes", "two", *TRAIN],
        "--nodes: found 'two', expected a whole number",
    ),
    "no setting": (["launch/host.sh", "--env", "A", *TRAIN], "--env: found 'A', expected KEY=VALUE"),
    "a line break": (["launch/host.sh", TRAIN[0], "name=a\nb"], "cannot hold a line break"),
    "no time": ([*STARTS["slurm"], "--time", "soon", *TRAIN], "--time: found 'soon', expected SLURM's"),
    "no GPU numbers": (["launch/gpu/machine.sh", "--gpus", "all", *TRAIN], "--gpus: found 'all'"),
    "no command": (["launch/tpu/vm.sh"], "give a command: run, create, wait, logs or delete"),
    "unknown command": (["launch/tpu/gke.sh", "aply"], "unknown value 'aply' (did you mean 'apply'?)"),
    "no zone": (["launch/tpu/vm.sh", "run", "--name", "a", *TRAIN], "give --zone"),
    "no name": (["launch/gpu/slurm.sh", *TRAIN], "give --name"),
    "a name with capitals": (
        [*VM, "--name", "A1", *TRAIN],
        "--name: found 'A1', expected at most 40 lower-case",
    ),
    "a slice's nickname": (
        [*VM, "--type", "v5e-8", *TRAIN],
        "unknown slice 'v5e-8' (did you mean 'v5litepod-8'?)",
    ),
    "spot and reserved": ([*VM, "--spot", "--reserved", *TRAIN], "give either --spot or --reserved"),
    "a disk of no project": ([*VM, "--disk", "d", *TRAIN], "--disk needs --project"),
    "a disk for several hosts": (
        [*VM, "--type", "v6e-16", "--project", "p", "--disk", "d", *TRAIN],
        "--disk: a disk that is written to serves one host, and v6e-16 has 4",
    ),
    "a limit that is over at once": (
        [*STARTS["slurm"], "--time", "0:03:30", *TRAIN],
        "--time: found '0:03:30', expected at least 5 minutes: a run is asked to end 3 to 4 minutes before",
    ),
    "a volume with a dash last": (
        [*STARTS["gke"], "--claim", "kept-.disk", *TRAIN],
        "--claim: found 'kept-.disk', expected at most 253",
    ),
    "a volume with capitals": (
        [*STARTS["gke"], "--claim", "Kept", *TRAIN],
        "--claim: found 'Kept', expected",
    ),
    "Ironwood without GKE": (
        [*VM, "--type", "tpu7x-8", *TRAIN],
        "--type: tpu7x has no queued resources; use launch/tpu/gke.sh",
    ),
    "a slice that XPK does not know": (
        [
            "launch/tpu/xpk.sh",
            "create",
            "--name=a1",
            "--cluster=c",
            "--type=v5litepod-4",
            "--image=i",
            *TRAIN,
        ],
        "--type: XPK knows no v5litepod-4; use launch/tpu/gke.sh",
    ),
    "too much": (["launch/tpu/xpk.sh", "delete", "--name=a", "--cluster=c", "b"], "unexpected argument 'b'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_one_line_and_exit_code_2(case, tmp_path):
    words, message = BAD[case]
    done = call(*words, "--dry-run") if words[-1] == "b" else call(*words)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
