"""What a block of episodes cost and achieved, as sums; shares and means follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from coevo_jax.trajectory import Ending, Trajectory, count_endings

LATENCY_PERCENTILES = (50, 95, 99)


@dataclass(kw_only=True)
class ServerCounts:
    """Counts of the requests that a server answered since the last reset."""

    requests: int = 0
    retries: int = 0  # tries that failed and were made again
    prompt_tokens: int = 0  # sent; what of them the server computes is its own affair
    unused_tokens: int = 0  # written by the server after the end of an action's line
    latencies: list[float] = field(default_factory=list)  # seconds of each request, retries included

    def values(self, seconds: float) -> dict[str, float]:
        """The metrics of a block that took `seconds`."""
        values = {
            "server_requests": self.requests,
            "server_retries": self.retries,
            "server_prompt_tokens": self.prompt_tokens,
            "server_unused_tokens": self.unused_tokens,
            "server_requests_under_way": sum(self.latencies) / seconds,  # on average
        }
        latency = percentiles(self.latencies)
        for percentile, one in zip(LATENCY_PERCENTILES, latency, strict=True):
            values[f"server_p{percentile}_seconds"] = one
        return values


@dataclass(frozen=True, kw_only=True)
class RolloutStats:
    """Sums over the episodes of one agent in one block.

    What agents that play together share (the device, the clock, the environments) stands with each of them.
    """

    episodes: int = 0
    turns: int = 0
    agent_tokens: int = 0  # drawn (or scripted) tokens of this agent's episodes
    reward_sum: float = 0.0  # over episodes without a fault
    endings: Mapping[str, int] = field(default_factory=dict)  # by Ending value
    # Shared from here on.
    seconds: float = 0.0
    decoded_tokens: int = 0  # of all agents
    token_places: int = 0  # decode iterations x slots: what full slots would have drawn
    prefill_tokens: int = 0  # computed, not those copied
    prefill_places: int = 0  # rows x width of all prefill calls
    prefix_hits: int = 0  # episodes that began with a copy of another's tokens
    prefix_tokens: int = 0  # copied
    decode_seconds: float = 0.0  # of the device
    prefill_seconds: float = 0.0  # of the device
    env_wait_seconds: float = 0.0  # the host waited for environments; the device may have decoded meanwhile
    env_calls: int = 0
    env_seconds: float = 0.0  # time inside environments, summed over their threads
    env_latency: Sequence[float] = (0.0, 0.0, 0.0)  # seconds of a call at LATENCY_PERCENTILES
    server: ServerCounts | None = None  # where a server wrote the turns; then the device did nothing

    @property
    def faults(self) -> int:
        return self.endings.get(Ending.FAULT.value, 0) + self.lost

    @property
    def lost(self) -> int:
        """The number of branches whose replayed beginning did not come back the same."""
        return self.endings.get(Ending.LOST.value, 0)

    @property
    def mean_reward(self) -> float:
        """The mean reward over the episodes without a fault; 0 where there is none."""
        return self.reward_sum / max(1, self.episodes - self.faults)

    @property
    def occupancy(self) -> float:
        """The share of the slots' decode places that drew a token; 0 where nothing was decoded."""
        return self.decoded_tokens / max(1, self.token_places)

    def values(self) -> dict[str, float]:
        """The metrics that the log keeps of a block; those in _second(s) and _share depend on the clock."""
        seconds = max(self.seconds, 1e-9)
        values = {
            "episodes": self.episodes,
            "mean_reward": self.mean_reward,
            **{f"ending_{name}": count for name, count in self.endings.items()},
            "faults": self.faults,
            "episodes_per_second": self.episodes / seconds,
            "turns_per_second": self.turns / seconds,
            "agent_tokens_per_second": self.agent_tokens / seconds,
            **(self._device_values(seconds) if self.server is None else self.server.values(seconds)),
            "env_wait_share": self.env_wait_seconds / seconds,
            "env_calls": self.env_calls,
        }
        for percentile, latency in zip(LATENCY_PERCENTILES, self.env_latency, strict=True):
            values[f"env_p{percentile}_seconds"] = latency
        return values

    def _device_values(self, seconds: float) -> dict[str, float]:
        return {
            "prefill_tokens": self.prefill_tokens,
            "prefill_padding": 1 - self.prefill_tokens / max(1, self.prefill_places),
            "prefix_hits": self.prefix_hits,
            "prefix_tokens": self.prefix_tokens,
            "slot_occupancy": self.occupancy,
            "decode_seconds": self.decode_seconds,
            "prefill_seconds": self.prefill_seconds,
            "device_busy_share": (self.decode_seconds + self.prefill_seconds) / seconds,
        }


def joined(parts: Sequence[RolloutStats]) -> RolloutStats:
    """The counts of processes that played parts of a block side by side.

    Counts and the seconds of devices and environments are sums; the block took as long as its slowest
    process. A percentile of latencies is the worst process's: their calls are not at hand any more.
    """
    names_of_endings = dict.fromkeys(name for part in parts for name in part.endings)
    endings = {name: sum(part.endings.get(name, 0) for part in parts) for name in names_of_endings}
    shared = {"seconds", "endings", "env_latency", "server"}  # one process alone plays through a server
    names = [one.name for one in fields(RolloutStats) if one.name not in shared]
    sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in names}
    return RolloutStats(
        **sums,
        endings=endings,
        seconds=max(part.seconds for part in parts),
        env_latency=tuple(max(one) for one in zip(*(part.env_latency for part in parts), strict=True)),
    )


def sums_of(trajectories: Sequence[Trajectory]) -> dict[str, float | Mapping[str, int]]:
    """The fields of `RolloutStats` that are the agent's own."""
    played = [t for t in trajectories if t.finished]
    return {
        "episodes": len(trajectories),
        "turns": sum(len(t.turns) - t.first_own_turn for t in trajectories),
        "agent_tokens": sum(t.written_tokens for t in trajectories),
        "reward_sum": sum(t.reward for t in played),
        "endings": count_endings(trajectories),
    }


def percentiles(latencies: Sequence[float]) -> tuple[float, ...]:
    """The latencies at LATENCY_PERCENTILES; zeros where there was no call."""
    if not latencies:
        return (0.0,) * len(LATENCY_PERCENTILES)
    return tuple(float(x) for x in np.percentile(latencies, LATENCY_PERCENTILES))
