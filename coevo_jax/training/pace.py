"""How fast learning goes: steps and tokens a second, and the share of the chips' published rate it uses."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.options import ModelConfig
from coevo_jax.data.packing.plan import BatchPlan
from coevo_jax.learning.train_state import Learner
from coevo_jax.machine.chips import CHIPS
from coevo_jax.machine.costs import rows_flops
from coevo_jax.models.transformer import layer_type


class Pace:
    """The clock of a phase's steps. A step ends when its metrics are there, which the host has to wait for.

    What its metrics mean:
      steps_per_second, tokens_per_second: since the step before ended, or since the loop or the last commit
        was over. Tokens are all that went through the model, of agents and contexts, without padding; one
        that several trajectories share counts once.
      batch_wait_share: of that time, at most so much went by because the next batches were not there.
      mfu: floating-point operations of the model for those tokens, none counted twice (no rematerialisation),
        over time x chips x the published rate of a chip, dense bfloat16 whatever the model computes in. Left
        out where no rate is known.
    """

    def __init__(self, learner: Learner, plan: BatchPlan, mesh: Mesh, beside: str | None = None) -> None:
        """Begin the clock of a plan.

        Args:
          beside: what a step trains of another model beside the agent's, "" for a forward pass alone; None
            where there is no other.
        """
        model, trained = learner.model, "adapters" if learner.frozen_shardings else "all"
        self._tokens = plan.tokens
        passes = (trained,) if beside is None else (trained, beside)
        self._flops = [
            sum(batch_flops(model.config, model.vocab_size, batch, tokens, one) for one in passes)
            for batch, tokens in zip(plan.batches, plan.tokens, strict=True)
        ]
        self._steps = len(plan.steps)  # of an epoch
        self._peak = published_rate(mesh.devices.flat)
        self._since = time.monotonic()
        self._waited: dict[int, float] = {}
        self._first = True
        self._sums = np.zeros(4)  # tokens, operations, seconds and steps, without the first, which compiles

    def begin(self) -> None:
        """The clock runs from here: the batches of the next step are there."""
        self._since = time.monotonic()

    def waited(self, position: int, seconds: float) -> None:
        """The step at `position` could have begun so much earlier, had its batches been there."""
        self._waited[position] = seconds

    def end(self, position: int, microbatches: Sequence[int]) -> dict[str, float]:
        """The metrics of a step that has just ended."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        tokens = sum(self._tokens[number] for number in microbatches)
        flops = sum(self._flops[number] for number in microbatches)
        if not self._first:
            self._sums += (tokens, flops, seconds, 1)
        self._first = False
        values = {
            "steps_per_second": 1 / seconds,
            "tokens_per_second": tokens / seconds,
            "batch_wait_share": min(self._waited.pop(position, 0.0) / seconds, 1.0),
        }
        return values | ({} if self._peak is None else {"mfu": flops / seconds / self._peak})

    def seconds_for(self, steps: int) -> float | None:
        """How long so many more steps take, by those so far; None where there are none to go by."""
        _, _, seconds, taken = self._sums
        return steps * seconds / taken if taken else None

    def least_seconds(self, steps: int) -> float | None:
        """What the chips' published rate allows for so many steps; None where none is known."""
        if self._peak is None:
            return None
        return sum(self._flops) * steps / self._steps / self._peak

    def words(self) -> str:
        """Means over the steps of this process but its first, for people; "" where there are none."""
        tokens, flops, seconds, _ = self._sums
        if not seconds:
            return ""
        rate = f"{tokens / seconds:,.0f} tokens/s"
        return rate if self._peak is None else f"{rate}, {flops / seconds / self._peak:.1%} of peak"


def batch_flops(
    model: ModelConfig, vocab_size: int, batch: PreferenceBatch, tokens: int, trained: str
) -> float:
    """Operations of a microbatch's `tokens` real tokens, for a step that trains "all" or "adapters".

    In layers with a sliding window a token is taken to be seen by the next ones of its row, as many as the
    window has; that is exact without branches, and too little with them.
    """
    places = np.arange(batch.tokens.tokens.shape[1])
    queries = np.asarray(batch.tokens.visible_until, np.int64) - places  # that see a key, its own among them
    padding = queries.size - tokens  # each sees itself alone
    by_kind = {"full": queries.sum() - padding}
    if model.sliding_window is not None:
        by_kind["sliding"] = np.minimum(queries, model.sliding_window).sum() - padding
    seen = sum(by_kind[layer_type(model, layer)] for layer in range(model.num_layers))
    scored = int(np.sum(batch.tokens.scored))
    return rows_flops(model, vocab_size, tokens=tokens, scored=scored, seen=float(seen), trained=trained)


def published_rate(devices: Iterable[Any]) -> float | None:
    """Operations per second of all devices together; None where a device has no published rate."""
    chips = [CHIPS.get(device.device_kind) for device in devices]
    return None if None in chips else sum(chip.flops for chip in chips if chip is not None)
