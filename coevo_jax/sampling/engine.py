"""The slot engine on the host: which slots prefill and decode what, in a few fixed shapes.

Two agents' parameters have the same shapes, so they share every compiled program.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.config.options import RolloutConfig
from coevo_jax.models.kv_cache import KVCache, join_adapters
from coevo_jax.models.transformer import Params, Transformer
from coevo_jax.sampling.action_line import never_stop
from coevo_jax.sampling.decode import Decoded, Prefill, Weights
from coevo_jax.sampling.draw import Filters, SlotSampling, filters
from coevo_jax.sampling.engine_programs import EnginePrograms, jit_engine
from coevo_jax.sampling.prefixes import Held, common_length, worth_waiting
from coevo_jax.sampling.shapes import CHUNKS, cache_lengths, default_prefill_rows


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn in one `play`."""

    root: jax.Array  # typed key of the seed
    temperature: float  # 0 is greedy
    top_p: float = 1.0  # in (0, 1]
    top_k: int = 0  # 0 keeps all
    min_p: float = 0.0  # in [0, 1)

    def filters(self) -> Filters:
        return filters(self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A slot that is to write."""

    budget: int  # most tokens it may still produce in this turn
    ids: tuple[int, int, int, int]  # phase, task, sample, turn: with the position they name each random key
    script: Sequence[int] = ()  # tokens to write instead of drawing them


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a slot wrote in one decode block."""

    tokens: list[int]
    logps: list[float]
    ended: bool  # the last token ends the turn: the end token, or the one that ends the action's line
    likeliest: Sequence[Sequence[tuple[int, float]]] = ()  # tokens and logps for each token, where asked for


@dataclass(kw_only=True)
class EngineCounts:
    """What the engine has done since the last reset, as sums."""

    token_places: int = 0  # iterations x slots of all decode blocks: the denominator of occupancy
    prefill_tokens: int = 0  # computed
    prefill_places: int = 0  # rows x width of all prefill calls
    prefix_hits: int = 0  # episodes that began with a copy
    prefix_tokens: int = 0  # copied instead of computed


def _devices(sharding: Any) -> int:
    """The number of devices that the slots lie on."""
    return max((one.num_devices for one in jax.tree.leaves(sharding)), default=1)


class Decoding:
    """A decode block under way on the device."""

    def __init__(self, engine: "Engine", slots: Sequence[int], decoded: Decoded):
        self._engine, self._slots, self._decoded = engine, slots, decoded

    @property
    def done(self) -> jax.Array:
        """An array of the block's that is ready once the device has finished the block."""
        return self._decoded.iterations

    def fetch(self) -> dict[int, Written]:
        """Wait for the block and return what each slot wrote; the block's only transfer to the host."""
        out = jax.device_get(self._decoded)
        engine, written = self._engine, {}
        for slot in self._slots:
            count = int(out.counts[slot])
            engine.held.append(slot, out.tokens[slot, :count])
            written[slot] = Written(
                tokens=out.tokens[slot, :count].tolist(),
                logps=out.logps[slot, :count].tolist(),
                ended=bool(out.ended[slot]),
                likeliest=_told(out, slot, count),
            )
        engine.counts.token_places += int(out.iterations) * engine.slots
        return written


def _told(out: Decoded, slot: int, count: int) -> list[list[tuple[int, float]]]:
    if out.likeliest is None:
        return []
    tokens, logps = out.likeliest.tokens[slot, :count].tolist(), out.likeliest.logps[slot, :count].tolist()
    return [list(zip(*row, strict=True)) for row in zip(tokens, logps, strict=True)]


@dataclass(kw_only=True, eq=False)
class _Text:
    """What is left to prefill of a slot's text."""

    rest: np.ndarray  # int32
    whole: np.ndarray  # int32
    prompt: bool  # it begins an episode
    starts: bool  # it has not begun it yet


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prefix:
    """The beginning that all prompts share, as some parameters computed it."""

    weights: Weights
    tokens: np.ndarray  # int32
    held: tuple[KVCache, ...]  # one row of each adapter's


class Engine:
    """S slots over one KV cache, and the compiled programs that fill and extend them.

    Of `lanes` engines that play an agent's episodes together, one has so much of `config.slots`.

    A slot keeps its cache between turns: only what is new is prefilled, and a new episode begins with a copy
    of what another slot holds of its prompt. Plain `jax.jit` over whatever placement the parameters have;
    `sharding` places the slots, a SlotState of shardings or a prefix of one, beside parameters that are
    committed to a mesh. `prefill_rows` is the number of slots of a prefill call; by default the backend
    decides. `stop` is a table of `sampling.action_line`.
    """

    def __init__(
        self,
        model: Transformer,
        config: RolloutConfig,
        end_id: int,
        *,
        sharding: Any = None,
        lanes: int = 1,
        prefill_rows: int | None = None,
        stop: np.ndarray | None = None,
        programs: EnginePrograms | None = None,
    ):
        self.model, self.config, self.end_id = model, config, end_id
        self.lanes, self.slots = lanes, config.slots // lanes
        self.side_by_side = jax.default_backend() == "cpu" and _devices(sharding) == 1
        self.held = Held(self.slots, config.max_tokens)
        self.counts = EngineCounts()
        rows = prefill_rows or default_prefill_rows(jax.default_backend(), self.slots)
        self._rows = min(rows, self.slots)
        self._cache_lengths = cache_lengths(config.max_tokens)
        self._stop = jnp.asarray(never_stop() if stop is None else stop)
        self._twin: Engine | None = None
        self._prefix: _Prefix | None = None
        self._sharding = sharding
        self._programs = programs or jit_engine(model, self.slots, sharding)
        self.reset()

    def twin(self) -> "Engine":
        """Another engine of as many slots that shares the compiled programs; made on first use."""
        if self._twin is None:
            self._twin = Engine(
                self.model,
                self.config,
                self.end_id,
                sharding=self._sharding,
                lanes=self.lanes,
                prefill_rows=self._rows,
                stop=np.asarray(self._stop),
                programs=self._programs,
            )
        return self._twin

    def reset(self) -> None:
        """Forget every slot, and the prefix. What is played afterwards does not depend on what was before."""
        self._prefix = None
        self._empty()
        if self._twin is not None:
            self._twin.reset()

    def begin(self, weights: Weights, prefix: Sequence[int] = (), agents: int = 1) -> None:
        """Empty the slots for episodes under some parameters, whose prompts begin with `prefix`.

        The prefix is computed once, by calls of its own, and kept until other parameters or `reset` come: so
        an episode's numbers are the same in whichever block of tasks it is played.

        Args:
          agents: adapters that `weights` hold, 1 without any.
        """
        tokens = np.asarray(prefix, np.int32)
        self._empty()
        kept = self._prefix
        if kept is not None and kept.weights is weights and np.array_equal(kept.tokens, tokens):
            return
        self._prefix, held = None, []
        if not 0 < len(tokens) < self.config.max_tokens:
            return
        for agent in range(agents):
            self.held.clear()  # not even an adapter takes another's
            self.prefill(weights, {0: tokens}, frozenset({0}), {0: agent})
            held.append(self._call("take", self._state, np.int32(0)))
        self.held.clear()
        self.counts = EngineCounts()  # a phase that is resumed counts as if it had not been cut
        self._prefix = _Prefix(weights=weights, tokens=tokens, held=tuple(held))

    def _empty(self) -> None:
        self._length = self._cache_lengths[0]
        self._state: Any = None  # let go of what may be long before the short one is made
        self._state = self._call("create", self._length)
        self.held.clear()
        self.counts = EngineCounts()

    def load(self, params: Params, adapters: Sequence[Params] = ()) -> Weights:
        """The parameters as `prefill` and `decode` take them: one agent's, or a base and adapters of several.

        Stacked layers are copied, on the same devices; a roll-out copy is taken as it is.
        """
        base = params if isinstance(params["layers"], tuple) else self._programs.unstack(params)
        return Weights(base, self._programs.unstack(join_adapters(adapters)) if adapters else None)

    def room(self, slot: int) -> int:
        """The number of tokens that still fit into a slot."""
        return self.config.max_tokens - int(self.held.lengths[slot])

    def compilations(self) -> int:
        """The number of programs compiled so far, one per shape of prefill and decode.

        Those of all engines that share their programs count: equal models have them in common.
        """
        return self._programs.prefill._cache_size() + self._programs.decode._cache_size()  # pyright: ignore[reportAttributeAccessIssue]

    def prefill(
        self,
        weights: Weights,
        texts: Mapping[int, np.ndarray],
        fresh: frozenset[int],
        agents: Mapping[int, int] | None = None,
    ) -> list[jax.Array]:
        """Append tokens to slots, batched over slots and cut into chunks; returns before the device is done.

        Args:
          texts: int32 [n] per slot, 1 <= n <= room.
          fresh: slots that start a new episode: what they held is forgotten.
          agents: which adapters a fresh slot takes; 0 where it is not named.

        Returns:
          One array per call of the device, there once the call is done.
        """
        waiting = {}
        for slot, text in texts.items():
            text = np.asarray(text, np.int32)
            waiting[slot] = _Text(rest=text, whole=text, prompt=slot in fresh, starts=slot in fresh)
        ends = (
            len(text.whole) + (0 if text.starts else int(self.held.lengths[s])) for s, text in waiting.items()
        )
        self._reach(max(ends, default=0))
        calls = []
        while waiting:
            work = self._next_call(waiting, agents or {})
            width, adapted = work.tokens.shape[1], weights.adapters is not None
            self._state, done = self._call("prefill", weights, self._state, work, shapes=(width, adapted))
            calls.append(done)
            waiting = {slot: text for slot, text in waiting.items() if len(text.rest)}
        return calls

    def _next_call(self, waiting: dict[int, _Text], agents: Mapping[int, int]) -> Prefill:
        """The longest texts that need not wait for another's prefix, one chunk of each."""
        group = self._next_group(waiting, agents)
        longest = max(len(waiting[slot].rest) for slot in group)
        width = next((chunk for chunk in CHUNKS if chunk >= longest), CHUNKS[-1])
        rows, sources = (np.full(self._rows, self.slots, np.int32) for _ in range(2))
        starts, valid, agent = (np.zeros(self._rows, np.int32) for _ in range(3))
        tokens = np.zeros((self._rows, width), np.int32)
        for row, (slot, source) in enumerate(group.items()):
            part = waiting[slot].rest[:width]
            rows[row], sources[row], valid[row] = slot, source, len(part)
            starts[row], agent[row] = self.held.lengths[slot], self.held.agents[slot]
            tokens[row, : len(part)] = part
            self.held.append(slot, part)
            waiting[slot].rest = waiting[slot].rest[width:]
        self.counts.prefill_tokens += int(valid.sum())
        self.counts.prefill_places += tokens.size
        return Prefill(rows, sources, starts, tokens, valid, agent)  # pyright: ignore[reportArgumentType]

    def _next_group(self, waiting: dict[int, _Text], agents: Mapping[int, int]) -> dict[int, int]:
        """Slots of the next call, each with the slot it takes its first tokens from (its own where none)."""
        group: dict[int, int] = {}
        begun: list[tuple[int, np.ndarray]] = []
        for slot in sorted(waiting, key=lambda slot: (waiting[slot].starts, -len(waiting[slot].rest), slot)):
            if len(group) == self._rows:
                break
            text, source = waiting[slot], slot
            if text.starts:
                agent = agents.get(slot, 0)
                # What a row of this call begins is on the device only after the call.
                source, length = self.held.longest_prefix(text.whole, agent, without=group)
                kept = self._kept(text.whole)
                under_way = [other for owner, other in begun if owner == agent]
                if worth_waiting(text.whole, under_way, max(length, kept)):
                    continue
                if kept > length:
                    source, length = self._put_prefix(slot, agent)
                source = source if length else slot
                self._begin(slot, agent, source, length, text)
            if text.prompt:
                begun.append((int(self.held.agents[slot]), text.whole))
            group[slot] = source
        return group

    def _kept(self, text: np.ndarray) -> int:
        """How many tokens a prompt can take from the prefix: all of them, or none."""
        kept = self._prefix
        if (
            kept is None
            or len(text) <= len(kept.tokens)
            or common_length(kept.tokens, text) < len(kept.tokens)
        ):
            return 0
        return len(kept.tokens)

    def _put_prefix(self, slot: int, agent: int) -> tuple[int, int]:
        """Let a slot hold the prefix."""
        assert self._prefix is not None
        held = self._prefix.held[agent]
        self._state = self._call("put", self._state, held, np.int32(slot), shapes=held.keys[0].shape)
        self.held.begin(slot, agent, slot, 0)
        self.held.append(slot, self._prefix.tokens)
        return slot, len(self._prefix.tokens)

    def _begin(self, slot: int, agent: int, source: int, length: int, text: _Text) -> None:
        self.held.begin(slot, agent, source, length)
        text.starts, text.rest = False, text.whole[length:]
        self.counts.prefix_hits += length > 0
        self.counts.prefix_tokens += length

    def decode(
        self,
        weights: Weights,
        requests: Mapping[int, Request],
        sampling: Sampling | SlotSampling,
        *,
        quota: int,
        likeliest: int = 0,
    ) -> Decoding:
        """Start a decode block and return at once; the block ends when `quota` slots have stopped.

        Args:
          likeliest: how many of the likeliest tokens are told of each draw; another number compiles another.
        """
        block = self.config.decode_block
        budgets = np.zeros(self.slots, np.int32)
        script = np.full((self.slots, block), -1, np.int32)
        ids = np.zeros((self.slots, 4), np.uint32)
        for slot, request in requests.items():
            budgets[slot] = min(request.budget, block)
            scripted = request.script[:block]
            script[slot, : len(scripted)] = scripted
            ids[slot] = request.ids
        self._reach(max((int(self.held.lengths[slot] + budgets[slot]) for slot in requests), default=0))
        self._state, decoded = self._call(
            "decode",
            weights,
            self._state,
            budgets,
            script,
            ids,
            sampling.root,
            sampling.filters(),
            np.int32(self.end_id),
            self._stop,
            np.int32(quota),
            shapes=(likeliest, weights.adapters is not None),
            **({"likeliest": likeliest} if likeliest else {}),
        )
        return Decoding(self, tuple(requests), decoded)

    def _reach(self, tokens: int) -> None:
        """Grow the cache until a slot can hold `tokens`."""
        if tokens > self._length:
            before, self._length = self._length, next(n for n in self._cache_lengths if n >= tokens)
            self._state = self._call("grow", self._state, self._length, shapes=(before,))

    def _call(self, program: str, *arguments: Any, shapes: Sequence[Hashable] = (), **static: Any) -> Any:
        """Call a program; `shapes` names what it is compiled for beside the length of the cache."""
        with self._programs.first.of(program, self._length, *shapes):
            return getattr(self._programs, program)(*arguments, **static)
