"""The C library's allocator on a CPU: told, before a process begins, to keep the memory that is freed.

glibc gives large blocks back to the system as soon as they are free and asks for them anew: a step of
learning on a CPU allocates and frees what it computes hundreds of times, and each time the system hands out
pages of zeros. XLA's threads have arenas of their own, which only `GLIBC_TUNABLES` reaches, and only when a
process begins. Accelerators have allocators of their own: where one is at hand nothing is changed.
"""

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from glob import glob

VARIABLE = "GLIBC_TUNABLES"
OPTION = "COEVO_ALLOCATOR"  # "system" leaves the allocator as it is
SYSTEM = "system"
TUNABLES = ":".join(
    (
        "glibc.malloc.arena_max=1",
        "glibc.malloc.mmap_max=0",
        "glibc.malloc.trim_threshold=100000000000",
        "glibc.malloc.top_pad=268435456",
    )
)
ACCELERATORS = ("/dev/nvidiactl", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")
WORDS = f"allocator: freed memory is kept; {OPTION}={SYSTEM} leaves it to the C library"

_kept = False  # whether this process began under TUNABLES


def keeps_freed_memory() -> bool:
    """Whether this process began under `TUNABLES`."""
    return _kept


def took(environ: MutableMapping[str, str]) -> bool:
    """Note that this process began under `TUNABLES`, if it did.

    They are taken out of the environment: what this process starts, such as environments whose memory is
    limited, does not inherit them.
    """
    global _kept  # a fact of the process
    if environ.get(VARIABLE) == TUNABLES:
        _kept = True
        del environ[VARIABLE]
    return _kept


def begin(environ: MutableMapping[str, str], command: Sequence[str]) -> None:
    """Start this process over under `TUNABLES`, once, where that helps; returns where it has, or does not.

    Args:
      command: the interpreter and all of its arguments, as `sys.orig_argv` has them.
    """
    if took(environ) or not sys.executable or not helps(environ):
        return
    try:
        os.execve(sys.executable, [sys.executable, *command[1:]], {**environ, VARIABLE: TUNABLES})
    except OSError:  # no right to start it again: slower, and nothing else
        return


def helps(environ: Mapping[str, str]) -> bool:
    """Whether this machine computes on its CPU, by glibc, and nobody has chosen an allocator."""
    if VARIABLE in environ or "LD_PRELOAD" in environ or environ.get(OPTION) == SYSTEM:
        return False
    platforms = environ.get("JAX_PLATFORMS", "")
    on_cpu = platforms == "cpu" if platforms else not any(glob(pattern) for pattern in ACCELERATORS)
    return on_cpu and _glibc()


def _glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # another C library, another system
        return False


@contextmanager
def inherited() -> Iterator[None]:
    """Let the processes that are started meanwhile keep what they free, as this one does."""
    if not _kept:
        yield
        return
    os.environ[VARIABLE] = TUNABLES
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
