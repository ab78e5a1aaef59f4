"""The programs that the engine compiles, once per shape; every agent of a model shares them."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax

from coevo_jax.models.kv_cache import unstack
from coevo_jax.models.transformer import Transformer
from coevo_jax.sampling.decode import (
    SlotState,
    decode_block,
    grow,
    init_state,
    prefill,
    put_slot,
    take_slot,
)
from coevo_jax.sharding import kept


class FirstCalls:
    """Lets one thread at a time call a program with new shapes: the others find it compiled."""

    def __init__(self) -> None:
        self._made: set[Hashable] = set()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, *shapes: Hashable) -> Iterator[None]:
        """The context of a call; whoever comes while the first one is made waits for it."""
        if shapes in self._made:
            yield
            return
        with self._lock:
            yield
            self._made.add(shapes)


class EnginePrograms(NamedTuple):
    """The compiled programs of an engine."""

    create: Any  # (length) -> state of empty slots
    grow: Any  # (state, length) -> state
    prefill: Any  # (weights, state, work) -> (state, done)
    decode: Any  # (weights, state, then as decode_block) -> (state, decoded)
    unstack: Any  # (params) -> weights
    take: Any  # (state, slot) -> what it holds
    put: Any  # (state, held, slot) -> state
    first: FirstCalls


@kept(8)
def jit_engine(model: Transformer, slots: int, sharding: Any = None) -> EnginePrograms:
    """The engine's programs, the same for the same arguments.

    Args:
      sharding: a SlotState of shardings, or a prefix of one.
    """
    # What the host reads is on every device: of a mesh over several hosts, each reads its own.
    told = sharding.agent if isinstance(sharding, SlotState) else None
    return EnginePrograms(
        create=jax.jit(
            partial(init_state, model.config, model.vocab_size, slots),
            static_argnums=0,
            out_shardings=sharding,
        ),
        grow=jax.jit(grow, static_argnums=1, out_shardings=sharding),
        prefill=jax.jit(partial(prefill, model), donate_argnums=1, out_shardings=(sharding, told)),
        decode=jax.jit(
            partial(decode_block, model),
            donate_argnums=1,
            static_argnames="likeliest",
            out_shardings=(sharding, told),
        ),
        unstack=jax.jit(partial(unstack, config=model.config)),
        take=jax.jit(take_slot, out_shardings=getattr(sharding, "cache", sharding)),
        put=jax.jit(put_slot, donate_argnums=0, out_shardings=sharding),
        first=FirstCalls(),
    )
