"""A `python` whose `-m launch.X` commands run one after the other in one process, each as if in its own.

Most of what such a command costs on a small run is imports, tracing and compiling, which the process keeps
for the next command. Each command has the folder, variables, words and streams that it was called with,
whether its caller is a test or a script of the project. Modules that a folder has of its own are forgotten
where the next command is called in another one; all else that one leaves behind, the next one meets.

The caller's half is `ask`, a process that imports nothing of the project:

python -I -S one_process.py launch.train CONFIG.yaml ...      with the socket's number in $ONE_PROCESS
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOCKET = "ONE_PROCESS"  # names the file descriptor of the socket that asks
GONE = 70  # exit code where the process ended under the command


ASK = (sys.executable, "-I", "-S", __file__)  # what runs `python -m` and the words that follow


class Kept(NamedTuple):
    """A process that is there for commands, and the socket that asks it."""

    process: int
    asking: int

    def call(self, variables: Mapping[str, str]) -> dict[str, object]:
        """How `subprocess` calls `ASK`, or what calls it, with these variables."""
        return {"env": {**variables, SOCKET: str(self.asking)}, "pass_fds": (self.asking,)}


@contextmanager
def kept_process(variables: Mapping[str, str]) -> Iterator[Kept]:
    """A process for commands, begun with these variables; it ends with the context."""
    import subprocess

    asking, answering = socket.socketpair()
    command = [sys.executable, "-m", "tests.one_process", "--serve", str(answering.fileno())]
    how = {"cwd": ROOT, "env": {**variables, "PYTHONPATH": str(ROOT)}, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, pass_fds=(answering.fileno(),), **how) as process:
        answering.close()
        with asking:
            yield Kept(process.pid, asking.fileno())
    assert process.returncode == 0


def ask(words: Sequence[str]) -> int:
    """Let the process run a command on this one's streams; its exit code."""
    asking = socket.socket(fileno=int(os.environ[SOCKET]))
    question = json.dumps([words, os.getcwd(), dict(os.environ)]).encode() + b"\n"
    socket.send_fds(asking, [question[:1]], [0, 1, 2])
    asking.sendall(question[1:])
    answer = asking.recv(1)
    return answer[0] if answer else GONE


def serve(answering: socket.socket) -> None:
    """Run what is asked for, one command at a time, until nobody can ask any more."""
    kept = {*sys.modules}
    with answering.makefile("rb") as questions:
        while True:
            first, streams, _, _ = socket.recv_fds(answering, 1, 3)
            if not first:
                return
            words, folder, variables = json.loads(first + questions.readline())
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            move(folder, kept)
            os.environ.clear()
            os.environ.update(variables)
            code = run(words)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nowhere, number)
            os.close(nowhere)
            answering.sendall(bytes([code]))


def move(folder: str, kept: set[str]) -> None:
    """Work in a folder, whose modules are found first, as `python -m` finds them; `kept` ones stay."""
    before = os.getcwd()
    os.chdir(folder)
    if before == folder:
        return
    sys.path[:] = [folder, *(path for path in sys.path if path not in (before, folder))]
    own = os.path.realpath(before) + os.sep
    for name in {*sys.modules} - kept:
        file = getattr(sys.modules[name], "__file__", None)
        if file and os.path.realpath(file).startswith(own):
            del sys.modules[name]


def run(words: list[str]) -> int:
    """Run `python -m` and the words in this process; its exit code."""
    import importlib
    import runpy
    import traceback

    importlib.invalidate_caches()  # a file written a moment ago is found
    sys.argv = list(words)
    code = 0
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    return code & 0xFF


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        sys.exit(ask(sys.argv[1:]))
