"""Many requests over the slots of one engine: whoever waits takes a slot as soon as one is free.

All calls of the device come from the thread in `Batcher.run`. Between two decode blocks, texts that are
finished or given up leave their slots, and waiting prompts are read into free ones.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from coevo_jax.openai_server.fields import MOST_LIKELIEST
from coevo_jax.openai_server.refusal import Refusal
from coevo_jax.openai_server.wanted import Wanted
from coevo_jax.sampling.draw import Filters, SlotSampling
from coevo_jax.sampling.engine import Engine, Request, Written

PATIENCE = 0.1  # seconds between two looks whether to end, where there is nothing to do
STOP_SHARE = 4  # a decode block ends when one in this many of its writers has finished
GRACE = 20.0  # seconds that texts under way have when the server is asked to end

WARM_UP = Wanted(
    prompt=(0,),
    most=1,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    seed=0,
    choice=0,
    stop=(),
    stop_ids=frozenset(),
    keep_stop=False,
    likeliest=0,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some tokens of a text."""

    tokens: list[int]
    logps: list[float]
    likeliest: list[list[tuple[int, float]]]
    finish: str | None = None  # "stop" or "length" with the last ones
    stopped_by: int | None = None  # the token of the request that ended it; None is the turn's own end


@dataclass(kw_only=True, eq=False)
class Job:
    """A text that is being written; its parts come through the queue, or why there are none."""

    wanted: Wanted
    parts: "queue.SimpleQueue[Part | Refusal]" = field(default_factory=queue.SimpleQueue)
    written: int = 0
    given_up: bool = False  # set by whoever needs no more of it


class Batcher:
    """The slots of an engine, the texts in them, and those that wait.

    Args:
      weights: what the engine's `load` gave.
      most_waiting: texts that may wait for a slot.
    """

    def __init__(self, engine: Engine, weights: object, *, most_waiting: int) -> None:
        self._engine, self._weights, self._most_waiting = engine, weights, most_waiting
        self._root = jax.random.key(0)  # a request's seed is in the names of its keys
        self._waiting: deque[Job] = deque()
        self._live: dict[int, Job] = {}
        self._free: deque[int] = deque(range(engine.slots))  # the longest free first: others may be prefixes
        self._changed = threading.Condition()
        self._closing = False
        self.tokens = 0  # written since the start

    def warm_up(self) -> None:
        """Compile the first programs, so that the first request need not wait for them."""
        job = Job(wanted=WARM_UP)
        self.submit([job])
        while self._waiting or self._live:
            self._go_on()
        self._engine.reset()
        self.tokens = 0

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let texts wait for slots: all of them, or none.

        Raises:
          Refusal: too many wait, or the server is about to end.
        """
        with self._changed:
            if self._closing:
                raise Refusal(status=503, message="the server is about to end", code="shutting_down")
            places = len(self._free) + self._most_waiting - len(self._waiting)
            if len(jobs) > self._engine.slots + self._most_waiting:
                raise Refusal(
                    status=400,
                    message=f"n: found {len(jobs)} texts to write, expected at most "
                    f"{self._engine.slots + self._most_waiting}, which is all that can wait here",
                    param="n",
                )
            if len(jobs) > places:
                raise Refusal(
                    status=429,
                    message=f"{len(self._waiting)} texts wait already and {len(self._live)} are being "
                    "written; try again later",
                    code="queue_full",
                )
            self._waiting.extend(jobs)
            self._changed.notify()

    def run(self, asked: Callable[[], bool]) -> None:
        """Write until somebody asks to end; texts under way are finished then, if it does not take long."""
        try:
            while not asked():
                with self._changed:
                    if not self._waiting and not self._live:
                        self._changed.wait(PATIENCE)
                        continue
                self._go_on()
            with self._changed:
                self._closing = True
            deadline = time.monotonic() + GRACE
            while (self._waiting or self._live) and time.monotonic() < deadline:
                self._go_on()
        finally:
            self._fail_all()

    def _fail_all(self) -> None:
        with self._changed:
            self._closing = True
            left = [*self._waiting, *self._live.values()]
            self._waiting.clear()
            self._live.clear()
        for job in left:
            job.parts.put(Refusal(status=503, message="the server has ended", code="shutting_down"))

    def _go_on(self) -> None:
        for slot in [slot for slot, job in self._live.items() if job.given_up]:
            self._leave(slot)
        self._admit()
        if self._live:
            self._decode()

    def _admit(self) -> None:
        texts = {}
        with self._changed:
            while self._waiting and self._free:
                job = self._waiting.popleft()
                if job.given_up:
                    continue
                slot = self._free.popleft()
                self._live[slot] = job
                texts[slot] = np.array(job.wanted.prompt, np.int32)
        if texts:
            self._engine.prefill(self._weights, texts, frozenset(texts))  # pyright: ignore[reportArgumentType]

    def _decode(self) -> None:
        requests = {
            slot: Request(budget=job.wanted.most - job.written, ids=job.wanted.names)
            for slot, job in self._live.items()
        }
        told = any(job.wanted.likeliest for job in self._live.values())
        block = self._engine.decode(
            self._weights,  # pyright: ignore[reportArgumentType]
            requests,
            SlotSampling(root=self._root, chosen=self._filters()),
            quota=max(1, len(requests) // STOP_SHARE),
            likeliest=min(MOST_LIKELIEST, self._engine.model.vocab_size) if told else 0,
        )
        for slot, written in block.fetch().items():
            self._hand_out(slot, written)

    def _filters(self) -> Filters:
        """The filters of all slots; those of a slot that writes nothing filter nothing."""
        slots = self._engine.slots
        temperature, top_p = np.zeros(slots, np.float32), np.ones(slots, np.float32)
        top_k, min_p = np.zeros(slots, np.int32), np.zeros(slots, np.float32)
        for slot, job in self._live.items():
            wanted = job.wanted
            temperature[slot], top_p[slot] = wanted.temperature, wanted.top_p
            top_k[slot], min_p[slot] = min(wanted.top_k, self._engine.model.vocab_size), wanted.min_p
        return Filters(temperature, top_k, top_p, min_p)  # pyright: ignore[reportArgumentType]

    def _hand_out(self, slot: int, written: Written) -> None:
        """Give a text its new tokens, up to one that the request says ends it."""
        job, count, stopped_by = self._live[slot], len(written.tokens), None
        for place, token in enumerate(written.tokens):
            if token in job.wanted.stop_ids:
                count, stopped_by = place + 1, token
                break
        job.written += count
        self.tokens += count
        cut = count < len(written.tokens)
        finish = "stop" if stopped_by is not None or (written.ended and not cut) else None
        if finish is None and job.written >= job.wanted.most:
            finish = "length"
        if stopped_by == self._engine.end_id:
            stopped_by = None
        alternatives = [list(row[: job.wanted.likeliest]) for row in written.likeliest[:count]]
        job.parts.put(
            Part(
                tokens=written.tokens[:count],
                logps=written.logps[:count],
                likeliest=alternatives if job.wanted.likeliest else [[] for _ in range(count)],
                finish=finish,
                stopped_by=stopped_by,
            )
        )
        if finish is not None:
            self._leave(slot)

    def _leave(self, slot: int) -> None:
        with self._changed:
            del self._live[slot]
            self._free.append(slot)
