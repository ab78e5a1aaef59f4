"""An OpenAI-compatible server over HTTP: tokens in, tokens and their log-probabilities out.

What is sent and read is what vLLM and SGLang have in common, `return_token_ids` among it; nothing is ever
decoded to text and encoded again.
"""

import http.client
import itertools
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from coevo_jax.config.strict import ConfigError

WAITS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between tries; the last repeats
BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))  # statuses after which another try may do better
CHUNK = 1 << 16
MOST_BYTES = 1 << 28  # of an answer: that to a context of a million tokens has 50 MB
MOST_ID = 2**31 - 1
LEAST_LOGP = 3e38  # below, a float32 has no number
SHOWN = 300  # characters of an error's text
INTACT = "what was committed is intact: mend the server and continue with --resume"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The address of a server."""

    url: str  # ends with /v1
    timeout: float  # seconds that a request may take, all tries together

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that a server serves."""

    endpoint: Endpoint
    model: str


class Refused(ConfigError):
    """A server has answered, and does not do what it was asked for."""


class Silent(ConfigError):
    """A server has not answered, or says itself that another try may do better."""


class Answer(NamedTuple):
    """A server's answer, and how many tries it took."""

    data: Any  # what JSON says; the bare text where the answer is none
    tries: int


class Completion(NamedTuple):
    """The tokens that a server wrote, with their log-probabilities."""

    tokens: list[int]
    logps: list[float]


def ask(
    endpoint: Endpoint,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    once: bool = False,
    busy: Collection[int] = BUSY,
) -> Answer:
    """GET `path` of the server, or POST `body` to it, again and again until there is an answer.

    Args:
      path: from the root, such as "/v1/models".
      once: take the first failure for an answer.
      busy: statuses after which it is tried again.

    Raises:
      Refused: the server refuses the request.
      Silent: the time is up; it says what happened last.
    """
    url, started = endpoint.root + path, time.monotonic()
    deadline = started + endpoint.timeout
    for tries, wait in enumerate(itertools.chain(WAITS, itertools.repeat(WAITS[-1])), start=1):
        try:
            status, text = _exchange(url, body, deadline)
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if status < 300:
                return Answer(_parsed(text), tries)
            problem = f"HTTP {status}: {' '.join(text.split())[:SHOWN]}"
            if status not in busy:
                raise Refused(f"{url}: the server refused the request ({problem})")
        if once:
            raise Silent(f"{url}: no answer ({problem}); is the server up?")
        if time.monotonic() + wait >= deadline:
            raise Silent(
                f"{url}: no answer within {time.monotonic() - started:.0f} s and {tries} tries "
                f"(rollout.server.timeout {endpoint.timeout:g}); the last: {problem}; {INTACT}"
            )
        time.sleep(wait)
    raise AssertionError


def change(
    endpoint: Endpoint, path: str, body: Mapping[str, Any], happened: Callable[[], bool] = lambda: False
) -> Any:
    """POST what changes the server, which may already have happened where its answer is lost.

    A status 500 is an answer: vLLM gives it to what it will never do. None is returned where `happened` had
    to tell, else what the server said.

    Args:
      happened: asks the server whether it has; looked at after every try that was no success.

    Raises:
      Refused: the server refuses the request.
      Silent: no answer within the endpoint's time, and it has not happened.
    """
    deadline = time.monotonic() + endpoint.timeout
    for wait in itertools.chain(WAITS, itertools.repeat(WAITS[-1])):
        try:
            return ask(endpoint, path, body, once=True, busy=BUSY - {500}).data
        except ConfigError as error:
            if happened():
                return None
            if isinstance(error, Refused) or time.monotonic() + wait >= deadline:
                raise
        time.sleep(wait)
    raise AssertionError


def _exchange(url: str, body: Mapping[str, Any] | None, deadline: float) -> tuple[int, str]:
    """One request on a connection of its own: a kept one may be closed by the server at any moment."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=max(0.1, deadline - time.monotonic()))
    try:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("GET" if data is None else "POST", parts.path, data, headers)
        response = connection.getresponse()
        chunks, size = [], 0
        while chunk := response.read1(CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                raise ConfigError(f"{url}: the answer is longer than {MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:  # the socket's own limit is one of each read
                raise TimeoutError("the answer came too slowly")
        if response.length:  # `read1` ends quietly where the connection does
            raise http.client.IncompleteRead(b"".join(chunks), response.length)
        return response.status, b"".join(chunks).decode("utf-8", errors="replace")
    finally:
        connection.close()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def completion_body(
    model: str,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    stop: Sequence[int],
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    seed: int,
) -> dict[str, Any]:
    """The body of a request for /v1/completions; a `top_k` of 0 keeps all tokens, as everywhere here."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k or -1,
        "min_p": min_p,
        "seed": seed,
        "stop_token_ids": list(stop),
        "logprobs": 0,  # of the token alone
        "return_token_ids": True,
        # A model's generation_config.json may bring another default.
        "repetition_penalty": 1.0,
    }


def read_completion(data: Any, body: Mapping[str, Any], where: str, *, vocab_size: int | None) -> Completion:
    """The tokens that a server wrote in answer to `body`, with the one that ended them.

    Raises:
      ConfigError: token ids or log-probabilities are missing or impossible. `where` is named.
    """

    def refuse(found: str, expected: str) -> ConfigError:
        return ConfigError(f"{where}: the answer {found}, expected {expected}")

    try:
        choice = data["choices"][0]
        tokens: Any = choice.get("token_ids")
        logps: Any = (choice["logprobs"] or {}).get("token_logprobs")
    except (TypeError, KeyError, IndexError, AttributeError):
        raise refuse(f"is {json.dumps(data)[:SHOWN]}", "choices with token_ids and logprobs") from None
    if not _all(tokens, int):
        raise refuse(
            f"has the token_ids {json.dumps(tokens)[:SHOWN]}",
            "integers (return_token_ids, which vLLM has since 0.10.2 and SGLang since 2026-07)",
        )
    if not _all(logps, (int, float)) or len(logps) != len(tokens):
        raise refuse(
            f"has the token_logprobs {json.dumps(logps)[:SHOWN]}",
            f"a number for each of {len(tokens)} tokens",
        )
    if not tokens:
        raise refuse("has no token", "at least the one that ended the turn: it must not be left out")
    if len(tokens) > body["max_tokens"]:
        raise refuse(f"has {len(tokens)} tokens", f"at most max_tokens {body['max_tokens']}")
    if min(tokens) < 0 or max(tokens) >= (vocab_size or MOST_ID):
        raise refuse(
            f"has the tokens {min(tokens)} to {max(tokens)}",
            f"ids of this run's vocabulary of {vocab_size}: does the server have another model?",
        )
    if not all(-LEAST_LOGP <= logp <= 1e-3 for logp in logps):  # NaN is in no range
        raise refuse(f"has the token_logprobs {json.dumps(logps)[:SHOWN]}", "logarithms of probabilities")
    read = choice.get("prompt_token_ids")
    if read is not None and read != body["prompt"]:
        raise refuse(f"is to the prompt {json.dumps(read)[:SHOWN]}", "the very tokens that were sent")
    return Completion(tokens, [min(0.0, float(logp)) for logp in logps])


def _all(values: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


class Model(NamedTuple):
    """A model that a server lists."""

    name: str
    adapter: bool
    longest: int | None  # tokens of its context, where the server says so
    root: str = ""  # where its weights came from, where the server says so


def list_models(endpoint: Endpoint, *, once: bool = False) -> list[Model]:
    """The models that a server serves (/v1/models).

    Raises:
      ConfigError: no answer, or one of another form.
    """
    data = ask(endpoint, "/v1/models", once=once).data
    try:
        return [
            Model(
                name=str(one["id"]),
                adapter=one.get("parent") is not None,
                longest=_length(one.get("max_model_len")),
                root=str(one.get("root") or ""),
            )
            for one in data["data"]
        ]
    except (TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"{endpoint.url}/models: found {json.dumps(data)[:SHOWN]}, expected a list of models; is this an "
            "OpenAI-compatible server?"
        ) from None


def _length(found: Any) -> int | None:
    """A context's length as a server tells it; None where it tells none that can be read."""
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def base_model(endpoint: Endpoint, longest: int, *, once: bool = False) -> Served:
    """The model of a server that is no adapter.

    Raises:
      ConfigError: there is none, or its context is shorter than the `longest` tokens an episode may have.
    """
    models = [model for model in list_models(endpoint, once=once) if not model.adapter]
    if not models:
        raise ConfigError(f"{endpoint.url}/models: the server lists no model")
    found = models[0]  # one model may be listed under several names
    if found.longest is not None and found.longest < longest:
        raise ConfigError(
            f"{endpoint.url}: the server's context of {found.longest} tokens is shorter than "
            f"rollout.max_tokens {longest}"
        )
    return Served(endpoint=endpoint, model=found.name)


def probe(served: Served, prompt: Sequence[int], *, vocab_size: int | None, once: bool = False) -> None:
    """Let a server write two tokens, the second time one that is to end the text.

    Raises:
      ConfigError: it leaves out token ids, log-probabilities or the token that ends a text.
    """
    where = f"{served.endpoint.url}/completions, model {served.model}"
    stop: list[int] = []
    for max_tokens in (1, 2):
        body = completion_body(
            served.model,
            prompt,
            max_tokens=max_tokens,
            stop=stop,
            temperature=0.0,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            seed=0,
        )
        data = ask(served.endpoint, "/v1/completions", body, once=once).data
        stop = read_completion(data, body, where, vocab_size=vocab_size).tokens
