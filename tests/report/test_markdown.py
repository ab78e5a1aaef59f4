"""Where a table was measured is what its runs recorded, not where it is written."""

from coevo_jax.report.markdown import machines
from coevo_jax.run_folder.environment import cores, cpu, describe_environment
from tests.report.made_run import empty_results

RECORD = {"python": "3.11.7", "packages": {"jax": "0.10.2"}, "devices": ["TFRT_CPU_0"]}
EPYC = RECORD | {"cpu": "AMD EPYC", "cores": 2, "device_kind": "cpu"}
H200 = EPYC | {"cores": 16, "devices": ["cuda:0", "cuda:1"], "device_kind": "NVIDIA H200"}


def run(environment):
    return empty_results("a", "a", 0, 1) | {"environment": environment}


def test_one_machine_is_named_once_by_the_runs_records():
    words = "AMD EPYC, 2 cores, TFRT_CPU_0, jax 0.10.2, Python 3.11.7"
    assert machines([run(EPYC), run(EPYC)]) == [words]


def test_runs_of_several_machines_name_each():
    assert machines([run(EPYC), run(H200), run(EPYC)]) == [
        "AMD EPYC, 2 cores, TFRT_CPU_0, jax 0.10.2, Python 3.11.7 (2 of 3 runs)",
        "AMD EPYC, 16 cores, 2 x NVIDIA H200, jax 0.10.2, Python 3.11.7 (1 of 3 runs)",
    ]


def test_an_earlier_version_did_not_record_the_processor():
    assert machines([run(RECORD)]) == ["TFRT_CPU_0, jax 0.10.2, Python 3.11.7"]


def test_a_run_records_its_processor():
    found = describe_environment()
    assert (found["cpu"], found["cores"], found["device_kind"]) == (cpu(), cores(), "cpu")
