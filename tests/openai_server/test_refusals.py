"""What is not answered: one message in OpenAI's form, and nothing is ignored."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from openai import APIConnectionError, OpenAI

from coevo_jax.commands.serve import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.openai_server import http_server
from coevo_jax.stored.serve import load_served
from tests.old_run import unpack
from tests.openai_server.served import MODEL, post, running

ROOT = Path(__file__).resolve().parents[2]
COPY = [{"role": "user", "content": "Copy"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def toy(folder):
    with running(load_served(folder, agent="failure", slots=2), most_waiting=3) as server:
        yield server


def refused(toy, path, body, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = post(toy.url, path, raw, **headers)
    error = json.loads(answer)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return status, error


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "other"}, "The model `other` does not exist; this server has `toy`."),
        ({"temperatur": 1}, "temperatur: unknown key (did you mean 'temperature'?)"),
        ({"temperature": -1}, "temperature: found -1"),
        ({"temperature": 1e-9}, "temperature: found 1e-09, expected 0 or at least 0.001"),
        ({"temperature": "hot"}, 'temperature: found "hot" (string), expected a number'),
        ({"top_p": 0}, "top_p: found 0"),
        ({"n": 0}, "n: found 0"),
        ({"n": 6}, "n: found 6 texts to write, expected at most 5"),
        ({"seed": 2**64}, "seed: found"),
        ({"max_tokens": 0}, "max_tokens: found 0"),
        ({"max_tokens": 61}, "This model's maximum context length is 64 tokens. However, you requested 65"),
        ({"stop": ["x"] * 17}, "stop: found 17, expected at most 16"),
        ({"stop": [""]}, "stop[0]: found"),
        ({"top_logprobs": 3}, "top_logprobs: expected logprobs: true beside it"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: found 21"),
        ({"stream_options": {"include_usage": True}}, "stream_options: expected stream: true"),
        ({"frequency_penalty": 0.5}, "frequency_penalty: found 0.5, expected 0 or null: this server cannot"),
        ({"logit_bias": {"5": 1}}, "logit_bias: found {'5': 1}"),
        ({"tools": [{"type": "function"}]}, "tools: found"),
        ({"response_format": {"type": "json_object"}}, "response_format: found"),
        ({"prompt_logprobs": 1}, "prompt_logprobs: found 1, expected null"),
        ({"messages": []}, "messages: found []"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 'messages[0].role: found "tool"'),
        ({"messages": [*COPY, *COPY]}, "messages: found the roles user, user; expected a system message"),
        ({"messages": [*COPY, {"role": "assistant", "content": "x"}]}, "user last"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0]",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"messages": [{"role": "user", "content": "word " * 400}]}, "maximum context length is 64 tokens"),
        ({"tokens": [5]}, "tokens: they are a field of /v1/chat/completions/tokens alone"),
    ],
)
def test_what_a_chat_cannot_ask_for(fields, told, toy):
    status, error = refused(toy, CHAT, {"model": MODEL, "messages": COPY} | fields)
    assert status == (404 if "model" in fields else 400) and told in error["message"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prompt": []}, "prompt: found"),
        ({"prompt": ""}, "prompt: found no token"),
        ({"prompt": [5, 300000]}, "found the token id 300000, expected ids below"),
        ({"prompt": [5, -1]}, "prompt"),
        ({"prompt": [[5], "x"]}, "prompt"),
        ({"prompt": "\udc00"}, "half of a surrogate pair"),
        ({"prompt": [5] * 64}, "maximum context length is 64 tokens"),
        ({"prompt": "x", "logprobs": 21}, "logprobs: found 21"),
        ({"prompt": "x", "logprobs": True}, "logprobs: found true"),
        ({"prompt": "x", "echo": True}, "echo: found True, expected False or null"),
        ({"prompt": "x", "best_of": 3}, "best_of: found 3"),
        ({"prompt": "x", "messages": COPY}, "messages: unknown key"),
    ],
)
def test_what_a_completion_cannot_ask_for(fields, told, toy):
    status, error = refused(toy, COMPLETIONS, fields)
    assert status == 400 and told in error["message"]


def test_what_asks_for_nothing_is_taken(toy):
    quiet = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "repetition_penalty": 1.0,
        "logit_bias": None,
        "tools": [],
        "response_format": {"type": "text"},
        "user": "somebody",
        "metadata": {"task": "1"},
        "n": None,
        "anything": None,
    }
    status, raw = post(
        toy.url, CHAT, json.dumps({"messages": COPY, "max_tokens": 2, "temperature": 0} | quiet).encode()
    )
    assert status == 200 and json.loads(raw)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b"[" * 100_000,
        b'{"a":' + b"[" * 960 + b"]" * 960 + b"}",
        b'{"messages": NaN}',
        b'{"n": 1e999}',
    ],
)
def test_a_body_that_is_no_request(body, toy):
    assert refused(toy, CHAT, body)[0] == 400


def test_what_is_no_path_or_not_meant_for_it(toy, monkeypatch):
    assert refused(toy, "/v1/embeddings", {})[0] == 404
    assert refused(toy, "/v1/models", {})[0] == 405
    assert refused(toy, CHAT, {}, **{"Content-Type": "text/plain"})[0] == 415
    assert refused(toy, CHAT, {"messages": COPY}, Host="evil.example")[0] == 403
    monkeypatch.setattr(http_server, "MOST_BYTES", 100)
    status, error = refused(toy, CHAT, {"messages": [{"role": "user", "content": "x" * 200}]})
    assert status == 413 and "expected at most 100" in error["message"]


def test_a_request_that_never_ends_or_is_none_holds_nothing(toy, monkeypatch):
    monkeypatch.setattr(http_server._Handler, "timeout", 0.2)
    parts = urlsplit(toy.url)
    for sent in (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 50\r\nHost: localhost\r\n\r\n{", b"GET"):
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
            connection.sendall(sent)
            assert b"200" not in connection.recv(100)  # it ends


def test_who_comes_when_all_places_are_taken_is_told_to_come_again(toy):
    """Two slots and three places to wait; a client that tries again gets its answer."""
    gate = threading.Event()
    go_on = toy.service.batcher._go_on
    toy.service.batcher._go_on = lambda: gate.wait(30) and go_on()
    bodies = json.dumps({"prompt": [5], "n": 5, "max_tokens": 2, "temperature": 0}).encode()
    first = threading.Thread(target=post, args=(toy.url, COMPLETIONS, bodies))
    first.start()
    try:
        deadline = time.monotonic() + 20
        while len(toy.service.batcher._waiting) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        status, error = refused(toy, COMPLETIONS, {"prompt": [5]})
        assert status == 429 and error["code"] == "queue_full" and error["type"] == "rate_limit_error"
        threading.Timer(0.3, gate.set).start()
        with OpenAI(base_url=toy.url, api_key="none", max_retries=5) as patient:
            assert patient.completions.create(model=MODEL, prompt=[5], max_tokens=1).choices
    finally:
        gate.set()
        first.join(30)
        toy.service.batcher._go_on = go_on


def test_a_client_that_leaves_gives_its_slot_back(toy):
    """A stream that nobody reads any more ends; the others go on."""
    stream = toy.client.completions.create(model=MODEL, prompt=[5], max_tokens=60, temperature=2, stream=True)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 20
    while toy.service.batcher._live and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not toy.service.batcher._live
    assert toy.client.completions.create(model=MODEL, prompt=[5], max_tokens=1).choices


def test_many_slow_connections_leave_room(toy, monkeypatch):
    places = toy.server._places
    taken = 0
    while places.acquire(blocking=False):
        taken += 1
    try:
        parts = urlsplit(toy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request("GET", "/health")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            connection.getresponse()
        connection.close()
    finally:
        for _ in range(taken):
            places.release()
    assert len(toy.client.models.list().data) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--agent", "falure"], "no such agent .did you mean 'failure'"),
        (["--port", "70000"], "--port: found 70000"),
        (["--slots", "0"], "--slots: expected at least 1"),
        (["--name", " "], "--name: found an empty name"),
    ],
)
def test_what_cannot_be_served_is_refused(words, told, folder):
    with pytest.raises(ConfigError, match=told):
        main([str(folder), *words])


SERVE = """
import sys
from coevo_jax.commands.cli import run_command
from coevo_jax.commands.coevo import main
run_command(main, ["serve", sys.argv[1], "--port", "0", "--slots", "2"])
"""


@pytest.mark.slow
def test_a_signal_ends_it_when_what_is_under_way_is_answered(folder):
    """The agent is served without its environment, which here is in nobody's registry."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    url = ""
    for line in process.stdout:
        if "serving" in line:
            url = line.split(" at ")[1].partition(":  ")[0].split()[0].rstrip(":")
            break
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        model = client.models.list().data[0].id
        stream = iter(
            client.completions.create(model=model, prompt=[5], max_tokens=60, temperature=2, stream=True)
        )
        chunks = [next(stream)]  # all of them, where the first token that is drawn ends the answer
        process.send_signal(signal.SIGTERM)
        chunks += stream
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        assert process.wait(60) == 0
        with pytest.raises(APIConnectionError):
            client.models.list()
    assert "ended: " in process.stdout.read()
    process.stdout.close()
