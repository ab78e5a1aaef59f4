"""The reference's log-probabilities: scored once on the very rows that training uses, stored, then only read.

No reference model stays in memory. The reference is the agent at the round's start or the warm start, and
where `reference_every` is set the agent as it stands after every so many steps.
"""

import io
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.data.packing.plan import with_reference
from coevo_jax.files import write_whole
from coevo_jax.hosts.processes import Processes
from coevo_jax.learning.train_state import TrainState
from coevo_jax.models.transformer import Params


class References:
    """A phase's microbatches with their references; each refresh is a file of its own in the run's folder.

    An interrupted phase reads the file its last commit lists, or scores again with the very same parameters.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        batches: list[PreferenceBatch],
        *,
        every: int | None,
        score: Callable[[Params, PreferenceBatch], jax.Array],
        first: Callable[[], Params],
        processes: Processes,
    ):
        self._folder, self._name, self._batches = folder, name, batches
        self._every, self._score, self._first = every, score, first
        self._processes = processes
        self._number: int | None = None
        self._scored: list[PreferenceBatch] = []
        self._used: list[Path] = []

    def batches_at(self, position: int, state: TrainState) -> list[PreferenceBatch]:
        """The microbatches as the step at `position`, taken from `state`, sees them."""
        number = position // self._every if self._every else 0
        if number != self._number:
            self._number = number
            if position == (number * self._every if self._every else 0):
                self._write(state.params if number else self._first())
            self._used.append(self._path)
            scores = np.load(self._path)
            self._scored = [with_reference(b, row) for b, row in zip(self._batches, scores, strict=True)]
        return self._scored

    def files(self) -> list[Path]:
        """The files used so far, for the commit: several refreshes may lie between two commits."""
        return self._used

    @property
    def _path(self) -> Path:
        refreshed = f"-{self._number:04d}" if self._number else ""
        return self._folder / f"{self._name}{refreshed}.npy"

    def _write(self, params: Params) -> None:
        scores = np.stack(jax.device_get([self._score(params, batch) for batch in self._batches]))
        buffer = io.BytesIO()
        np.save(buffer, scores)
        self._processes.once("references", lambda: self._keep(buffer.getvalue()))

    def _keep(self, content: bytes) -> None:
        write_whole(self._path, content)
