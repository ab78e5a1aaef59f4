"""Slots whose turns a server writes: the engine's interface, with one request per turn.

A slot is the list of its tokens. The server's prefix cache stands in for the slot's own: every request sends
the whole text so far, and what the server has read of it before costs nothing but the transfer.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from coevo_jax.config.options import RolloutConfig
from coevo_jax.rollout.endpoint import Served, ask, completion_body, read_completion
from coevo_jax.rollout.stats import ServerCounts
from coevo_jax.sampling.action_line import never_stop
from coevo_jax.sampling.engine import Request, Sampling, Written

PATIENCE = 0.02  # seconds that `fetch` waits for an answer, before environments get their turn


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A block of slots that a server writes for."""

    fetch: Callable[[], dict[int, Written]]
    done: None = None


class _Job(NamedTuple):
    number: int
    slot: int
    served: Served
    body: dict[str, Any]


class _Outcome(NamedTuple):
    job: _Job
    answer: Any  # endpoint.Answer, or the exception
    seconds: float


class ServerEngine:
    """S slots whose turns OpenAI-compatible servers write (`rollout.slots.SlotEngine`).

    Each slot that writes has one request under way, on a thread of its own; whoever finishes goes on at once.
    `stop` is a table of `sampling.action_line`: a server cannot follow it, so what it writes after the end of
    an action's line is cut off here. Weights are a `Served`: `serving` has made the server load them.

    A block's `fetch` ends in a ConfigError where the server is gone, or does not answer what it should.
    """

    lanes = 1
    side_by_side = False  # its requests are, and no thread of the host waits for them

    def __init__(
        self, config: RolloutConfig, *, end_id: int, vocab_size: int, stop: np.ndarray | None = None
    ) -> None:
        if config.joining != "as_ready":
            raise ValueError(f"turns of a server join as_ready, not {config.joining}")
        self.config, self.slots, self.counts = config, config.slots, ServerCounts()
        self._end_id, self._vocab_size = end_id, vocab_size
        self._stop = never_stop() if stop is None else stop
        self._texts: list[list[int]] = []
        self._states: list[int] = []  # of each slot in the stop table
        self._asked: dict[int, int] = {}  # slot -> number of its request under way
        self._number = 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._threads = 0
        self._twin: ServerEngine | None = None
        self.reset()

    def twin(self) -> "ServerEngine":
        """Another engine of as many slots; made on first use."""
        if self._twin is None:
            self._twin = ServerEngine(
                self.config, end_id=self._end_id, vocab_size=self._vocab_size, stop=self._stop
            )
        return self._twin

    def reset(self) -> None:
        """Forget every slot, and whatever is still under way."""
        self._forget()
        if self._twin is not None:
            self._twin.reset()

    def begin(self, weights: Served, prefix: Sequence[int] = (), agents: int = 1) -> None:
        """Forget this engine's slots. A common prefix is the business of the server's prefix cache."""
        self._forget()

    def _forget(self) -> None:
        self._texts = [[] for _ in range(self.slots)]
        self._states = [0] * self.slots
        self._asked.clear()
        self.counts = ServerCounts()

    def close(self) -> None:
        """Let the threads end; one that still waits for a server ends with the process at the latest."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0
        if self._twin is not None:
            self._twin.close()

    def load(self, params: Served, adapters: Sequence[Any] = ()) -> Served:
        """The weights as they are: the server has loaded them already."""
        if adapters:
            raise ValueError("to a server, an adapter is a model like any other")
        return params

    def room(self, slot: int) -> int:
        """The number of tokens that still fit into a slot."""
        return self.config.max_tokens - len(self._texts[slot])

    def prefill(
        self,
        weights: Served,
        texts: Mapping[int, np.ndarray],
        fresh: frozenset[int],
        agents: Mapping[int, int] | None = None,
    ) -> tuple[jax.Array, ...]:
        """Append tokens to slots; they are sent with the slot's next request."""
        for slot, text in texts.items():
            if slot in fresh:
                self._texts[slot] = []
            self._texts[slot] += np.asarray(text).tolist()
            self._states[slot] = 0
        return ()

    def decode(
        self, weights: Served, requests: Mapping[int, Request], sampling: Sampling, *, quota: int
    ) -> Answers:
        """Send a request for every slot that has none under way. A block ends with the first answer."""
        for slot, request in requests.items():
            if slot not in self._asked:
                self._send(weights, slot, request, sampling)
        return Answers(fetch=self._arrived)

    def _send(self, served: Served, slot: int, request: Request, sampling: Sampling) -> None:
        if request.script:
            raise ValueError("a server cannot be made to write given tokens")
        text = self._texts[slot]
        body = completion_body(
            served.model,
            text,
            max_tokens=request.budget,
            stop=[self._end_id],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=request_seed(sampling, request, len(text)),
        )
        self._number += 1
        self._asked[slot] = self._number
        self._jobs.put(_Job(self._number, slot, served, body))
        if self._threads < self.slots:
            self._threads += 1
            threading.Thread(
                target=_work, args=(self._jobs, self._outcomes), daemon=True, name="server-request"
            ).start()

    def _arrived(self) -> dict[int, Written]:
        """What has come back by now; waits a moment where there is nothing yet.

        Raises:
          ConfigError: the server is gone, or does not answer what it should.
        """
        written: dict[int, Written] = {}
        wait = bool(self._asked)
        while True:
            try:
                job, answer, seconds = self._outcomes.get(wait, PATIENCE)
            except queue.Empty:
                return written
            wait = False
            if self._asked.get(job.slot) != job.number:
                continue  # of a play that was broken off
            del self._asked[job.slot]
            if isinstance(answer, Exception):
                raise answer
            self.counts.requests += 1
            self.counts.retries += answer.tries - 1
            self.counts.prompt_tokens += len(job.body["prompt"])
            self.counts.latencies.append(seconds)
            written[job.slot] = self._read(job, answer.data)

    def _read(self, job: _Job, data: Any) -> Written:
        """An answer up to where the turn ends. Another token that made the server stop does not end it."""
        where = f"{job.served.endpoint.url}/completions, model {job.served.model}"
        tokens, logps = read_completion(data, job.body, where, vocab_size=self._vocab_size)
        ended, used = False, 0
        while used < len(tokens) and not ended:
            ended = self._ends(job.slot, tokens[used])
            used += 1
        self.counts.unused_tokens += len(tokens) - used
        self._texts[job.slot] += tokens[:used]
        return Written(tokens=tokens[:used], logps=logps[:used], ended=ended)

    def _ends(self, slot: int, token: int) -> bool:
        """Follow the stop table by one token, as `sampling.decode` does."""
        states, vocabulary = self._stop.shape
        led = int(self._stop[min(self._states[slot], states - 1), min(token, vocabulary - 1)])
        self._states[slot] = led
        return token == self._end_id or led == states


def request_seed(sampling: Sampling, request: Request, position: int) -> int:
    """The seed of a request, in 31 bits, from an episode's random key names and the place in its text."""
    root = np.asarray(jax.random.key_data(sampling.root)).tolist()
    words = np.random.SeedSequence([*root, *request.ids, position]).generate_state(1)
    return int(words[0] >> 1)


def _work(jobs: "queue.SimpleQueue[_Job | None]", outcomes: "queue.SimpleQueue[_Outcome]") -> None:
    while (job := jobs.get()) is not None:
        started = time.monotonic()
        try:
            answer: Any = ask(job.served.endpoint, "/v1/completions", job.body)
        except Exception as error:  # whoever fetches raises it
            answer = error
        outcomes.put(_Outcome(job, answer, time.monotonic() - started))
