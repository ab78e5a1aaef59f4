"""Several processes: found where the environment names them, and a single one left alone."""

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.hosts.distributed import START_TIMEOUT, start_distributed

COORDINATOR = {"COEVO_COORDINATOR": "node1:1234"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "n[1-2]"}


@pytest.fixture
def joined(monkeypatch) -> list[dict]:
    """The arguments of every call of jax.distributed.initialize, which does nothing else here."""
    calls: list[dict] = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **arguments: calls.append(arguments))
    return calls


ALONE = {
    "a plain machine": {},
    "one process, named": COORDINATOR | {"COEVO_PROCESSES": "1", "COEVO_PROCESS_ID": "0"},
    "one task of SLURM": SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
    "a shell in a larger allocation": SLURM | {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"},
    "a TPU host of its own on GKE": {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
}


@pytest.mark.parametrize("case", ALONE)
def test_a_single_process_joins_nobody(case, joined):
    start_distributed(ALONE[case])
    assert joined == []


def test_named_processes_join_as_named(joined):
    start_distributed(COORDINATOR | {"COEVO_PROCESSES": "4", "COEVO_PROCESS_ID": "3"})
    assert joined == [
        {
            "coordinator_address": "node1:1234",
            "num_processes": 4,
            "process_id": 3,
            "cluster_detection_method": "deactivate",
            "initialization_timeout": START_TIMEOUT,
        }
    ]


def test_a_task_of_slurm_needs_the_coordinator_alone(joined):
    """JAX's own detector would take gpu-1 for the first of these nodes, and give each process one GPU."""
    step = {"SLURM_STEP_NODELIST": "gpu-[1-2]-[03-04]", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}
    start_distributed(SLURM | step | {"COEVO_COORDINATOR": "gpu-1-03:61447"})
    found = {key: joined[0][key] for key in ("coordinator_address", "num_processes", "process_id")}
    assert found == {"coordinator_address": "gpu-1-03:61447", "num_processes": 4, "process_id": 2}
    assert joined[0]["cluster_detection_method"] == "deactivate"


@pytest.mark.parametrize(
    "environment, cluster",
    [
        (SLURM | {"SLURM_STEP_NUM_TASKS": "2"}, "slurm"),
        ({"TPU_WORKER_HOSTNAMES": "a-0.a,a-1.a"}, "gketpu"),
        ({"TPU_PROCESS_ADDRESSES": "10.0.0.1:8476,10.0.0.2:8476"}, "gketpu"),
        ({"COEVO_CLUSTER": "gcetpu"}, "gcetpu"),
    ],
)
def test_clusters_are_left_to_jax(environment, cluster, joined):
    start_distributed(environment)
    assert [call["cluster_detection_method"] for call in joined] == [cluster]


BAD = {
    "an incomplete set": (
        COORDINATOR,
        r"COEVO_PROCESSES and COEVO_PROCESS_ID: not set, .*COEVO_COORDINATOR is",
    ),
    "no port": (
        {"COEVO_COORDINATOR": "node1", "COEVO_PROCESSES": "2", "COEVO_PROCESS_ID": "0"},
        r"COEVO_COORDINATOR: found 'node1', expected HOST:PORT",
    ),
    "no number": (
        COORDINATOR | {"COEVO_PROCESSES": "two", "COEVO_PROCESS_ID": "0"},
        r"COEVO_PROCESSES: found 'two', expected a whole number from 1 on",
    ),
    "a number too large": (
        COORDINATOR | {"COEVO_PROCESSES": "2", "COEVO_PROCESS_ID": "2"},
        r"COEVO_PROCESS_ID: found 2, expected 0 to 1",
    ),
    "an unknown cluster": ({"COEVO_CLUSTER": "gcptpu"}, r"COEVO_CLUSTER: .*did you mean 'gcetpu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case, joined):
    environment, words = BAD[case]
    with pytest.raises(ConfigError, match=words):
        start_distributed(environment)
    assert joined == []


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    def initialize(**arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    with pytest.raises(
        ConfigError, match="COEVO_CLUSTER: found 'gcetpu', but JAX finds no such cluster here"
    ):
        start_distributed({"COEVO_CLUSTER": "gcetpu"})
