"""A profile of chosen optimizer steps, as `jax.profiler` writes it."""

from pathlib import Path

import jax


class StepTrace:
    """Traces the steps of a phase that were asked for into a folder; the context ends an open trace.

    A trace begins and ends with idle devices, so that it holds whole steps and no others.
    """

    def __init__(self, folder: Path, steps: range) -> None:
        self._folder, self._steps = folder, steps
        self._running = False

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int, state: object) -> None:
        """Called before a step is dispatched on `state`; `step` is its number in the metrics log."""
        if step in self._steps and not self._running:
            jax.block_until_ready(state)
            with jax.transfer_guard("allow"):
                jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, state: object) -> None:
        """Called when a step has been dispatched, with what it will yield."""
        if self._running and step + 1 not in self._steps:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            with jax.transfer_guard("allow"):
                jax.profiler.stop_trace()
