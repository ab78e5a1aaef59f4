"""Checks of instances: closing, neighbours, threads, faults through the pool, and what is left behind."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coevo_jax.envs.conformance.footprint import Footprint, child_processes, footprint, supported
from coevo_jax.envs.conformance.probe import EnvRaised, NotApplicable, Played, Probe, Violation, shorten
from coevo_jax.envs.env import Env, EnvFault, Task
from coevo_jax.envs.pool import EnvPool

NEIGHBOURS = 3  # instances side by side
CYCLES = 3  # instances made and closed while leaks are looked for
SETTLE_SECONDS = 5.0  # what closes in the background has this long
SHORTEST_TIMEOUT = 2.0  # seconds of the pool's time limit in these checks
PATIENCE = 6.0  # that limit, in multiples of what a call takes


def close_twice(probe: Probe) -> str:
    """`close` may be called twice: on a new instance, in mid-episode and after an episode."""
    task = probe.sample()[0]
    for place, turns in (("a new instance", -1), ("an instance in mid-episode", 1), ("an instance", None)):
        env = probe.open()
        if turns != -1:
            probe.try_play(env, task, probe.solution(task)[:turns])
        for time_called in ("first", "second"):
            probe.call(f"the {time_called} close of {place}", env.close)
    return "3 instances"


def use_after_close(probe: Probe) -> str:
    """After `close`, a reset raises or works; it does not hang, and answers nothing but a text."""
    task, env = probe.sample()[0], probe.open()
    probe.try_play(env, task, probe.solution(task))
    _close(probe, env)
    try:
        found: Any = probe.reset(env, task)
    except EnvRaised:
        return "reset raises"
    if not isinstance(found, str):
        raise Violation(f"reset after close: found {shorten(found)}, expected an exception or a text")
    return "reset works again"


def close_is_local(probe: Probe) -> str:
    """Closing an instance leaves the episode of another as it is."""
    probe.most_instances(2)
    task, neighbour = probe.sample()[0], probe.sample()[-1]
    expected = probe.reference(task).played
    closing, env = probe.open(), probe.open()
    probe.reset(closing, neighbour)
    probe.reset(env, task)
    _close(probe, closing)
    results = [probe.step(env, task, action) for action in expected.actions]
    reward = results[-1].reward if results[-1].done else probe.limit_reward(env, task)
    found = Played(
        task=task, prompt=expected.prompt, actions=expected.actions, results=tuple(results), reward=reward
    )
    probe.compare(expected, found, "while another instance was closed")
    return probe.counts()


def side_by_side(probe: Probe) -> str:
    """Instances that play in several threads at once do not influence each other."""
    probe.most_instances(NEIGHBOURS)
    tasks = (probe.sample() * NEIGHBOURS)[:NEIGHBOURS]
    expected = [probe.reference(task).played for task in tasks]
    barrier = threading.Barrier(NEIGHBOURS)

    def play(one: Played) -> Played | None:
        env = probe.open()
        stepped = _InStep(env, barrier)
        try:
            return probe.play(stepped, one.task, one.actions)
        finally:
            stepped.leave()

    with ThreadPoolExecutor(NEIGHBOURS) as threads:
        futures = [threads.submit(play, one) for one in expected]
        found = [future.result() for future in futures]
    for one, other in zip(expected, found, strict=True):
        assert other is not None
        probe.compare(one, other, f"beside {NEIGHBOURS - 1} other instances in threads")
    return f"{NEIGHBOURS} instances, {probe.counts()}"


def any_thread(probe: Probe) -> str:
    """An instance may be called from any thread, one at a time: the pool moves it between turns."""
    task = probe.sample()[0]
    expected = probe.reference(task).played
    env = probe.open()
    found = probe.play(_MovesThread(env), task, expected.actions)
    probe.compare(expected, found, "with every call in a new thread")
    return probe.counts()


def faults(probe: Probe) -> str:
    """An exception or a hang in mid-episode becomes an `EnvFault`, and the slot's next episode works."""
    task = probe.sample()[0]
    expected = probe.reference(task).played
    release = threading.Event()

    def fail(env: Env) -> None:
        _begin(probe, env, task)
        raise RuntimeError("an exception made by this check")

    def hang(env: Env) -> None:
        _begin(probe, env, task)
        release.wait(60)

    try:
        with EnvPool(probe.make_env, workers=1, step_timeout=_timeout(probe, task)) as pool:
            for what, break_it in (("an exception", fail), ("a hang", hang)):
                outcome = _call(pool, break_it)
                if not isinstance(outcome, EnvFault):
                    raise Violation(f"{what} in mid-episode: found {shorten(outcome)}, expected an EnvFault")
                _expect_next(probe, pool, expected, f"the next episode after {what}")
    finally:
        release.set()
    return "2 faults, the next episodes as alone"


def killed_process(probe: Probe) -> str:
    """When the environment's process is killed in mid-episode, that episode ends and the next one works."""
    if not supported():
        raise NotApplicable("this system does not tell which processes an environment starts")
    task = probe.sample()[0]
    expected, timeout = probe.reference(task).played, _timeout(probe, task)
    probe.close_all()
    with EnvPool(probe.make_env, workers=1, step_timeout=timeout) as pool:
        outcome = _call(pool, lambda env: _begin(probe, env, task))
        if isinstance(outcome, EnvFault):
            raise Violation(f"before anything was killed: {outcome}")
        children = set(child_processes()) - probe.earlier_processes
        if not children:
            raise NotApplicable("it starts no process")
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + SETTLE_SECONDS
        while children & set(child_processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        outcome = _call(pool, lambda env: probe.step(env, task, expected.actions[-1]))
        if not isinstance(outcome, EnvFault) and outcome.done and outcome.reward > expected.reward:
            raise Violation(f"the step after the kill earned {outcome.reward:g} for task {task.id}")
        _expect_next(probe, pool, expected, "the next episode after the kill")
    ending = "a fault" if isinstance(outcome, EnvFault) else "an answer"
    return f"processes killed: {len(children)}; the step gave {ending}"


def leaks(probe: Probe) -> str:
    """After `close` no process, thread, open file or temporary file is left."""
    if not supported():
        raise NotApplicable("this system does not tell what a process holds")
    task = probe.sample()[0]
    actions = probe.solution(task)
    probe.close_all()
    with _temporary_folder() as folder:

        def cycle() -> None:
            env = probe.call("making an instance", probe.make_env)
            try:
                probe.play(env, task, actions[:1])
            finally:
                _close(probe, env)

        cycle()  # what is made once and kept, such as a pool of connections, is no leak
        before = footprint(folder)
        for _ in range(CYCLES):
            cycle()
        grown = _settled(lambda: footprint(folder), before, min(SETTLE_SECONDS, probe.call_timeout))
    if grown:
        raise Violation(
            f"after {CYCLES} more instances were closed, found {'; '.join(grown)} more, expected none"
        )
    return f"{CYCLES + 1} instances"


def _begin(probe: Probe, env: Env, task: Task) -> None:
    """Go into the middle of an episode."""
    probe.play(env, task, probe.solution(task)[:1])


def _timeout(probe: Probe, task: Task) -> float:
    """A time limit that a healthy instance keeps, from a new one's first episode."""
    return max(min(SHORTEST_TIMEOUT, probe.call_timeout), PATIENCE * probe.reference(task).seconds)


def _call(pool: EnvPool, function: Callable[[Env], Any]) -> Any:
    pool.submit(0, function)
    return pool.wait()[0]


def _expect_next(probe: Probe, pool: EnvPool, expected: Played, when: str) -> None:
    found = _call(pool, lambda env: probe.play(env, expected.task, expected.actions))
    if isinstance(found, EnvFault):
        raise Violation(f"task {expected.task.id}, {when}: {found}")
    probe.compare(expected, found, when)


def _close(probe: Probe, env: Env) -> None:
    """Close, whatever that raises: the check `close_twice` tells."""
    try:
        probe.call("close", env.close)
    except EnvRaised:
        return


def _settled(measure: Callable[[], Footprint], before: Footprint, seconds: float) -> list[str]:
    """What has grown, once what ends in the background had time to."""
    deadline = time.monotonic() + seconds
    while (grown := measure().growth(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return grown


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Lead temporary files of this process and of those it starts into an empty folder meanwhile."""
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as folder:
        earlier = (tempfile.tempdir, os.environ.get("TMPDIR"))
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = earlier[0]
            if earlier[1] is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = earlier[1]


class _Wrapped:
    """An environment whose calls go through `around`."""

    def __init__(self, env: Env):
        self._env = env
        self.name, self.system_prompt, self.deterministic = env.name, env.system_prompt, env.deterministic
        self.tasks, self.max_turns, self.expert, self.close = env.tasks, env.max_turns, env.expert, env.close

    def around(self, function: Callable[[], Any]) -> Any:
        return function()

    def reset(self, task: Task) -> str:
        return self.around(lambda: self._env.reset(task))

    def step(self, action: str) -> Any:
        return self.around(lambda: self._env.step(action))

    def reward_at_limit(self) -> float:
        return self.around(self._env.reward_at_limit)


class _InStep(_Wrapped):
    """Waits before every call until all neighbours are about to make theirs."""

    def __init__(self, env: Env, barrier: threading.Barrier):
        super().__init__(env)
        self._barrier = barrier

    def around(self, function: Callable[[], Any]) -> Any:
        with suppress(threading.BrokenBarrierError):  # a neighbour has finished: no more step to keep
            self._barrier.wait(10)
        return function()

    def leave(self) -> None:
        self._barrier.abort()


class _MovesThread(_Wrapped):
    """Makes every call in a new thread."""

    def around(self, function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(function).result()
