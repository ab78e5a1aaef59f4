"""The processes of a run, one per host: how they agree, wait for each other, and end together.

What one process alone may do (write the manifest, read a clock) it does for all: the others get its result.
All of this goes over the key-value store of JAX's coordination service, which process 0 holds, never over the
devices; so it works while a device waits in a call that not all processes have made.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax._src import distributed  # the store has no public name; Orbax takes it from here, too
from jax.errors import JaxRuntimeError

from coevo_jax.config.strict import ConfigError

T = TypeVar("T")

BEAT = 2.0  # seconds between two signs of life
LOST_AFTER = 60.0  # seconds without one after which a process counts as lost
FIRST_SIGN = 300.0  # the same for its first one: devices may take minutes to start
LAST_WORDS = 10.0  # seconds that process 0 stays for the others to read why the run ends
POLL_MS = 2000  # longest wait inside the store: only between two of them Ctrl-C is heard
CONNECT = 1.0  # seconds that the machine of process 0 has to refuse a connection
FAILURE = 1  # exit code of a run that broke off and can be resumed
LOST = 128 + signal.SIGABRT  # of one that lost a process: what JAX ends with where it finds that out first
GOES_ON = "started again, the run goes on from its last commit"


class ProcessGroup:
    """Processes that agree with each other. Every method is called by all of them, in the same order."""

    def __init__(self, store: Any, name: str, index: int, count: int) -> None:
        self._store, self._name = store, name
        self.index, self.count = index, count
        self._exchanges = 0

    @property
    def leads(self) -> bool:
        """Whether this is the first of them, which does what is done once."""
        return self.index == 0

    def exchange(self, name: str, value: Any) -> list[Any]:
        """The JSON values of all processes, in order; nobody goes on before everybody has given one.

        Args:
          name: what is exchanged: processes that do not do the same thing are told so.
        """
        if self.count == 1:
            return [value]
        self._exchanges += 1
        place = f"coevo/{self._name}/{self._exchanges}"
        mine = json.dumps([name, value])
        if not self.leads:
            self._store.key_value_set(f"{place}/{self.index}", mine)
            said = self._get(f"{place}/all")
        else:
            others = [self._get(f"{place}/{index}") for index in range(1, self.count)]
            said = "[" + ",".join([mine, *others]) + "]"
            self._store.key_value_set(f"{place}/all", said)
            for index in range(1, self.count):
                self._store.key_value_delete(f"{place}/{index}")
            # All have given their value, so all have read what was exchanged before it.
            self._store.key_value_delete(f"coevo/{self._name}/{self._exchanges - 1}/all")
        values = json.loads(said)
        for index, (other, _) in enumerate(values):
            if other != name:
                raise RuntimeError(f"process {index} is at {other!r}, process {self.index} at {name!r}")
        return [value for _, value in values]

    def once(self, name: str, work: Callable[[], T]) -> T:
        """Let the first process do something for all; its result, which JSON can hold, goes to all."""
        if self.count == 1:
            return work()
        return self.exchange(name, work() if self.leads else None)[0]

    def wait(self, name: str) -> None:
        """Go on when all processes have come this far."""
        self.exchange(name, None)

    def _get(self, key: str) -> str:
        while True:
            try:
                return self._store.blocking_key_value_get(key, POLL_MS)
            except JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise


class Processes(ProcessGroup):
    """This process among those of its run; alone, it does everything itself.

    Every method is called by all processes in the same order, `fail` excepted. As a context it ends the run
    for all when one raises: the others print which process it was and why, and leave with the same exit
    code, wherever they are. A process that dies without a word is named within LOST_AFTER seconds, process 0
    included, and they leave with LOST.

    Args:
      explain: exit code of an error, and what it says to the user.

    Raises:
      ConfigError: there are other processes, and this one has no way to talk to them.
    """

    def __init__(self, explain: Callable[[BaseException], tuple[int, str | None]] | None = None) -> None:
        count, store = jax.process_count(), distributed.global_state.client
        if count > 1 and store is None:  # a TPU's runtime may show the other hosts' devices all the same
            raise ConfigError(
                f"JAX sees the devices of {count} processes, but this one has not joined the others; set "
                "COEVO_CLUSTER, or COEVO_COORDINATOR, COEVO_PROCESSES and COEVO_PROCESS_ID "
                "(docs/clusters.md)"
            )
        super().__init__(store if count > 1 else None, "all", jax.process_index(), count)
        self._explain = explain or (lambda error: (FAILURE, str(error)))
        self._groups: dict[int, ProcessGroup] = {}
        self._over = threading.Event()
        self.host = socket.gethostname()
        if self._store is not None:
            self._store.key_value_set(f"coevo/host/{self.index}", self.host)
            self._heard = 0  # how often the store has answered the watch
            self._watchers = [threading.Thread(target=self._watch, daemon=True, name="process-watch")]
            if not self.leads:
                first = threading.Thread(target=self._watch_first, daemon=True, name="process-0-watch")
                self._watchers.append(first)
            for watcher in self._watchers:
                watcher.start()

    def group(self, size: int) -> ProcessGroup:
        """This process among the `size` neighbours that play in lockstep with it."""
        if size not in self._groups:
            number, place = divmod(self.index, size)
            self._groups[size] = ProcessGroup(self._store, f"group-{size}-{number}", place, size)
        return self._groups[size]

    def share_of(self, items: Sequence[T], size: int = 1) -> Sequence[T]:
        """The items of this process's group: dealt out, since neighbours are often alike."""
        return items[self.index // size :: self.count // size]

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._store is None:
            return
        if error is None:
            self.wait("end")
            self._over.set()
            for watcher in self._watchers:
                watcher.join()
            return
        if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            self._wait_for_cause()
        code, words = self._explain(error)
        self.fail(code, words or f"{type(error).__name__}: {error}")

    def fail(self, code: int, message: str) -> None:
        """Tell the other processes that the run ends here, and why; returns when they have read it."""
        self._over.set()
        self._report(self.index, self.host, code, message)
        self._await_readers(without=self.index)

    def _wait_for_cause(self) -> None:
        """A call of all processes fails everywhere when one of them dies: leave it to the watch to say which.

        Returns where nobody is found to be lost and nobody says that the fault was its own.
        """
        print(
            f"process {self.index}: a call of all processes failed; waiting to learn which one is the cause",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(LOST_AFTER + 5 * BEAT)

    def _watch(self) -> None:
        """Give signs of life, and end this process when the run ends elsewhere."""
        signs = {str(index): ("", 0) for index in range(self.count)}
        beats = 0
        while not self._over.wait(BEAT):
            beats += 1
            try:
                self._store.key_value_set(f"coevo/alive/{self.index}", str(beats), allow_overwrite=True)
                if self.leads:
                    self._find_lost(signs)
                reports = self._store.key_value_dir_get("coevo/failed/")
            except JaxRuntimeError:
                continue  # the store is gone, and with it process 0: the other watch says so
            self._heard += 1
            if reports and not self._over.is_set():
                self._leave(json.loads(reports[0][1]))

    def _watch_first(self) -> None:
        """End this process when process 0 is lost: it holds the store, so no report can come of that.

        It is lost where its machine refuses connections, or where the store has not answered for LOST_AFTER.
        Time in which this process itself was stopped does not count: so were others.
        """
        host = self._get("coevo/host/0")
        _linger_at_abort()
        heard, silent, looked = 0, 0.0, time.monotonic()
        while not self._over.wait(BEAT):
            now = time.monotonic()
            silent += min(now - looked, BEAT + CONNECT)
            looked = now
            if self._heard != heard:
                heard, silent = self._heard, 0.0
            elif silent > (LOST_AFTER if heard else FIRST_SIGN):
                self._leave_without_first(host, f"no sign of life for {silent:.0f} s")
            elif _refuses_connections(distributed.global_state.coordinator_address):
                self._leave_without_first(host, "its machine refuses connections")

    def _leave_without_first(self, host: str, why: str) -> None:
        if self._over.is_set():
            return
        sys.stdout.flush()
        words = f"error: process 0 of {self.count} ({host}) is lost: {why}; {GOES_ON}"
        print(words, file=sys.stderr, flush=True)
        os._exit(LOST)

    def _find_lost(self, signs: dict[str, tuple[str, int]]) -> None:
        """Report the first process that has given no sign of life for too long.

        Told in looks, not by the clock: where this process itself was stopped for a while, so were others.
        """
        beats = {key.rpartition("/")[2]: beat for key, beat in self._store.key_value_dir_get("coevo/alive/")}
        for index, (last, looks) in signs.items():
            beat = beats.get(index, "")
            signs[index] = (beat, looks + 1 if beat == last else 0)
            limit = LOST_AFTER if beat else FIRST_SIGN
            if signs[index][1] * BEAT > limit:
                hosts = dict(self._store.key_value_dir_get("coevo/host/"))
                host = hosts.get(f"coevo/host/{index}", "unknown host")
                message = f"it is lost: no sign of life for {limit:g} s; {GOES_ON}"
                self._report(int(index), host, LOST, message)
                return

    def _report(self, index: int, host: str, code: int, message: str) -> None:
        words = f"process {index} of {self.count} ({host}) ended this run: {message}"
        try:
            self._store.key_value_set(
                "coevo/failed/first", json.dumps({"process": index, "code": code, "words": words})
            )
        except JaxRuntimeError:
            return  # another was the first, or nobody is left to tell

    def _leave(self, report: dict[str, Any]) -> None:
        """End this process wherever its main thread is: it may wait for a call that will never return."""
        sys.stdout.flush()
        print(f"error: {report['words']}", file=sys.stderr, flush=True)
        self._await_readers(without=report["process"])
        os._exit(report["code"])

    def _await_readers(self, without: int) -> None:
        """Process 0 holds the store: it leaves last."""
        deadline = time.monotonic() + LAST_WORDS
        try:
            self._store.key_value_set(f"coevo/read/{self.index}", "", allow_overwrite=True)
            while self.leads and time.monotonic() < deadline:
                read = {key.rpartition("/")[2] for key, _ in self._store.key_value_dir_get("coevo/read/")}
                if len(read | {str(without)}) == self.count:
                    return
                time.sleep(0.1)
        except JaxRuntimeError:
            return


def _refuses_connections(address: str | None) -> bool:
    """Whether a machine says that nobody listens there; one that says nothing may be slow."""
    host, _, port = (address or "").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _linger_at_abort() -> None:
    """Let an abort wait for some seconds, in which the watch says what happened.

    Where process 0 dies JAX aborts the others from a thread of its own within milliseconds, in words that
    name nobody; what it would call instead cannot be written in Python. So SIGABRT is answered by the C
    library's `sleep`, which a signal may call and which takes the signal's number, 6, for seconds; then the
    abort goes on.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))
