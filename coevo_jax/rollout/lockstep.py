"""Environments of several hosts that play in lockstep, because a copy of the model takes all their devices.

All hosts hold the same slots and run the same lane: each decode block is then the same program everywhere, as
every call over several hosts must be. A slot's environment lives on one host, and what it answers goes to all
before anyone acts on it. A host whose environments are done runs along with what the others' slots write.
"""

import base64
from collections.abc import Callable, Collection
from typing import Any

from coevo_jax.envs.env import Env
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.wire import from_bytes, to_bytes
from coevo_jax.hosts.processes import ProcessGroup


class LockstepPool:
    """The pools of a group of hosts as one: slot s is played on host s modulo their number.

    Calls and answers are those of `EnvPool`, and the same on every host; so are the counts.
    """

    def __init__(self, pool: EnvPool, circle: ProcessGroup):
        self._pool, self._circle = pool, circle
        self.calls, self.seconds = 0, 0.0
        self.latencies: list[float] = []
        self._pool.latencies.clear()

    @property
    def most(self) -> int | None:
        """Most instances at a time of all hosts together: what one of them may have."""
        return self._pool.most

    def submit(self, slot: int, function: Callable[[Env], Any], *, steps: int = 1) -> None:
        """Call `function` with the slot's instance, on the host that has it."""
        if self._is_own(slot):
            self._pool.submit(slot, function, steps=steps)

    def wait(self, slots: Collection[int] | None = None) -> dict[int, Any]:
        """Wait for the calls of these slots (of all) on every host; outcomes come in the order of slots."""
        own = None if slots is None else {slot for slot in slots if self._is_own(slot)}
        return self._share(self._pool.wait(own))

    def ready(self, slots: Collection[int], *, wait: bool) -> dict[int, Any]:
        """The outcomes that have arrived on any host; with `wait`, each host waits until it has one."""
        own = {slot for slot in slots if self._is_own(slot)}
        return self._share(self._pool.ready(own, wait=wait))

    def _is_own(self, slot: int) -> bool:
        return slot % self._circle.count == self._circle.index

    def _share(self, outcomes: dict[int, Any]) -> dict[int, Any]:
        own_latencies, self._pool.latencies = self._pool.latencies, []
        mine = base64.b64encode(to_bytes((outcomes, own_latencies))).decode()
        everyone: dict[int, Any] = {}
        for said in self._circle.exchange("answers", mine):
            answers, latencies = from_bytes(base64.b64decode(said))
            everyone |= answers
            self.latencies += latencies
            self.calls += len(latencies)
            self.seconds += sum(latencies)
        return dict(sorted(everyone.items()))


Environments = EnvPool | LockstepPool
