"""Episodes whose turns a server writes: those of the engine, and what happens when the server fails."""

import socket
import threading
import time
from functools import partial

import jax
import numpy as np
import pytest

from coevo_jax.config.options import RolloutConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.pool import EnvPool
from coevo_jax.rollout import EpisodeSet, play, play_together
from coevo_jax.rollout.endpoint import Endpoint, Served, ask, base_model, list_models, probe
from coevo_jax.rollout.server_engine import ServerEngine
from coevo_jax.sampling.engine import Sampling
from coevo_jax.trajectory import Ending
from tests.rollout.stub_server import Stub, StubServer
from tests.rollout.test_modes import assert_same_episodes, stop_after
from tests.rollout.test_play import (
    ENGINE,
    LENGTH,
    agent_runs,
    assert_well_formed,
    learner,
    play_with,
    text_of,
)
from tests.scripted_env import MODEL, CharChat, ScriptedEnv, SlowEnv, make_engine, make_tasks, random_params

CHAT, PARAMS = CharChat(), random_params()


@pytest.fixture(scope="module")
def running():
    with StubServer(Stub(model=MODEL, params=PARAMS, longest=LENGTH)) as server:
        yield server


@pytest.fixture
def server(running):
    """The one server of the module, as new."""
    stub = running.stub
    stub.eos, stub.delay, stub.edit = frozenset(), 0.0, lambda answer: answer
    for kept in (stub.asked, stub.posted, stub.plan, stub.adapters):
        kept.clear()
    return running


def served(server, model="base", timeout=20.0) -> Served:
    return Served(endpoint=Endpoint(url=server.url, timeout=timeout), model=model)


def server_engine(slots=3, max_turn_tokens=12, vocab_size=MODEL.vocab_size, **options) -> ServerEngine:
    config = RolloutConfig(
        slots=slots, max_tokens=LENGTH, max_turn_tokens=max_turn_tokens, joining="as_ready"
    )
    return ServerEngine(config, end_id=CHAT.end_id, vocab_size=vocab_size, **options)


def play_through(
    where, make_env=ScriptedEnv, *, engine=None, tasks=4, workers=2, step_timeout=10.0, **options
):
    engine = engine or server_engine()
    arguments = {"agent": "target", "samples": 1, "temperature": 0.0, "seed": 0, "phase": 0}
    with EnvPool(make_env, workers=workers, step_timeout=step_timeout) as pool:
        played = play(engine, where, pool, CHAT, make_tasks(tasks), **{**arguments, **options})
    engine.close()
    return played


@pytest.mark.parametrize(
    ("turn_tokens", "env"),
    [
        (12, {}),
        (12, {"ends_at": 9, "turns": 3}),  # turn limit
        (3, {}),  # token limit within a turn
        (12, {"observation": 70}),  # token limit by what is observed
        (12, {"observation": 400}),  # the prompt alone does not fit
        (12, {"final_reward": 0.5}),
    ],
)
def test_greedy_episodes_are_those_of_the_engine(server, turn_tokens, env):
    engine = ENGINE if turn_tokens == 12 else make_engine(max_tokens=LENGTH, max_turn_tokens=turn_tokens)
    make_env = partial(ScriptedEnv, **env)
    expected, _ = play_with(make_env, tasks=6, engine=engine, temperature=0.0)
    found, stats = play_through(
        served(server), make_env, tasks=6, engine=server_engine(max_turn_tokens=turn_tokens)
    )
    assert_same_episodes(found, expected)
    assert [t.reward for t in found] == [t.reward for t in expected]
    assert stats.agent_tokens == stats.decoded_tokens == sum(t.agent_mask.sum() for t in found)


def test_the_scripted_environments_reach_every_ending_but_the_fault(server):
    endings = set()
    for turn_tokens, env in (
        (12, {}),
        (12, {"ends_at": 9, "turns": 2}),
        (3, {}),
        (12, {"final_reward": 0.5}),
    ):
        found, _ = play_through(
            served(server), partial(ScriptedEnv, **env), engine=server_engine(max_turn_tokens=turn_tokens)
        )
        endings |= {t.ending for t in found}
    assert endings == set(Ending) - {Ending.FAULT, Ending.LOST, Ending.ANSWERED}  # of branches and questions


def test_drawn_turns_repeat_with_the_seed_and_have_the_learners_logps(server):
    options = {"temperature": 1.0, "samples": 2, "tasks": 5}
    one, stats = play_through(served(server), **options)
    seeds = {body["seed"] for body in server.stub.asked}
    assert len(seeds) == len(server.stub.asked) == stats.turns > 10
    two, _ = play_through(served(server), SlowEnv, engine=server_engine(slots=7), **options)
    assert_same_episodes(one, two)
    other, _ = play_through(served(server), **options, seed=1)
    assert [text_of(t) for t in other] != [text_of(t) for t in one]
    assert text_of(one[0]) != text_of(one[1])  # samples of one task
    for trajectory in one:
        assert_well_formed(trajectory)
        logps, _ = learner(trajectory.tokens)
        for start, stop in agent_runs(trajectory):
            np.testing.assert_allclose(trajectory.logps[start:stop], logps[start - 1 : stop - 1], atol=1e-4)


def test_what_is_sent(server):
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.01}
    [trajectory], _ = play_through(served(server), tasks=1, **sampling)
    first, second = server.stub.asked[:2]
    expected = {"model": "base", "stop_token_ids": [CHAT.end_id], "logprobs": 0, "return_token_ids": True}
    for name, value in {**sampling, **expected}.items():
        assert first[name] == value
    (start, stop), (next_start, _) = agent_runs(trajectory)[:2]
    assert first["prompt"] == trajectory.tokens[:start].tolist()
    assert second["prompt"] == trajectory.tokens[:next_start].tolist()
    assert first["max_tokens"] == 12 and trajectory.tokens[stop - 1] == CHAT.end_id
    assert 0 <= first["seed"] < 2**31
    play_through(served(server), tasks=1)
    assert server.stub.asked[-1]["top_k"] == -1 and server.stub.asked[-1]["temperature"] == 0


def test_a_turn_stops_at_its_actions_line(server):
    local = make_engine(max_tokens=LENGTH, stop=stop_after(3))
    expected, _ = play_with(tasks=6, engine=local, temperature=0.0)
    found, stats = play_through(served(server), tasks=6, engine=server_engine(stop=stop_after(3)))
    assert_same_episodes(found, expected)
    assert any(t.tokens[stop - 1] != CHAT.end_id for t in found for _, stop in agent_runs(t)[:-1])
    assert stats.values()["server_unused_tokens"] > 0


def test_another_token_at_which_the_server_stops_does_not_end_a_turn(server):
    """As with models whose generation_config.json names several end tokens."""
    expected, _ = play_with(tasks=6, engine=ENGINE, temperature=0.0)
    drawn = np.concatenate([t.tokens[t.agent_mask] for t in expected])
    server.stub.eos = frozenset(np.unique(drawn[drawn != CHAT.end_id]).tolist()[::2])
    found, stats = play_through(served(server), tasks=6)
    assert_same_episodes(found, expected)
    assert stats.values()["server_requests"] > stats.turns


def test_two_agents_play_side_by_side_what_they_play_alone(server):
    server.stub.adapters["other"] = random_params(1)
    casts = [
        EpisodeSet(agent=agent, weights=served(server, model), tasks=make_tasks(4), samples=2, phase=phase)
        for agent, model, phase in (("target", "base", 4), ("failure", "other", 5))
    ]
    sampling = Sampling(root=jax.random.key(0), temperature=1.0)
    engine = server_engine()
    with EnvPool(SlowEnv, workers=2, step_timeout=10) as pool:
        together = play_together(engine, pool, CHAT, casts, sampling=sampling)
        alone = [play_together(engine, pool, CHAT, [cast], sampling=sampling)[0] for cast in casts]
    engine.close()
    for (found, stats), (expected, _), cast in zip(together, alone, casts, strict=True):
        assert_same_episodes(found, expected)
        assert {t.agent for t in found} == {cast.agent} and stats.episodes == 8
    assert text_of(together[0][0][0]) != text_of(together[1][0][0])
    requests = together[0][1].values()["server_requests"]
    assert requests == sum(stats.turns for _, stats in together)  # what is shared stands with each


def test_the_metrics_are_a_servers(server):
    server.stub.delay = 0.01
    _, stats = play_through(served(server), SlowEnv, tasks=4)
    values = stats.values()
    assert values["server_requests"] == stats.turns and values["server_retries"] == 0
    assert values["server_prompt_tokens"] == sum(len(body["prompt"]) for body in server.stub.asked)
    assert (
        0.01 <= values["server_p50_seconds"] <= values["server_p95_seconds"] <= values["server_p99_seconds"]
    )
    assert 0 < values["server_requests_under_way"] <= 3
    invented = ("slot_occupancy", "device_busy_share", "decode_seconds", "prefix_hits", "prefill_tokens")
    assert not values.keys() & set(invented)
    assert stats.decode_seconds == stats.prefill_seconds == 0


def test_a_finished_turn_waits_for_nobody(server):
    """One slow environment does not keep the others' turns back, nor does a slow answer of the server."""
    release = threading.Event()

    def wait_then_answer(handler):
        release.wait(10)
        handler.answer(503, {})

    server.stub.plan.append(wait_then_answer)
    started = []

    class Counting(ScriptedEnv):
        def reset(self, task):
            started.append(task.id)
            if len(started) == 4:  # two whole episodes are over, and the first turn is still not written
                release.set()
            return super().reset(task)

    found, stats = play_through(served(server), Counting, engine=server_engine(slots=2))
    assert release.is_set() and len(found) == 4 and stats.values()["server_retries"] == 1


def test_environments_that_die_and_zero_tasks(server):
    dying = partial(ScriptedEnv, fail=frozenset(range(9)))
    found, stats = play_through(served(server), dying, tasks=5, samples=2)
    assert [t.ending for t in found] == [Ending.FAULT] * 10
    assert stats.values()["faults"] == 10 and stats.values()["server_requests"] == 0
    found, stats = play_through(served(server), partial(ScriptedEnv, fail=frozenset({2})), tasks=5)
    assert {t.ending for t in found} == {Ending.FAULT, Ending.TOKEN_LIMIT}
    assert all(len(t.turns) == 2 for t in found if t.ending is Ending.FAULT)
    found, stats = play_through(served(server), tasks=0)
    assert found == [] and stats.values()["server_requests"] == 0
    hung = partial(ScriptedEnv, hang=frozenset({0}))
    found, _ = play_through(served(server), hung, tasks=3, step_timeout=0.1)
    assert [t.ending for t in found] == [Ending.FAULT] * 3


def test_an_agent_that_never_ends_its_turn(server):
    server.stub.adapters["endless"] = {**PARAMS, "head": PARAMS["head"].at[CHAT.end_id].set(-5.0)}
    found, stats = play_through(served(server, "endless"), tasks=5)
    assert [t.ending for t in found] == [Ending.TOKEN_LIMIT] * 5
    assert stats.values()["ending_token_limit"] == 5
    assert all(t.agent_mask.sum() == 12 for t in found)


def busy(handler):
    handler.answer(503, {"error": "warming up"})


def hang_up(handler):
    handler.hang_up()


def cut_short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "999")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.hang_up()


def test_failures_that_pass_are_tried_again(server, monkeypatch):
    monkeypatch.setattr("coevo_jax.rollout.endpoint.WAITS", (0.01,))
    expected, _ = play_with(tasks=4, engine=ENGINE, temperature=0.0)
    server.stub.plan.extend([busy, hang_up, busy, cut_short, busy])
    found, stats = play_through(served(server), tasks=4)
    assert_same_episodes(found, expected)
    assert stats.values()["server_retries"] == 5 and stats.values()["server_requests"] == stats.turns


def changed(**changes):
    """An edit of a completion's choice; None takes a key out."""

    def edit(answer):
        choice = {**answer["choices"][0], **changes}
        kept = {key: value for key, value in choice.items() if value is not None}
        return {**answer, "choices": [kept]}

    return edit


def longer(answer):
    tokens = [5] * 99
    scores = {"token_logprobs": [-1.0] * 99}
    return changed(token_ids=tokens, logprobs=scores)(answer)


BAD_ANSWERS = {
    "no token ids": (changed(token_ids=None), "has the token_ids null, expected integers .return_token_ids"),
    "text for ids": (changed(token_ids=["a"]), r"token_ids \[\"a\"\], expected integers"),
    "no logprobs": (changed(logprobs=None), "expected choices with token_ids and logprobs"),
    "a logprob missing": (
        changed(token_ids=[5, 5], logprobs={"token_logprobs": [-1.0]}),
        "a number for each of 2 tokens",
    ),
    "a null logprob": (changed(token_ids=[5], logprobs={"token_logprobs": [None]}), "a number for each"),
    "a probability": (changed(token_ids=[5], logprobs={"token_logprobs": [0.7]}), "logarithms of prob"),
    "not a number": (changed(token_ids=[5], logprobs={"token_logprobs": [float("nan")]}), "logarithms"),
    "another vocabulary": (
        changed(token_ids=[32000], logprobs={"token_logprobs": [-1.0]}),
        f"32000, expected ids of this run's vocabulary of {MODEL.vocab_size}",
    ),
    "nothing": (
        changed(token_ids=[], logprobs={"token_logprobs": []}),
        "has no token, expected at least the one that ended the turn",
    ),
    "too much": (longer, "has 99 tokens, expected at most max_tokens"),
    "another prompt": (changed(prompt_token_ids=[0, 5]), "expected the very tokens that were sent"),
    "no choices": (lambda answer: {"choices": []}, "expected choices"),
    "no JSON": (lambda answer: "<html>busy</html>", "html"),
}


@pytest.mark.parametrize("edit, words", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_an_impossible_answer_stops_the_play_with_one_message(server, edit, words):
    server.stub.edit = edit
    with pytest.raises(ConfigError, match=words) as error:
        play_through(served(server))
    assert f"{server.url}/completions, model base" in str(error.value)
    with pytest.raises(ConfigError, match=words):
        probe(served(server), [3, 4, 5], vocab_size=MODEL.vocab_size)


def test_a_model_that_the_server_does_not_know(server):
    with pytest.raises(ConfigError, match=r"completions: .*HTTP 404: .*The model `other` does not exist"):
        play_through(served(server, "other"))
    assert len(server.stub.asked) <= 3  # nothing was tried again


def test_a_text_longer_than_the_servers_context(server, monkeypatch):
    monkeypatch.setattr(server.stub, "longest", 60)
    with pytest.raises(ConfigError, match=r"HTTP 400: .*maximum context length is 60 tokens"):
        play_through(served(server))
    with pytest.raises(ConfigError, match=r"context of 60 tokens is shorter than rollout.max_tokens 160"):
        base_model(served(server).endpoint, LENGTH)


def test_a_server_that_dies_midway_stops_the_play_in_time(server, monkeypatch):
    monkeypatch.setattr("coevo_jax.rollout.endpoint.WAITS", (0.05,))
    engine = server_engine()
    with StubServer(server.stub) as dying:
        where, turns = served(dying, timeout=0.5), []

        class Deadly(ScriptedEnv):
            def step(self, action):
                turns.append(action)
                if len(turns) == 4:
                    dying.socket.close()
                return super().step(action)

        started = time.monotonic()
        with pytest.raises(ConfigError, match=r"no answer within .* tries .* with --resume"):
            play_through(where, Deadly, engine=engine, tasks=8)
        assert time.monotonic() - started < 10
    found, _ = play_through(served(server), engine=engine, tasks=8)  # the same engine, a server that is up
    expected, _ = play_with(tasks=8, engine=ENGINE, temperature=0.0)
    assert_same_episodes(found, expected)


def test_a_server_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = Served(
            endpoint=Endpoint(url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.4), model="base"
        )
        started = time.monotonic()
        with pytest.raises(ConfigError, match=r"no answer within .*timed out"):
            play_through(where)
        with pytest.raises(ConfigError, match="is the server up"):
            list_models(where.endpoint, once=True)
        assert time.monotonic() - started < 5


def test_an_answer_that_comes_drop_by_drop_is_given_up(server):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "400")
        handler.end_headers()
        try:
            for _ in range(400):
                handler.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            handler.close_connection = True

    server.stub.plan.extend([drip] * 9)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="came too slowly"):
        ask(Endpoint(url=server.url, timeout=0.3), "/v1/completions", {"prompt": [1]})
    assert time.monotonic() - started < 3


def test_other_servers_are_refused(server):
    endpoint = served(server).endpoint
    assert [model.name for model in list_models(endpoint)] == ["base"]
    assert base_model(endpoint, LENGTH).model == "base"
    with pytest.raises(ConfigError, match="HTTP 404"):
        ask(endpoint, "/v1/nothing")
    with pytest.raises(ConfigError, match="is the server up"):
        list_models(Endpoint(url="http://127.0.0.1:9/v1", timeout=5), once=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stub, "models", lambda self: {"models": ["x"]})
        with pytest.raises(ConfigError, match="expected a list of models; is this an OpenAI-compatible"):
            list_models(endpoint)
        patch.setattr(Stub, "models", lambda self: {"data": []})
        with pytest.raises(ConfigError, match="lists no model"):
            base_model(endpoint, LENGTH)


def test_a_server_that_leaves_out_the_token_that_stopped_it_is_found_out(server):
    def without_stop(answer):
        choice = answer["choices"][0]
        if choice["finish_reason"] == "stop":
            choice["token_ids"].pop()
            choice["logprobs"]["token_logprobs"].pop()
        return answer

    probe(served(server), [3, 4, 5], vocab_size=MODEL.vocab_size)
    server.stub.edit = without_stop
    with pytest.raises(ConfigError, match="has no token, expected at least the one that ended"):
        probe(served(server), [3, 4, 5], vocab_size=MODEL.vocab_size)
    with pytest.raises(ConfigError, match="has no token, expected at least the one that ended"):
        play_through(served(server))


def test_what_a_server_cannot_do_is_an_error():
    with pytest.raises(ValueError, match="join as_ready, not auto"):
        ServerEngine(RolloutConfig(slots=1), end_id=1, vocab_size=9)
    with pytest.raises(ValueError, match="cannot be made to write given tokens"):
        where = Served(endpoint=Endpoint(url="http://127.0.0.1:9/v1", timeout=1), model="base")
        play_through(where, script={task.id: [[5, 1]] * 9 for task in make_tasks(4)})
    with pytest.raises(ValueError, match="a model like any other"):
        server_engine().load(None, [1])  # pyright: ignore[reportArgumentType]
