"""How processes agree, divide their work and miss each other: a store in memory, a thread for each."""

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.errors import JaxRuntimeError

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault, StepResult
from coevo_jax.envs.pool import EnvPool
from coevo_jax.hosts import processes as processes_module
from coevo_jax.hosts import same_start
from coevo_jax.hosts.processes import Processes, ProcessGroup
from coevo_jax.hosts.same_start import difference, fingerprint, require_same_start
from coevo_jax.rollout.gathering import gather, interleaved
from coevo_jax.rollout.lockstep import LockstepPool
from coevo_jax.rollout.stats import RolloutStats, joined
from coevo_jax.run_folder import lock as lock_module
from tests.data.packed import trajectory
from tests.hosts.runs import ROOT


class MemoryStore:
    """JAX's key-value store as far as it is used here."""

    def __init__(self):
        self.values: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self._changed:
            if key in self.values and not allow_overwrite:
                raise JaxRuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.values, 0.05):
                raise JaxRuntimeError("DEADLINE_EXCEEDED: not yet")
            return self.values[key]

    def key_value_delete(self, key):
        with self._changed:
            self.values.pop(key, None)

    def key_value_dir_get(self, prefix):
        with self._changed:
            return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


def together(count, work):
    """`work(index, store)` in a thread for each of `count` processes; their results."""
    store = MemoryStore()
    with ThreadPoolExecutor(count) as pool:
        return [one.result(timeout=20) for one in [pool.submit(work, i, store) for i in range(count)]], store


def test_all_get_the_values_of_all_and_nothing_old_stays():
    def work(index, store):
        circle = ProcessGroup(store, "all", index, 3)
        return [circle.exchange("number", [index, round]) for round in range(4)]

    results, store = together(3, work)
    assert results == [[[[i, round] for i in range(3)] for round in range(4)]] * 3
    assert list(store.values) == ["coevo/all/4/all"]


def test_what_is_done_once_is_done_by_the_first_and_known_to_all():
    calls = []

    def work(index, store):
        return ProcessGroup(store, "all", index, 3).once(
            "clock", lambda: calls.append(index) or {"time": 7.5}
        )

    assert together(3, work)[0] == [{"time": 7.5}] * 3
    assert calls == [0]


def test_processes_that_are_at_different_places_are_told_so():
    def work(index, store):
        with pytest.raises(RuntimeError, match="process 1 is at 'learn', process 0 at 'explore'") as caught:
            ProcessGroup(store, "all", index, 2).exchange("learn" if index else "explore", None)
        return caught

    with pytest.raises(BaseException, match="process 0 is at 'explore', process 1 at 'learn'"):
        together(2, work)


def numbered(index, count, monkeypatch, store=None):
    """A member of a run whose devices are not asked."""
    for watch in ("_watch", "_watch_first"):
        monkeypatch.setattr(Processes, watch, lambda self: None)
    monkeypatch.setattr("jax.process_index", lambda: index)
    monkeypatch.setattr("jax.process_count", lambda: count)
    monkeypatch.setattr(processes_module.distributed.global_state, "client", store or MemoryStore())
    return Processes()


def test_several_processes_that_have_not_joined_are_refused(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"devices of 4 processes, .* set COEVO_CLUSTER"):
        Processes()


def wordless(task, sample):
    return trajectory([], "", task=f"{task}", sample=sample)


@given(st.integers(0, 12), st.integers(1, 3), st.integers(1, 5))
def test_shares_put_together_are_the_block(tasks, samples, count):
    whole = [wordless(task, sample) for task in range(tasks) for sample in range(samples)]
    parts = [
        [wordless(task, sample) for task in range(tasks)[index::count] for sample in range(samples)]
        for index in range(count)
    ]
    said = [(t.task_id, t.sample) for t in interleaved(parts, samples)]
    assert said == [(t.task_id, t.sample) for t in whole]


def test_a_group_in_lockstep_has_one_share(monkeypatch):
    shares = []
    for index in range(4):
        with monkeypatch.context() as patch:
            shares.append(numbered(index, 4, patch).share_of(range(7), 2))
    assert [list(share) for share in shares] == [[0, 2, 4, 6], [0, 2, 4, 6], [1, 3, 5], [1, 3, 5]]


def test_one_process_writes_its_shard_itself(tmp_path):
    stats = RolloutStats(episodes=1)
    path = tmp_path / "target-00000-of-00001.parquet"
    assert gather(Processes(), path, [wordless(0, 0)], stats, samples=1) is stats
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_counts_of_processes_add_up_and_the_slowest_gives_the_time():
    a = RolloutStats(episodes=2, endings={"solved": 1}, seconds=3.0, decoded_tokens=10, env_latency=(1, 2, 9))
    b = RolloutStats(episodes=1, endings={"solved": 1}, seconds=5.0, decoded_tokens=7, env_latency=(2, 2, 3))
    both = joined([a, b])
    assert (both.episodes, both.endings, both.seconds, both.decoded_tokens) == (3, {"solved": 2}, 5.0, 17)
    assert both.env_latency == (2, 2, 9)


def test_every_file_and_option_is_part_of_the_fingerprint():
    found = fingerprint(Config(name="a"))
    assert found["config mesh.data"] == "1" and found["config name"] == '"a"'
    assert "code coevo_jax/hosts/same_start.py" in found and "code launch/train.py" in found
    assert found["package jax"]


def start(host, **changes):
    return {"host": host, "start": {"code a.py": "sha256 1", "config seed": "0"} | changes}


def test_the_first_process_that_differs_is_named_with_what_differs():
    starts = [start("a"), start("b"), start("c", **{"config seed": "7"})]
    assert difference(starts).startswith(
        "process 2 (c) differs from process 0 (a): config seed: found 7, expected 0; start all"
    )
    starts[1]["start"].pop("code a.py")
    assert "process 1 (b) differs from process 0 (a): code a.py: found missing" in difference(starts)


def test_processes_with_different_configs_are_all_refused(monkeypatch):
    monkeypatch.setattr(same_start, "CODE", ())

    def work(index, store):
        circle = ProcessGroup(store, "all", index, 2)
        circle.host = f"host-{index}"  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ConfigError) as caught:
            require_same_start(circle, Config(name="a", seed=index), {"resume": None})  # pyright: ignore[reportArgumentType]
        return str(caught.value)

    messages, _ = together(2, work)
    assert messages[0] == messages[1]
    assert messages[0].startswith("process 1 (host-1) differs from process 0 (host-0): config seed: found 1")


def test_a_process_without_a_sign_of_life_is_reported_once_its_time_is_over(monkeypatch):
    store = MemoryStore()
    leader = numbered(0, 3, monkeypatch, store)
    monkeypatch.setattr(processes_module, "LOST_AFTER", 3 * processes_module.BEAT)
    store.key_value_set("coevo/host/2", "host-2")
    signs = {str(index): ("", 0) for index in range(3)}
    for beat in range(8):
        for index in range(3):
            if index < 2 or beat < 2:
                store.key_value_set(f"coevo/alive/{index}", f"{beat}", allow_overwrite=True)
        leader._find_lost(signs)
        assert ("coevo/failed/first" in store.values) == (beat >= 5), beat
    words = store.values["coevo/failed/first"]
    assert "process 2 of 3 (host-2) ended this run: it is lost: no sign of life for 6 s" in words


WATCH_FIRST = Processes._watch_first  # which `numbered` takes away


class Left(BaseException):
    """Stands for a process that has left."""


def watch_first(monkeypatch, capsys, refuses) -> str:
    """What the second of two processes says before it leaves for want of process 0, which is silent."""
    store = MemoryStore()
    store.key_value_set("coevo/host/0", "host-0")
    second = numbered(1, 2, monkeypatch, store)
    monkeypatch.setattr(processes_module, "BEAT", 0.01)
    monkeypatch.setattr(processes_module, "LOST_AFTER", 0.05)
    monkeypatch.setattr(processes_module, "_linger_at_abort", lambda: None)
    monkeypatch.setattr(processes_module, "_refuses_connections", refuses)
    codes = []

    def leave(code):
        codes.append(code)
        raise Left

    monkeypatch.setattr(processes_module.os, "_exit", leave)
    second._heard = 1  # it was there once
    with pytest.raises(Left):
        WATCH_FIRST(second)
    assert codes == [134]
    return capsys.readouterr().err


def test_the_others_say_that_process_0_is_lost(monkeypatch, capsys):
    told = watch_first(monkeypatch, capsys, lambda address: True)
    words = "its machine refuses connections; started again, the run goes on from its last commit"
    assert told == f"error: process 0 of 2 (host-0) is lost: {words}\n"


def test_a_process_0_that_is_silent_is_lost_too(monkeypatch, capsys):
    looks = []
    told = watch_first(monkeypatch, capsys, lambda address: bool(looks.append(address)))
    assert "process 0 of 2 (host-0) is lost: no sign of life for 0 s; started again" in told
    assert looks, "it was asked before it was given up"


def test_only_a_refusal_says_that_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert not processes_module._refuses_connections(address)
    assert processes_module._refuses_connections(address)
    assert not processes_module._refuses_connections(None)
    assert not processes_module._refuses_connections("no-such-host.invalid:1")


ABORT = """
import ctypes, os, threading, time
from coevo_jax.hosts.processes import _linger_at_abort
_linger_at_abort()
threading.Thread(target=lambda: (time.sleep(0.3), os._exit(7))).start()
ctypes.CDLL(None).abort()
"""


def test_an_abort_leaves_time_to_say_why():
    """The thread that aborts waits in the C library; another goes on, as the watch does."""
    done = subprocess.run([sys.executable, "-c", ABORT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr


class _Env:
    """Answers with what it was asked, and breaks when asked to."""

    def step(self, action):
        if action == "break":
            raise ValueError("broken")
        return StepResult(observation=action, done=False, reward=0.1)

    def close(self):
        return


def test_hosts_in_lockstep_see_the_same_answers_wherever_the_environments_live():
    def work(index, store):
        with EnvPool(_Env, workers=1, step_timeout=10) as own:  # pyright: ignore[reportArgumentType]
            pool = LockstepPool(own, ProcessGroup(store, "group", index, 2))
            for slot, action in enumerate(["a", "break", "c"]):
                pool.submit(slot, lambda env, action=action: env.step(action))
            first = pool.wait({0, 1})
            later = pool.ready({2}, wait=True)  # of host 0 alone: host 1 has nothing to wait for
            return first, later, pool.calls, len(own._instances)

    results, _ = together(2, work)
    for first, later, calls, _ in results:
        assert list(first) == [0, 1] and first[0].observation == "a" and isinstance(first[1], EnvFault)
        assert later == {2: StepResult(observation="c", done=False, reward=0.1)}
        assert calls == 3
    assert [instances for *_, instances in results] == [2, 0]  # a broken one is replaced at its next call


def test_a_host_that_does_not_share_the_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "SHARED_WITHIN", 0.5)

    def work(index, store):
        folder = tmp_path / f"disk-of-host-{index}"
        folder.mkdir()
        circle = ProcessGroup(store, "all", index, 2)
        circle.host = f"host-{index}"  # pyright: ignore[reportAttributeAccessIssue]
        if index:
            with pytest.raises(ConfigError, match="disk-of-host-1: not the folder that process 0 writes to"):
                lock_module.hold(folder, circle)  # pyright: ignore[reportArgumentType]
        else:
            lock_module.hold(folder, circle).close()  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess]

    together(2, work)
