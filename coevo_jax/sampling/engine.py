"""The slot engine on the host: which slots prefill and decode what, in a few fixed shapes.

Two agents' parameters have the same shapes, so they share every compiled program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.config import RolloutConfig
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sampling.decode import Decoded, decode_block, grow, init_state, prefill

CHUNKS = (32, 64, 128)  # tokens of a row of a prefill call
PREFILL_ROWS = {"cpu": 1}  # slots of a prefill call; a CPU is as fast with one, and then no row is padding
DEFAULT_PREFILL_ROWS = 8
FIRST_LENGTH = 256  # the cache starts this long and grows: attention reads all of it for every token


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn in one `play`."""

    root: jax.Array  # typed key of (seed, phase)
    temperature: float  # 0 is greedy
    top_p: float  # in (0, 1]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A slot that is to write."""

    budget: int  # most tokens it may still produce in this turn
    ids: tuple[int, int, int]  # task, sample and turn: with the position they name each token's random key
    script: Sequence[int] = ()  # tokens to write instead of drawing them


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a slot wrote in one decode block."""

    tokens: list[int]
    logps: list[float]
    ended: bool  # the last token is the end token


def cache_lengths(longest: int) -> tuple[int, ...]:
    """Lengths the cache grows through: powers of two and their midpoints, up to `longest`."""
    lengths, power = [], FIRST_LENGTH
    while power < longest:
        lengths += [power, power + power // 2]
        power *= 2
    return (*(length for length in lengths if length < longest), longest)


class EnginePrograms(NamedTuple):
    """What the engine compiles, once per shape."""

    create: Any  # (length) -> state of empty slots
    grow: Any  # (state, length) -> state
    prefill: Any  # (params, state, rows, tokens, valid, fresh) -> state
    decode: Any  # (params, state, then as decode_block) -> (state, decoded)


def jit_engine(model: Transformer, slots: int, sharding: Any = None) -> EnginePrograms:
    """The engine's programs; `sharding` is a SlotState of shardings, or a prefix of one."""
    return EnginePrograms(
        create=jax.jit(
            partial(init_state, model.config, model.vocab_size, slots),
            static_argnums=0,
            out_shardings=sharding,
        ),
        grow=jax.jit(grow, static_argnums=1, out_shardings=sharding),
        prefill=jax.jit(partial(prefill, model), donate_argnums=1, out_shardings=sharding),
        decode=jax.jit(partial(decode_block, model), donate_argnums=1, out_shardings=(sharding, None)),
    )


def default_prefill_rows(platform: str, slots: int) -> int:
    """Slots of a prefill call on a platform."""
    return min(PREFILL_ROWS.get(platform, DEFAULT_PREFILL_ROWS), slots)


class Decoding:
    """A decode block under way on the device."""

    def __init__(self, engine: "Engine", slots: Sequence[int], decoded: Decoded):
        self._engine, self._slots, self._decoded = engine, slots, decoded

    def fetch(self) -> dict[int, Written]:
        """Wait for the block; the one transfer to the host it costs."""
        out = jax.device_get(self._decoded)
        engine, written = self._engine, {}
        for slot in self._slots:
            count = int(out.counts[slot])
            engine.lengths[slot] += count
            written[slot] = Written(
                tokens=out.tokens[slot, :count].tolist(),
                logps=out.logps[slot, :count].tolist(),
                ended=bool(out.ended[slot]),
            )
        engine.token_places += int(out.iterations) * engine.slots
        return written


class Engine:
    """S slots over one KV cache, and the compiled programs that fill and extend them.

    A slot keeps its cache between turns: only what is new is prefilled. Plain `jax.jit` over whatever
    placement the parameters have; `sharding` places the slots, a SlotState of shardings or a prefix of one,
    beside parameters that are committed to a mesh.
    `prefill_rows` is the number of slots of a prefill call; by default the backend decides.
    """

    def __init__(
        self,
        model: Transformer,
        config: RolloutConfig,
        end_id: int,
        *,
        sharding: Any = None,
        prefill_rows: int | None = None,
    ):
        self.model, self.config, self.slots = model, config, config.slots
        self.lengths = np.zeros(config.slots, np.int64)  # tokens each slot holds, as the device has them
        self.token_places = 0  # iterations x slots of all decode blocks: the denominator of occupancy
        rows = prefill_rows or default_prefill_rows(jax.default_backend(), config.slots)
        self._rows = min(rows, config.slots)
        self._cache_lengths = cache_lengths(config.max_tokens)
        self._end_id = np.int32(end_id)
        programs = jit_engine(model, config.slots, sharding)
        self._create, self._grow = programs.create, programs.grow
        self._prefill, self._decode = programs.prefill, programs.decode
        self.reset()

    def reset(self) -> None:
        """Forget every slot. What is played afterwards does not depend on what was played before."""
        self._length = self._cache_lengths[0]
        self._state: Any = None  # let go of what may be long before the short one is made
        self._state = self._create(self._length)
        self.lengths[:] = 0

    def room(self, slot: int) -> int:
        """Tokens that still fit into a slot."""
        return self.config.max_tokens - int(self.lengths[slot])

    def compilations(self) -> int:
        """Programs compiled so far: one per shape of prefill and decode."""
        return self._prefill._cache_size() + self._decode._cache_size()  # pyright: ignore[reportAttributeAccessIssue]

    def prefill(self, params: Params, texts: Mapping[int, np.ndarray], fresh: frozenset[int]) -> None:
        """Append tokens to slots, batched over slots and cut into chunks; returns before the device is done.

        Args:
          texts: int32 [n] per slot, 1 <= n <= room.
          fresh: slots that start a new episode: what they held is forgotten.
        """
        waiting = {slot: np.asarray(text, np.int32) for slot, text in texts.items()}
        for slot in fresh:
            self.lengths[slot] = 0
        self._reach(max((int(self.lengths[slot]) + len(text) for slot, text in waiting.items()), default=0))
        while waiting:
            group = sorted(waiting, key=lambda slot: (-len(waiting[slot]), slot))[: self._rows]
            longest = len(waiting[group[0]])
            width = next((chunk for chunk in CHUNKS if chunk >= longest), CHUNKS[-1])
            rows = np.full(self._rows, self.slots, np.int32)
            tokens = np.zeros((self._rows, width), np.int32)
            valid, is_fresh = np.zeros(self._rows, np.int32), np.zeros(self._rows, bool)
            for row, slot in enumerate(group):
                part = waiting[slot][:width]
                rows[row], valid[row] = slot, len(part)
                tokens[row, : len(part)] = part
                is_fresh[row] = self.lengths[slot] == 0
                self.lengths[slot] += len(part)
                waiting[slot] = waiting[slot][width:]
            self._state = self._prefill(params, self._state, rows, tokens, valid, is_fresh)
            waiting = {slot: text for slot, text in waiting.items() if len(text)}

    def decode(
        self, params: Params, requests: Mapping[int, Request], sampling: Sampling, *, quota: int
    ) -> Decoding:
        """Start a decode block and return at once; the block ends when `quota` slots have stopped."""
        block = self.config.decode_block
        budgets = np.zeros(self.slots, np.int32)
        script = np.full((self.slots, block), -1, np.int32)
        ids = np.zeros((self.slots, 3), np.uint32)
        for slot, request in requests.items():
            budgets[slot] = min(request.budget, block)
            scripted = request.script[:block]
            script[slot, : len(scripted)] = scripted
            ids[slot] = request.ids
        self._reach(max((int(self.lengths[slot] + budgets[slot]) for slot in requests), default=0))
        self._state, decoded = self._decode(
            params,
            self._state,
            budgets,
            script,
            ids,
            sampling.root,
            jnp.float32(sampling.temperature),
            jnp.float32(sampling.top_p),
            self._end_id,
            np.int32(quota),
        )
        return Decoding(self, tuple(requests), decoded)

    def _reach(self, tokens: int) -> None:
        """Grow the cache until a slot can hold `tokens`."""
        if tokens > self._length:
            self._length = next(length for length in self._cache_lengths if length >= tokens)
            self._state = self._grow(self._state, self._length)
