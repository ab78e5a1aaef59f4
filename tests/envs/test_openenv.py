"""The client of OpenEnv servers: episodes, tasks, actions, and what servers do wrong."""

import json
import time

import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance import CHECKS, run_checks
from coevo_jax.envs.env import EnvFault, LimitsInstances, TriesActions
from coevo_jax.envs.observed import cut, new_of, text_of
from coevo_jax.envs.openenv import server as server_module
from coevo_jax.envs.openenv import standing as standing_module
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.written import Asked, NotAnAction, action_form
from tests.envs.openenv_server import NUMBER, SHOWN, TEXT, error, serving, wait_until


@pytest.fixture(autouse=True)
def fresh():
    server_module.ask_server.cache_clear()
    standing_module._STANDINGS.clear()


def making(server, **options):
    return make_env("openenv", {"url": server.url, "timeout": 5.0} | options)


def made(server, **options):
    return making(server, **options)()


def solve(env, task):
    """Guess from 0 up; the observations and the last result."""
    seen, result = [env.reset(task)], None
    for guess in range(10):
        result = env.step(str(guess))
        seen.append(result.observation)
        if result.done:
            break
    return seen, result


def test_an_episode_by_its_seed():
    with serving() as server:
        env = made(server)
        task = env.tasks("train")[0]
        seed = int(task.id.rpartition("/")[2])
        seen, result = solve(env, task)
        assert seen == ["Find a number from 0 to 9.", *["higher"] * (seed * 7 % 10), "right"]
        assert result.done and result.reward == 1.0
        assert env.system_prompt == "Give one integer a turn, as in\nAction: 0"
        with pytest.raises(RuntimeError, match="outside an episode"):
            env.step("1")
        env.close()


def test_splits_share_no_seed_and_have_the_sizes_asked_for():
    with serving() as server:
        env = made(server, train_tasks=30, dev_tasks=0, test_tasks=7)
        ids = [[task.id for task in env.tasks(split)] for split in ("train", "dev", "test")]
        assert [len(own) for own in ids] == [30, 0, 7]
        assert len({one for own in ids for one in own}) == 37
        assert ids[0] != sorted(ids[0])


def test_tasks_of_the_servers_own_lists():
    splits = [("all", "train", 40), ("held", "test", 3)]
    with serving(splits=splits) as server:
        env = made(server, dev_tasks=5)
        assert {task.id for task in env.tasks("test")} == {"held/0", "held/1", "held/2"}
        assert {task.id for task in env.tasks("dev")} == {f"all/{n}" for n in range(35, 40)}
        assert {task.id for task in env.tasks("train")} == {f"all/{n}" for n in range(35)}
        seen, _ = solve(env, env.tasks("test")[0])
        place = int(env.tasks("test")[0].id[-1])
        assert len(seen) == 2 + place * 7 % 10
        env.close()
    with serving(splits=[("only", "validation", 8)]) as server:
        server_module.ask_server.cache_clear()
        env = made(server)
        assert [len(env.tasks(split)) for split in ("train", "dev", "test")] == [5, 2, 1]


def test_only_what_is_new_is_shown():
    with serving(repeats=True) as server:
        env = made(server)
        seen, _ = solve(env, env.tasks("train")[0])
        assert set(seen[1:-1]) <= {"higher"} and seen[-1] == "right"
        env.close()
        whole = made(server, only_new=False)
        seen, _ = solve(whole, whole.tasks("train")[0])
        assert seen[-1].startswith("Find a number") and seen[-1].endswith("right")
        whole.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1.0),
        ({"reward": "sum", "reward_range": [0.0, 10.0]}, 0.34),
        ({"reward_range": [-1.0, 1.0]}, 1.0),
        ({"reward_range": [0.0, 4.0]}, 0.25),
    ],
)
def test_rewards_are_summed_or_the_last_one_and_scaled(options, expected):
    """Secret 4: guesses 0 to 4 are given 0.6, 0.7, 0.8, 0.9 and 1; the sum is 4, and 3.4 without 0's."""
    with serving() as server:
        env = made(server, **options)
        task = next(task for task in env.tasks("train") if int(task.id.rpartition("/")[2]) * 7 % 10 == 4)
        env.reset(task)
        results = [env.step(str(guess)) for guess in (1, 2, 3, 4)]
        assert results[-1].reward == pytest.approx(expected)
        assert [one.reward for one in results[:-1]] == [0.0, 0.0, 0.0]
        env.close()


def test_a_reward_that_is_null_until_the_end():
    with serving(null_until_end=True) as server:
        env = made(server)
        task = next(task for task in env.tasks("train") if int(task.id.rpartition("/")[2]) * 7 % 10 == 4)
        env.reset(task)
        env.step("1")
        assert env.reward_at_limit() == 0.0
        assert env.step("4").reward == 1.0
        env.close()


def test_what_the_server_takes_for_no_action_costs_a_turn_and_the_session_lives():
    with serving(schema={"action": TEXT | {"required": []}, "observation": SHOWN}) as server:
        env = made(server, action="record", examples=['{"message": "3"}'])
        env.reset(env.tasks("train")[0])
        assert env.step("3").observation == (
            "Invalid action: expected a JSON object with the fields message."
        )
        assert env.step('{"other": 1}').observation == "Invalid action: message: Field required."
        assert not env.step('{"message": "x"}').done
        assert server.resets == 1
        env.close()


def answering(schema, **options):
    return action_form(schema, Asked(**{"action": "auto"} | options))


def test_actions_of_every_kind():
    rng = np.random.default_rng([0])
    text = answering(TEXT, examples=("go north",))
    assert (text.kind, text.read("look"), text.tries(rng)) == ("text", {"message": "look"}, "go north")
    number = answering(NUMBER)
    assert (number.kind, number.read(" 7 ")) == ("integer", {"guess": 7})
    assert number.read("-3") == {"guess": -3}
    assert {number.tries(rng) for _ in range(200)} == {str(n) for n in range(10)}
    named = answering(NUMBER, choices=("left", "right"))
    assert (named.kind, named.read("Right ")) == ("choice", {"guess": 1})
    move = {"properties": {"move": {"$ref": "#/$defs/Move"}}, "$defs": {"Move": {"enum": ["up", "down"]}}}
    listed = answering(move)
    assert (listed.kind, listed.read("UP")) == ("choice", {"move": "up"})
    optional = {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    assert answering(optional).kind == "text"
    two = {"properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x", "y"]}
    record = answering(two)
    assert (record.kind, record.read('{"x": 1, "y": 2}')) == ("record", {"x": 1, "y": 2})
    assert answering(two, fixed={"y": 5}).read("3") == {"x": 3, "y": 5}
    assert answering(two, action="integer", action_field="y").read("3") == {"y": 3}
    call = {"properties": {"tool_name": {"type": "string"}, "arguments": {"type": "object"}}}
    tool = answering(call)
    assert tool.read('search {"q": 1}') == {
        "type": "call_tool",
        "tool_name": "search",
        "arguments": {"q": 1},
    }
    assert tool.read("stop")["arguments"] == {}
    for form, wrong in ((number, "9" * 5000), (number, "٣"), (number, ""), (named, "up"), (record, "[1]")):
        with pytest.raises(NotAnAction):
            form.read(wrong)
    for form, wrong in ((record, "[" * 100_000), (tool, "{}"), (tool, "search [1]")):
        with pytest.raises(NotAnAction):
            form.read(wrong)


@pytest.mark.parametrize(
    ("schema", "options", "message"),
    [
        ({"type": "array"}, {}, r"no kind of action fits .* fields are \{\"type\": \"array\"\}"),
        (NUMBER, {"action": "text"}, r"text, string in one field, fits .* guess \(integer\)"),
        (NUMBER, {"action": "choice"}, "choice without choices fits"),
        (NUMBER, {"action": "tool"}, "tool fits the environment's schema"),
        (NUMBER | {"additionalProperties": False}, {"fixed": {"gues": 1}}, "did you mean 'guess'"),
    ],
)
def test_a_schema_that_fits_no_kind_of_action_is_one_message(schema, options, message):
    told = {"action": schema, "observation": SHOWN}
    with serving(schema=told) as server, pytest.raises(ConfigError, match=message):
        made(server, **options)


def test_fields_and_templates_of_observations():
    record = {"prompt": "Play.", "messages": [{"content": "one"}, {"content": "two"}], "done": False, "n": 0}
    assert text_of(record, "messages.-1.content") == "two"
    assert text_of(record, "{prompt} [{n}] {messages.0.content}") == "Play. [0] one"
    assert text_of({"text": "a", "reward": 1, "metadata": {"b": 2}}, None) == "a"
    assert text_of(record, None) == (
        'prompt: Play.\nmessages: [{"content": "one"}, {"content": "two"}]\nn: 0'
    )
    assert text_of("plain", None) == "plain"
    with pytest.raises(EnvFault, match=r"no 'messages\.5\.content'"):
        text_of(record, "messages.5.content")
    assert new_of("a\nb\nc", "a\nb") == "c"
    assert new_of("a", "a") == "a"
    assert new_of("b", "a") == "b"
    assert cut("abcdefgh", 5) == "ab..." and cut("abcde", 5) == "abcde"
    message = r"no field 'test'.*did you mean 'text'"
    with serving() as server, pytest.raises(ConfigError, match=message):
        made(server, observation="{test}")


def test_no_server_is_one_message():
    with serving() as server:
        pass
    with pytest.raises(ConfigError, match=r"env\.options\.url: ws://127.* no server answers GET /schema"):
        made(server)


def test_another_protocol_is_one_message():
    page, endless = b"<html>hello</html>", b"[" * 3_000_000
    message = r"GET /schema answered 200 <html>.*OpenEnv 0\.10"
    with serving(schema=page) as server, pytest.raises(ConfigError, match=message):
        made(server)
    message = "answer of more than 1048576 bytes"
    with serving(schema=endless) as server, pytest.raises(ConfigError, match=message):
        made(server)


def fault_of(at_step, seconds=3.0, **options):
    """What an episode's step raises where a server does something in its place, and whether it goes on."""
    with serving(at_step=at_step) as server:
        env = made(server, **options)
        task = env.tasks("train")[0]
        env.reset(task)
        start = time.monotonic()
        with pytest.raises(EnvFault) as fault:
            env.step("1")
        assert time.monotonic() - start < seconds
        server.at_step = lambda connection, number: None
        with pytest.raises(EnvFault, match="closed in mid-episode"):
            env.step("1")
        assert solve(env, task)[1].done  # in a socket of its own: no answer of the last one is left
        env.close()
    return str(fault.value)


def sends(message):
    return lambda connection, number: connection.send(message) or True


def test_what_servers_do_wrong_is_a_fault_and_the_next_episode_works():
    assert "no answer to step within 0.2 s" in fault_of(lambda connection, number: True, timeout=0.2)
    assert "no message of OpenEnv's" in fault_of(sends(b"[1, 2]"))
    assert "no message of OpenEnv's" in fault_of(sends(b"hello"))
    assert "no message of OpenEnv's" in fault_of(sends(b"[" * 200_000))
    assert "an observation was expected" in fault_of(sends({"type": "state", "data": {}}))
    odd = {"type": "observation", "data": {"observation": {"text": ""}, "reward": 0, "done": "no"}}
    assert "done: found 'no'" in fault_of(sends(odd))
    assert "EXECUTION_ERROR: division" in fault_of(sends(error("EXECUTION_ERROR", "division by zero")))
    assert "the socket closed at step" in fault_of(lambda one, number: one.socket.shutdown(2) or True)
    for reward in ("high", float("nan"), [1]):
        content = {"observation": {"text": ""}, "reward": reward, "done": False}
        message = {"type": "observation", "data": content}
        with serving(at_step=sends(message)) as server:
            env = made(server)
            env.reset(env.tasks("train")[0])
            with pytest.raises(EnvFault, match=r"reward: found .*expected a finite number or null"):
                env.step("1")
            env.close()


def test_an_answer_of_a_hundred_megabytes_is_refused_by_its_head():
    """The frame says its length in front: nothing of the rest is read."""
    content = json.dumps({"type": "observation", "data": {"observation": "x" * (100 * 2**20)}}).encode()
    assert "the socket closed at step" in fault_of(sends(content), seconds=10.0)


def test_slots_of_a_full_server():
    with serving(capacity=3) as server:
        env = made(server)
        assert isinstance(env, LimitsInstances) and isinstance(env, TriesActions)
        assert env.most_instances(2) == 2
        wait_until(lambda: server.sessions == 0)
        assert env.most_instances(8) == 3
        wait_until(lambda: server.sessions == 0)
        env.close()


def test_a_place_that_is_taken_is_waited_for():
    with serving(capacity=1) as server:
        first, second = made(server), made(server)
        task = first.tasks("train")[0]
        first.reset(task)
        assert second.reset(task) == "Find a number from 0 to 9."  # the first one's place, after a while
        with pytest.raises(EnvFault, match="closed in mid-episode"):
            first.step("1")
        assert server.most == 1
        first.close(), second.close()


def test_a_killed_server_is_faults_and_then_one_message():
    with serving() as server:
        make = making(server, timeout=0.5, give_up=1.0)
        with EnvPool(make, workers=2, step_timeout=10.0) as pool:
            task = make().tasks("train")[0]
            pool.submit(0, lambda env: env.reset(task))
            assert pool.wait()[0] == "Find a number from 0 to 9."
            server.kill()
            start = time.monotonic()
            pool.submit(0, lambda env: env.step("1"))
            assert "the socket closed" in str(pool.wait()[0])
            faults = 0
            with pytest.raises(ConfigError, match=r"no session for \d+ s.*start the server again and resume"):
                while time.monotonic() - start < 20:
                    for slot in (0, 1):
                        pool.submit(slot, lambda env: env.reset(task))
                    outcomes = pool.wait()
                    assert all(isinstance(one, EnvFault) for one in outcomes.values())
                    faults += len(outcomes)
            assert 1 <= faults <= 8  # it waited between them
            assert time.monotonic() - start < 10


def test_a_server_that_comes_back_is_found_again():
    with serving() as server:
        env = made(server)
        task = env.tasks("train")[0]
        env.reset(task)
        for socket in server.sockets:  # as a server does that pings an idle socket in vain
            socket.shutdown(2)
        time.sleep(0.05)
        assert env.reset(task) == "Find a number from 0 to 9."
        env.close()


@pytest.mark.parametrize(("capacity", "silent"), [(1, False), (1, True), (64, False)])
def test_a_server_passes_every_check(capacity, silent):
    """A full server's last word may be lost with the socket: its goodbye says enough."""
    with serving(capacity=capacity, refuses_silently=silent) as server:
        results = run_checks(making(server, max_turns=12), tasks_per_split=1, call_timeout=20)
    failed = {result.name: result.message for result in results if result.status == "failed"}
    assert not failed
    skipped = {result.name for result in results if result.status == "skipped"}
    alone = {"close_is_local", "side_by_side"} if capacity == 1 else set()
    assert skipped == {"experts", "restored_states", "killed_process"} | alone
    assert len(results) == len(CHECKS)


def test_a_seed_that_is_ignored_is_found():
    with serving(ignores_seeds=True) as server:
        results = run_checks(making(server, max_turns=12), tasks_per_split=1, call_timeout=20)
    failed = {result.name: result.message for result in results if result.status == "failed"}
    assert "same_actions" in failed and "found the observation" in failed["same_actions"]
