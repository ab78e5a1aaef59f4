"""The promises of conftest and of the launch scripts hold."""

import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCHERS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "launch").glob("[tg]pu/*.s[hb]*"))]
SOURCED = ["launch/tpu/slices.sh"]
SCRIPTS = [
    *("launch/setup.sh", "launch/quickstart.sh", "launch/test.sh", "launch/host.sh", ".ci/run"),
    *(script for script in LAUNCHERS if script not in SOURCED),
]


def test_there_are_eight_cpu_devices():
    assert len(jax.devices()) == 8 and jax.default_backend() == "cpu"


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="loud"):
        warnings.warn("loud", stacklevel=1)


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 80), ("2001:db8::1", 80, 0, 0)])
def test_connections_to_other_machines_are_refused(address):
    family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
    with socket.socket(family) as client, pytest.raises(RuntimeError, match="no network"):
        client.connect(address)


def test_connections_inside_the_machine_work():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def run_setup(requirements: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("bash") or "bash", str(ROOT / "launch/setup.sh"), requirements]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_setup_names_what_is_missing(tmp_path):
    done = run_setup("requirements-none.txt", COEVO_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1 and "no such file" in done.stderr and "requirements-gpu.txt" in done.stderr
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.8.1'\nexit 1\n")
    old.chmod(0o755)
    done = run_setup("requirements.txt", COEVO_VENV=str(tmp_path / "venv"), PYTHON=str(old))
    assert done.returncode == 1 and "needs Python 3.11 or newer; found Python 3.8.1" in done.stderr


PYTHON = """#!/bin/sh
case "$*" in
    *"pip install"*) command -v python >>"$(dirname "$0")/found" ;;
    *"pip --version"*) ;;
    *) exec "$REAL" "$@" ;;
esac
"""


def test_what_is_built_while_pip_installs_finds_python(tmp_path):
    """A system with python3 alone, as Debian: packages that come as source call `python` all the same."""
    system, bin_folder = tmp_path / "system", tmp_path / "venv/bin"
    for folder in (system, bin_folder):
        folder.mkdir(parents=True)
    for tool in ("bash", "sh", "cat", "dirname", "mkdir", "rm"):
        (system / tool).symlink_to(shutil.which(tool) or tool)
    (system / "python3").symlink_to(sys.executable)
    (bin_folder / "python").write_text(PYTHON)
    (bin_folder / "python").chmod(0o755)
    done = run_setup(
        "requirements.txt", COEVO_VENV=str(tmp_path / "venv"), PATH=str(system), REAL=sys.executable
    )
    assert done.returncode == 0, done.stderr
    assert (bin_folder / "found").read_text() == f"{bin_folder / 'python'}\n"


def test_requirements_are_exact():
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-r requirements")):
                assert line.count("==") == 1, f"{path.name}: {line} has no exact version"
