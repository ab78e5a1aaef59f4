"""The interface that `Lane` needs of whoever writes the agents' turns: this host's engine, or a server."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from coevo_jax.config.options import RolloutConfig
from coevo_jax.rollout.stats import ServerCounts
from coevo_jax.sampling.engine import EngineCounts, Request, Sampling, Written


class DecodeBlock(Protocol):
    """A decode block: a group of slots that write at the same time."""

    @property
    def done(self) -> jax.Array | None:
        """An array that is ready once the device has finished; None if no slot lies on these devices."""
        ...

    def fetch(self) -> dict[int, Written]:
        """The tokens that the slots wrote since the last call; a slot with none yet is left out."""
        ...


class SlotEngine(Protocol):
    """An engine of slots, each of which holds a text, reads more of it, and writes on."""

    @property
    def slots(self) -> int: ...

    @property
    def lanes(self) -> int:
        """The number of engines that share an agent's slots: this one and its twins."""
        ...

    @property
    def side_by_side(self) -> bool:
        """Whether the device works on the calls of several threads at a time."""
        ...

    @property
    def config(self) -> RolloutConfig: ...

    @property
    def counts(self) -> EngineCounts | ServerCounts:
        """The counts of what was done since the last reset, as sums."""
        ...

    def twin(self) -> "SlotEngine":
        """Another engine of as many slots, for other episodes."""
        ...

    def reset(self) -> None:
        """Forget every slot."""
        ...

    def begin(self, weights: Any, prefix: Sequence[int] = (), agents: int = 1, /) -> None:
        """Empty the slots for episodes under weights that hold `agents` adapters; prompts begin alike."""
        ...

    def load(self, params: Any, adapters: Sequence[Any] = (), /) -> Any:
        """The parameters in the form that `prefill` and `decode` take as weights."""
        ...

    def room(self, slot: int, /) -> int:
        """The number of tokens that still fit into a slot."""
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
        """Let slots write, and return without waiting for them."""
        ...
