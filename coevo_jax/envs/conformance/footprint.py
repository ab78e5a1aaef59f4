"""What a process holds on to, read from Linux's /proc: child processes, threads, open and temporary files."""

import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

OURS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")  # Python's own, one per process


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Names of what is held, each with a number, so that two moments can be compared."""

    processes: Counter[str]
    threads: Counter[str]
    open_files: Counter[str]
    temporary_files: Counter[str]

    def growth(self, before: "Footprint") -> list[str]:
        """What is held now and was not before, in words."""
        words = []
        for kind in ("processes", "threads", "open_files", "temporary_files"):
            more = getattr(self, kind) - getattr(before, kind)
            if more:
                examples = ", ".join(list(more)[:3])
                words.append(f"{more.total()} {kind.replace('_', ' ')} ({examples})")
        return words


def footprint(temporary: Path) -> Footprint:
    """This process's footprint; `temporary` is the folder its temporary files go to."""
    return Footprint(
        processes=Counter(f"{pid} {command}" for pid, command in child_processes().items()),
        threads=Counter(f"{thread.name} {thread.ident}" for thread in threading.enumerate()),
        open_files=Counter(_open_files()),
        temporary_files=Counter(path.name for path in temporary.iterdir()),
    )


def supported() -> bool:
    """Whether this system tells what a process holds."""
    return Path("/proc/self/fd").is_dir()


def child_processes() -> dict[int, str]:
    """Living processes that this one started, and theirs: command lines by process id."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it ended meanwhile
                continue
            if state not in "ZX":
                parents[int(folder.name)] = int(parent)
    found: dict[int, str] = {}
    family = {os.getpid()}
    while newborn := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= newborn
    for pid in family - {os.getpid()}:
        command = command_line(pid)
        if not any(name in command for name in OURS):
            found[pid] = command
    return found


def command_line(pid: int) -> str:
    """The command of a process, shortened; empty once it has ended."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")[:80]
            .strip()
        )
    except OSError:
        return ""


def _open_files() -> list[str]:
    """Targets of the open file descriptors; sockets and pipes without their number."""
    names = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # the one that listed the folder
            continue
        names.append(target.partition(":[")[0])
    return names
