"""One set-up for all tests: 8 fake CPU devices, no network, no download, reproducible hypothesis runs.

COEVO_TEST_PLATFORMS=cuda,cpu lets tests that need one device run on a GPU, as `benchmarks.gpu` does.
"""

import gc
import ipaddress
import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

CACHE = Path(__file__).resolve().parent.parent / ".cache"

# Read once by jax, transformers and datasets at import, so they are set before any test module is imported.
os.environ["JAX_PLATFORMS"] = os.environ.get("COEVO_TEST_PLATFORMS", "cpu")
if "COEVO_TEST_PLATFORMS" not in os.environ:
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
    )
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
# A simulator in Java plays some seconds in a test: most went to the compiler that long runs profit from.
os.environ["JAVA_TOOL_OPTIONS"] = f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} -XX:TieredStopAtLevel=1".strip()
os.environ["COEVO_ALLOCATOR"] = (
    "system"  # commands that tests start need not start over; test_allocator has one
)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(CACHE / "huggingface")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")


# Where numbers of users' programs are held against other projects', or speed and memory are measured: slow
# tests there run on programs that are compiled as users' are, all others on those that are compiled soonest
# (a step that is split over eight devices: four times sooner). So do those that hold two methods' warm starts
# against each other: two losses are two programs, and what both do rounds alike only where the compiler sees
# that the loss has no part in it.
OPTIMISED = (
    *("sampling", "preflight"),
    *("test_families.py", "test_checkpoints.py", "test_transformer.py", "test_flash_attention.py"),
    *("test_torch_generate.py", "test_backbone_run.py"),
    *("test_fork.py", "test_sweep.py"),
)


def pytest_collection_modifyitems(items):
    """Mark the slow tests that need optimised programs; launch/test.sh runs them by themselves.

    It looks for slow tests in the files that say so, so that a mark from elsewhere would never be seen.
    """
    root = Path(__file__).parent
    slow = [item for item in items if item.get_closest_marker("slow")]
    for path in sorted({item.path for item in slow}):
        if "mark.slow" not in path.read_text(encoding="utf-8"):
            raise pytest.UsageError(f"{path}: has slow tests, expected pytest.mark.slow in the file itself")
    for item in slow:
        if {*item.path.relative_to(root).parts} & {*OPTIMISED}:
            item.add_marker("optimised")


def pytest_collection_finish():
    """What the imports left stays: looking through it for garbage again and again takes seconds."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _is_local(address: object) -> bool:
    """Whether a socket address stays on this machine: a Unix path, localhost or a loopback IP."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse every connection that would leave the machine, so that a test cannot need the network."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        original = vars(socket.socket).get(name) or getattr(socket.socket, name)

        def guarded(self, address, original=original):
            if not _is_local(address):
                raise RuntimeError(f"a test tried to reach {address!r}: tests have no network")
            return original(self, address)

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def letters():
    """The toy environment under its name in the registry."""
    from coevo_jax.envs.registry import ENVIRONMENTS
    from tests.tiny import LETTERS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "letters", LETTERS)
        yield
