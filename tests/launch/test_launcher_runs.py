"""The launchers at work, with stand-ins for what they call: logs, restarts, signals, lost machines."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.launchers import LAUNCH, STARTS, TRAIN, call, program

CONFIG = TRAIN[0]


@pytest.fixture
def root(tmp_path) -> Path:
    """A repository whose set-up does nothing and whose Python is a script: `bin/python`, to be written."""
    folder = tmp_path / "with a space"
    for script in ("host.sh", "launcher.sh"):
        (folder / "launch").mkdir(parents=True, exist_ok=True)
        shutil.copy(LAUNCH / script, folder / "launch" / script)
    program(folder / "launch", "setup.sh", 'echo "set up $1"\n')
    (folder / "configs").mkdir()
    (folder / CONFIG).touch()
    (folder / "requirements.txt").touch()
    return folder


def host(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"COEVO_VENV": str(root), "COEVO_PROCESS_ID": "3", **environment}
    return call("launch/host.sh", *words, root=root, **variables)


def test_a_host_runs_the_command_and_keeps_a_log(root):
    program(root / "bin", "python", 'echo "$PWD|$NOTE|$PYTHONPATH"; printf "<%s>" "$@"; echo; echo oh >&2\n')
    done = host(root, "--env", "NOTE=a b", "--logs", "logs/a1", *TRAIN, PYTHONPATH="")
    assert done.returncode == 0
    log = (root / "logs/a1/host-3.log").read_text()
    assert log == done.stdout and "set up requirements.txt\n" in log and "\noh\n" in log
    assert f"{root}|a b|{root}\n" in log
    words = "".join(f"<{word}>" for word in ["-m", "launch.train", "--auto-resume", *TRAIN])
    assert f"{words}\n" in log and "exit code 0" in log
    host(root, "--logs", "logs/a1", *TRAIN)
    assert (root / "logs/a1/host-3.log").read_text().startswith(log), "a second start appends"


COUNT = 'n=$(($(cat count 2>/dev/null || echo 0) + 1)); echo "$n" >count\n'


@pytest.mark.parametrize(
    "behaviour, restarts, code, starts",
    [
        ("((n > 1)) || exit 1", 3, 0, 2),  # a crash, then success
        ("exit 1", 1, 1, 2),  # crashes for ever
        ("exit 1", 0, 1, 1),
        ("exit 2", 3, 2, 1),  # refused: the next start would be, too
    ],
)
def test_a_host_starts_again_after_crashes_alone(behaviour, restarts, code, starts, root):
    program(root / "bin", "python", COUNT + behaviour + "\n")
    program(root / "bin", "sleep", "exit 0\n")
    path = root / "bin"
    variables = {"COEVO_VENV": str(root), "COEVO_PROCESS_ID": "0"}
    done = call("launch/host.sh", "--restarts", str(restarts), CONFIG, root=root, path=path, **variables)
    assert done.returncode == code
    assert (root / "count").read_text() == f"{starts}\n"


def test_a_failed_set_up_starts_nothing(root):
    program(root / "launch", "setup.sh", "echo 'no network' >&2; exit 1\n")
    program(root / "bin", "python", COUNT)
    done = host(root, CONFIG)
    assert done.returncode == 1 and "no network" in done.stdout and not (root / "count").exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def test_a_signal_reaches_the_run_and_the_log_keeps_its_last_words(root):
    program(
        root / "bin",
        "python",
        "trap 'echo saved; exit 143' TERM\ntouch ready\nwhile :; do sleep 0.05; done\n",
    )
    process = subprocess.Popen(
        [root / "launch/host.sh", "--restarts", "5", CONFIG],
        env={"PATH": "/usr/bin:/bin", "COEVO_VENV": str(root), "COEVO_PROCESS_ID": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(root / "ready")
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=30)[0]
    assert process.returncode == 143
    assert "saved\n" in printed and (root / "logs/host-0.log").read_text() == printed


def test_a_second_call_on_a_host_waits_for_the_first(root):
    program(root / "bin", "python", COUNT + 'touch "ready$n"\nuntil [[ -e go ]]; do sleep 0.05; done\n')
    environment = {"PATH": "/usr/bin:/bin", "COEVO_VENV": str(root), "COEVO_PROCESS_ID": "0"}
    command = [root / "launch/host.sh", CONFIG]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    wait_for(root / "ready1")
    second = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None and "still works on an earlier call" in second.stdout.readline()
    assert not (root / "ready2").exists()
    (root / "go").touch()
    assert first.wait(30) == 0 and second.wait(30) == 0
    assert (root / "ready2").exists()
    for process in (first, second):
        process.communicate()


# A cloud with one machine. `state` is the queued resource's; every start of host.sh takes the next line of
# `fate`, which says its exit code and the state afterwards.
GCLOUD = r"""
here="$(dirname "$0")"
echo "$3 $4" >>"$here/calls"
case "$3 $4" in
    "queued-resources create") echo ACTIVE >"$here/state" ;;
    "queued-resources describe") [[ -e "$here/state" ]] && cat "$here/state" || exit 1 ;;
    "queued-resources delete") rm "$here/state" ;;
    "tpu-vm describe") [[ "$(cat "$here/state")" == ACTIVE ]] && echo READY || echo PREEMPTED ;;
    "tpu-vm ssh")
        [[ "$*" == *launch/host.sh* ]] || exit 0
        read -r code state <"$here/fate"
        sed -i 1d "$here/fate"
        echo "$state" >"$here/state"
        exit "$code"
        ;;
esac
"""


def run_on_cloud(
    folder: Path, fate: list[str], *options: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    program(folder, "gcloud", GCLOUD)
    program(folder, "git", "exit 0\n")
    program(folder, "tar", "cat >/dev/null\n")
    (folder / "fate").write_text("".join(f"{line}\n" for line in fate))
    done = call(*STARTS["vm"], *options, CONFIG, path=folder, COEVO_POLL_SECONDS="0")
    calls = (folder / "calls").read_text().splitlines()
    return done, [line.split()[1] for line in calls if line.split()[1] in ("create", "delete", "ssh")]


START = ["create", "ssh", "ssh"]  # the copy is unpacked, the run starts


@pytest.mark.parametrize(
    "fate, code, calls",
    [
        (["0 ACTIVE"], 0, START),
        (["255 SUSPENDED", "0 ACTIVE"], 0, [*START, "delete", *START]),  # preempted, then done
        (["1 SUSPENDED", "255 SUSPENDED", "255 SUSPENDED"], 1, [*START, "delete", *START, "delete", *START]),
        (["255 ACTIVE", "0 ACTIVE"], 0, [*START, "ssh", "ssh"]),  # only the connection was cut
        (["1 ACTIVE"], 1, START),  # a crash of the run
        (["2 ACTIVE"], 2, START),  # refused
    ],
)
def test_a_tpu_vm_is_asked_for_again_when_it_was_lost(fate, code, calls, tmp_path):
    done, found = run_on_cloud(tmp_path / "bin", fate, "--preemptions", "2")
    assert done.returncode == code, done.stderr
    assert found == calls


@pytest.mark.parametrize(
    "answer, calls",
    [
        ("exit 1", ["describe", "create"]),  # refused at once: no quota, a wrong zone
        ("echo FAILED >state", ["describe", "create", "describe"]),  # failed in the queue
    ],
)
def test_a_failed_request_is_not_repeated(answer, calls, tmp_path):
    program(
        tmp_path,
        "gcloud",
        f'cd "$(dirname "$0")"; echo "$4" >>calls\n[[ "$4" != create ]] || {{ {answer}; }}\n'
        '[[ "$4" != describe ]] || cat state\n',
    )
    done = call(*STARTS["vm"], CONFIG, path=tmp_path, COEVO_POLL_SECONDS="0")
    assert done.returncode == 1
    assert (tmp_path / "calls").read_text().splitlines() == calls


# SLURM as far as a job sees it, as the real one behaves (tests/real/slurm.py): a TERM that srun gets
# kills its task, which hears nothing; `scancel --signal=TERM` reaches the task and not this shell.
SRUN = r"""
echo "$COEVO_COORDINATOR $*"
bash -c 'trap "exit 143" TERM; touch ready; STEP' & echo $! >"HERE/task"
trap 'kill -KILL $(cat "HERE/task")' TERM
code=0; wait $(cat "HERE/task") || code=$?; exit "$code"
"""
SCONTROL = r"""
case "$*" in
    "--oneliner show job 7") echo "JobId=7 JobName=a JobState=STATE Reason=None TimeLimit=LIMIT Power=" ;;
    "show hostnames rack1-node[3,5-6]-ib") printf 'rack1-node%s-ib\n' 3 5 6 ;;
    "--oneliner show node rack1-node3-ib") echo "NodeName=rack1-node3-ib NodeAddr=10.0.0.3 Port=1" ;;
    *) echo "$*" >>"HERE/queued" ;;
esac
"""
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "rack1-node[3,5-6]-ib"}
RUNS = "while :; do sleep 0.05; done"


def run_job(root: Path, tmp_path: Path, step: str, *, state: str, limit: str = "1:00:00", act=None):
    """A job of three nodes whose task does something: its exit code, what it said, and what it requeued."""
    shutil.copytree(LAUNCH / "gpu", root / "launch/gpu")
    here = str(tmp_path)
    program(tmp_path / "bin", "srun", SRUN.replace("STEP", step).replace("HERE", here))
    program(
        tmp_path / "bin", "scancel", f'[[ "$*" == "--signal=TERM 7" ]] && kill -TERM $(cat "{here}/task")\n'
    )
    scontrol = SCONTROL.replace("STATE", state).replace("LIMIT", limit).replace("HERE", here)
    program(tmp_path / "bin", "scontrol", scontrol)
    process = subprocess.Popen(
        ["bash", "launch/gpu/job.sbatch", "--logs", "logs/a", CONFIG],
        cwd=root,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **JOB},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if act is not None:
        wait_for(root / "ready")
        act(process)
    printed, error = process.communicate(timeout=30)
    queued = (tmp_path / "queued").read_text().splitlines() if (tmp_path / "queued").exists() else []
    return process.returncode, printed, error, queued


def near_limit(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@180 has it, to this shell alone


@pytest.mark.parametrize(
    "step, act, state, code, queued",
    [
        ("exit 0", None, "RUNNING", 0, False),
        ("exit 2", None, "RUNNING", 2, False),
        ("exit 1", None, "RUNNING", 1, False),  # a crash is not tried again for ever
        (RUNS, near_limit, "RUNNING", 143, True),
        (f'trap "exit 0" TERM; {RUNS}', near_limit, "RUNNING", 0, False),  # it was done
        (f'trap "exit 2" TERM; {RUNS}', near_limit, "RUNNING", 2, False),
        ("exit 143", None, "RUNNING", 143, True),  # preempted with a grace time
        ("exit 143", None, "COMPLETING", 143, False),  # cancelled, or queued again by scontrol
        ("exit 143", None, "CANCELLED", 143, False),
    ],
)
def test_a_slurm_job_is_queued_again_when_its_run_was_asked_to_end(
    step, act, state, code, queued, root, tmp_path
):
    found, printed, error, requeued = run_job(root, tmp_path, step, state=state, act=act)
    assert found == code
    host_words = f"launch/host.sh --requirements requirements-gpu.txt --logs logs/a {CONFIG}"
    assert printed == f"10.0.0.3:61447 --kill-on-bad-exit=1 {host_words}\n"
    assert requeued == (["requeue 7"] if queued else []) and ("queued again" in error) == queued


def test_a_job_whose_time_is_over_at_once_is_refused(root, tmp_path):
    """It would be asked to end before it began, be queued again, and so on for ever."""
    found, printed, error, requeued = run_job(root, tmp_path, "exit 0", state="RUNNING", limit="00:03:00")
    assert (found, printed, requeued) == (2, "", [])
    assert "error: the job's time limit: found '00:03:00', expected at least 5 minutes" in error


def test_a_machine_without_gpus_is_refused(tmp_path):
    program(tmp_path, "nvidia-smi", "exit 9\n")
    done = call("launch/gpu/machine.sh", CONFIG, path=tmp_path)
    assert done.returncode == 2 and "error: no NVIDIA GPU here" in done.stderr
    assert "./launch/quickstart.sh configs/quickstart.yaml" in done.stderr
