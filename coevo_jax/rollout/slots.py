"""What `Lane` asks of whoever writes the agents' turns: the engine on this host's devices, or a server."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from coevo_jax.config.options import RolloutConfig
from coevo_jax.rollout.stats import ServerCounts
from coevo_jax.sampling.engine import EngineCounts, Request, Sampling, Written


class DecodeBlock(Protocol):
    """Slots that write."""

    @property
    def done(self) -> jax.Array | None:
        """There once the device is done; None where none of this process's devices writes."""
        ...

    def fetch(self) -> dict[int, Written]:
        """What the slots wrote since the last call. A slot that is missing has nothing to show yet."""
        ...


class SlotEngine(Protocol):
    """Slots that hold a text each, read more of it, and write on."""

    @property
    def slots(self) -> int: ...

    @property
    def config(self) -> RolloutConfig: ...

    @property
    def counts(self) -> EngineCounts | ServerCounts:
        """Sums since the last reset."""
        ...

    def twin(self) -> "SlotEngine":
        """As many slots again, for another agent's episodes."""
        ...

    def reset(self) -> None:
        """Forget every slot."""
        ...

    def begin(self, weights: Any, prefix: Sequence[int] = (), agents: int = 1, /) -> None:
        """Empty the slots for episodes under weights that hold `agents` adapters; prompts begin alike."""
        ...

    def load(self, params: Any, adapters: Sequence[Any] = (), /) -> Any:
        """What `prefill` and `decode` take as weights."""
        ...

    def room(self, slot: int, /) -> int:
        """Tokens that still fit into a slot."""
        ...

    def prefill(
        self,
        weights: Any,
        texts: Mapping[int, np.ndarray],
        fresh: frozenset[int],
        agents: Mapping[int, int] | None = None,
        /,
    ) -> Iterable[jax.Array]:
        """Append tokens to slots, of which those in `fresh` forget what they held; a turn begins after them.

        Returns an array per call of a device, there once the call is done.
        """
        ...

    def decode(
        self, weights: Any, requests: Mapping[int, Request], sampling: Sampling, /, *, quota: int
    ) -> DecodeBlock:
        """Let slots write, and return at once."""
        ...
