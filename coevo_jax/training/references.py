"""The reference's log-probabilities: scored once on the very rows that training uses, stored, then only read.

No reference model stays in memory. The reference is the agent at the round's start or the warm start, and
where `reference_every` is set the agent as it stands after every so many steps. Where the divergence of each
token from it is learned from, a second file has the tokens'.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.data.packing.plan import with_reference, with_token_reference
from coevo_jax.files import write_whole
from coevo_jax.hosts.processes import Processes
from coevo_jax.learning.train_state import TrainState
from coevo_jax.models.transformer import Params


class NoReferences:
    """A phase's microbatches where nothing in them reads a reference."""

    def __init__(self, batches: list[PreferenceBatch]):
        self._batches = batches

    def batches_at(self, position: int, state: TrainState) -> list[PreferenceBatch]:
        """The microbatches, the same for every step."""
        return self._batches

    def files(self) -> list[Path]:
        return []


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
        by_token: bool = False,
    ):
        """Score nothing yet.

        Args:
          by_token: `score` gives [B, K], of which the views' log-probabilities are sums.
        """
        self._folder, self._name, self._batches = folder, name, batches
        self._every, self._score, self._first = every, score, first
        self._processes, self._by_token = processes, by_token
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
            if self._by_token:
                self._used.append(self._token_path)
                tokens = np.load(self._token_path)
                self._scored = [
                    with_token_reference(b, row) for b, row in zip(self._scored, tokens, strict=True)
                ]
        return self._scored

    def files(self) -> list[Path]:
        """The files used so far, for the commit: several refreshes may lie between two commits."""
        return self._used

    @property
    def _path(self) -> Path:
        refreshed = f"-{self._number:04d}" if self._number else ""
        return self._folder / f"{self._name}{refreshed}.npy"

    @property
    def _token_path(self) -> Path:
        return self._path.with_name(f"{self._path.stem}-tokens.npy")

    def _write(self, params: Params) -> None:
        scores = np.stack(jax.device_get([self._score(params, batch) for batch in self._batches]))
        files = {self._path: scores}
        if self._by_token:
            sums = [_view_sums(batch, row) for batch, row in zip(self._batches, scores, strict=True)]
            files = {self._path: np.stack(sums), self._token_path: scores}
        self._processes.once("references", lambda: self._keep(files))

    def _keep(self, files: Mapping[Path, np.ndarray]) -> None:
        for path, scores in files.items():
            buffer = io.BytesIO()
            np.save(buffer, scores)
            write_whole(path, buffer.getvalue())


def _view_sums(batch: PreferenceBatch, token_logps: np.ndarray) -> np.ndarray:
    """The log-probabilities of views, float32 [N], from those of the scored tokens [B, K]."""
    return np.einsum("bk,bsk->bs", token_logps, np.asarray(batch.view_weight)).reshape(-1)
