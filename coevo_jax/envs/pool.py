"""One environment instance per slot, called in worker threads, with a time limit on every call."""

import queue
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Env, EnvFault


@dataclass(kw_only=True, eq=False)
class _Call:
    """One call of an instance on its way. Every field is read and written under the pool's lock."""

    slot: int
    function: Callable[[Env], Any]
    limit: float  # seconds that it may run
    submitted: float
    started: float | None = None
    abandoned: bool = False


class EnvPool:
    """Environment instances by slot: created on first use, kept across episodes, replaced after a fault.

    `submit` hands a call to the worker threads; `wait` and `ready` return the outcomes of calls on their way.
    An exception of the environment and a call that outlasts `step_timeout` both come back as an `EnvFault`;
    the instance is closed in the background and the slot's next call gets a fresh one. A hung call keeps its
    (daemon) thread, and another takes that thread's place. A `ConfigError` of `make_env` is the user's, not
    the environment's: `wait` and `ready` raise it.

    Args:
      most: instances that can play at a time, where the environment limits them: who submits uses the slots
        below this alone; None sets no limit.
    """

    def __init__(
        self, make_env: Callable[[], Env], *, workers: int, step_timeout: float, most: int | None = None
    ):
        self._make_env, self._step_timeout = make_env, step_timeout
        self.most = most
        self._instances: dict[int, Env] = {}
        self._calls: dict[int, _Call] = {}  # by slot, without an outcome yet
        self._outcomes: dict[int, Any] = {}
        self._closing: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._workers = workers
        self.calls, self.seconds = 0, 0.0  # finished calls and the time they took, in the environment alone
        self.latencies: list[float] = []  # seconds of each call since the owner last cleared it
        for _ in range(workers):
            self._spawn()

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, slot: int, function: Callable[[Env], Any], *, steps: int = 1) -> None:
        """Call `function` with the slot's instance in a worker thread; a slot has one call at a time.

        A function that takes several steps of the environment has `step_timeout` for each.
        """
        limit = steps * self._step_timeout
        call = _Call(slot=slot, function=function, limit=limit, submitted=time.monotonic())
        with self._changed:
            self._calls[slot] = call
        self._queue.put(call)

    def wait(self, slots: Collection[int] | None = None) -> dict[int, Any]:
        """Wait for the calls of these slots (of all) that are on their way.

        Returns each slot's result or `EnvFault`, in order of slots.
        """
        return self._collect(slots, lambda on_the_way, there: on_the_way)

    def ready(self, slots: Collection[int], *, wait: bool) -> dict[int, Any]:
        """The outcomes of these slots that are there by now; with `wait`, wait until there is one."""
        return self._collect(slots, lambda on_the_way, there: wait and on_the_way and not there)

    def _collect(
        self, slots: Collection[int] | None, missing: Callable[[bool, bool], bool]
    ) -> dict[int, Any]:
        def of(places: Collection[int]) -> list[int]:
            return sorted(place for place in places if slots is None or place in slots)

        with self._changed:
            self._expire()
            while missing(bool(of(self._calls)), bool(of(self._outcomes))):
                self._changed.wait(self._next_deadline())
                self._expire()
            outcomes = {slot: self._outcomes.pop(slot) for slot in of(self._outcomes)}
        for outcome in outcomes.values():
            if isinstance(outcome, ConfigError):
                raise outcome
        return outcomes

    def close(self) -> None:
        """Close every instance and stop the threads; waits at most `step_timeout` for those that hang."""
        for _ in range(self._workers):
            self._queue.put(None)
        with self._changed:
            for call in self._calls.values():
                call.abandoned = True
            self._calls.clear()
            for slot in tuple(self._instances):
                self._discard(slot)
        deadline = time.monotonic() + self._step_timeout
        for thread in self._closing:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._closing.clear()

    def _spawn(self) -> None:
        threading.Thread(target=self._work, daemon=True, name="env-worker").start()

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            with self._changed:
                if call.abandoned:
                    continue
                call.started = time.monotonic()
                env = self._instances.get(call.slot)
                self._changed.notify_all()
            outcome: Any
            try:
                if env is None:
                    env = self._make_env()
                    self._register(call, env)
                outcome = call.function(env)
            except ConfigError as error:
                outcome = error
            except EnvFault as error:
                outcome = error
            except (Exception, SystemExit) as error:  # an environment may not end the run
                outcome = EnvFault(f"{type(error).__name__}: {error}")
            with self._changed:
                if call.abandoned:  # another thread has taken this one's place
                    if env is not None:
                        self._close_later(env)
                    return
                self._finish(call, outcome)

    def _register(self, call: _Call, env: Env) -> None:
        """Keep a new instance before its first call: one that hangs there is closed like any other.

        Raises:
          EnvFault: making it has taken so long that nobody waits for its first call any more.
        """
        with self._changed:
            if call.abandoned:
                raise EnvFault("made too late")
            self._instances[call.slot] = env

    def _finish(self, call: _Call, outcome: Any) -> None:
        self.calls += 1
        seconds = time.monotonic() - (call.started or call.submitted)
        self.seconds += seconds
        self.latencies.append(seconds)
        del self._calls[call.slot]
        self._outcomes[call.slot] = outcome
        if isinstance(outcome, Exception):
            self._discard(call.slot)
        self._changed.notify_all()

    def _expire(self) -> None:
        """Turn every call that has run for too long into a fault, and replace its thread."""
        now = time.monotonic()
        for call in tuple(self._calls.values()):
            if call.started is not None and now - call.started >= call.limit:
                call.abandoned = True
                self._finish(call, EnvFault(f"no answer within {call.limit:g} s"))
                self._spawn()

    def _next_deadline(self) -> float | None:
        """Seconds until a running call expires; None when all calls still queue (a start notifies)."""
        ends = [call.started + call.limit for call in self._calls.values() if call.started is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _discard(self, slot: int) -> None:
        env = self._instances.pop(slot, None)
        if env is not None:
            self._close_later(env)

    def _close_later(self, env: Env) -> None:
        thread = threading.Thread(target=_close, args=(env,), daemon=True, name="env-closer")
        self._closing = [alive for alive in self._closing if alive.is_alive()] + [thread]
        thread.start()


def _close(env: Env) -> None:
    try:
        env.close()
    except Exception:  # a broken instance may fail to close; nobody needs it any more
        return
