"""Orbax checkpoints of all agents' states, as one composite per commit, written while learning goes on.

Where the agents are adapters, the checkpoint of the warm start also holds the base, once and for all.
"""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.train_state import TrainState
from coevo_jax.models.transformer import Params
from coevo_jax.run_folder.digests import on_bucket

BASE = "base"  # folder of the frozen parameters inside a checkpoint
# That of the model which is trained beside an agent, while a learning is under way: no agent has such a name.
WEAK = "weak-branch"
JUDGE = "step-judge"  # that of the discriminator, which no agent is called either
SPARE_BYTES = 1 << 20  # indices and metadata beside the arrays


def stored_agents(checkpoint: epath.Path) -> tuple[str, ...]:
    """Names of the agents that the folder of a checkpoint holds."""
    names = sorted(path.name for path in checkpoint.iterdir() if path.is_dir())
    return tuple(
        name for name in names if name not in (BASE, WEAK, JUDGE) and not name.startswith(("_", "."))
    )


class Checkpointer:
    """Holds the Orbax manager of a run. Steps are commit numbers; deleting is left to `prune`.

    Orbax would delete an old step before the manifest names the new one, so its own keep policy stays off.
    """

    def __init__(
        self,
        folder: Path | epath.Path,
        *,
        owner: bool = False,
        check: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Open the checkpoints of a folder, which is made.

        Args:
          folder: on a disk or on a bucket (gs://).
          owner: this process alone writes here, and removes what a killed one left half-written.
          check: called once before anything of a checkpoint is read, by all processes: waits where it is
            still being written, raises where it is damaged.
        """
        self._check, self._checked = check, set[int]()
        self._failure: Exception | None = None  # of a save
        place = epath.Path(folder)
        self.folder = place if on_bucket(place) else place.resolve()  # which knows no gs://
        options = ocp.CheckpointManagerOptions(
            create=True, enable_async_checkpointing=True, cleanup_tmp_directories=owner
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def begin_save(self, number: int, agents: Mapping[str, TrainState], base: Params) -> None:
        """Copy the states to the host, and write them while the caller goes on.

        When this returns, the states may be donated: on accelerators the copy is made, and on the CPU, where
        it is the very buffer, JAX does not donate a buffer that somebody still reads.

        Args:
          base: frozen parameters to store beside them; nothing where it is empty.

        Raises:
          OSError: the disk is full. Looked up beforehand: Orbax' writers fail one by one, each with a trace.
        """
        contents: dict[str, Any] = {**agents} | ({BASE: base} if base else {})
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(contents)) + SPARE_BYTES
        if not on_bucket(self.folder) and shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / str(number)))
        items = {name: ocp.args.StandardSave(state) for name, state in contents.items()}
        _without_ties(lambda: self._manager.save(number, args=ocp.args.Composite(**items)))

    def saving(self) -> bool:
        """Whether a save is still being written."""
        return self._manager.is_saving_in_progress()

    def finish_save(self, number: int) -> epath.Path:
        """Wait until a save is final, or raise what its writers failed with. Returns its folder."""
        if self._failure is not None:  # Orbax tells it once
            raise self._failure
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._failure = error
            raise
        place = self.folder / str(number)
        if not on_bucket(place) and not place.is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(place))
        return place

    def restore(self, number: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Read the named agents' states, or the base, straight into their shardings.

        Raises:
          ConfigError: the checkpoint is not there or does not fit the model of this run.
        """
        items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        with self._readable(number):
            restored = self._manager.restore(number, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in abstract}

    def restore_params(self, number: int, agent: str, abstract: Params) -> Params:
        """Read an agent's parameters alone: Adam's moments, twice their size, are left where they are.

        Raises:
          ConfigError: the checkpoint is not there or does not fit the model of this run.
        """
        item = {"params": abstract}
        arguments = ocp.args.PyTreeRestore(
            item=item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        place = self.folder / str(number) / agent
        handler = ocp.PyTreeCheckpointHandler()
        with self._readable(number), ocp.Checkpointer(handler) as reader:
            stored: Any = handler.metadata(place)
            if _shapes(stored.tree["params"]) != _shapes(abstract):  # Orbax skips what one of both lacks
                raise ValueError("it holds other parameters than the model has")
            return reader.restore(place, args=arguments)["params"]

    @contextmanager
    def _readable(self, number: int) -> Iterator[None]:
        """Turn what Orbax raises for a checkpoint that it cannot restore into a ConfigError."""
        self._require(number)
        try:
            yield
        except (FileNotFoundError, KeyError, ValueError) as error:
            first = str(error).strip().splitlines()[0][:300]
            raise ConfigError(f"{self.folder / str(number)}: cannot be restored: {first}") from None

    def _require(self, number: int) -> None:
        if number not in self._checked:
            self._check(number)
            self._checked.add(number)

    def agents(self, number: int) -> tuple[str, ...]:
        """Names of the agents a checkpoint holds."""
        self._require(number)
        return stored_agents(self.folder / str(number))

    def has_weak(self, number: int) -> bool:
        """Whether a checkpoint, made while a learning was under way, holds the model trained beside it."""
        self._require(number)
        return (self.folder / str(number) / WEAK).is_dir()

    def has_judge(self, number: int) -> bool:
        """Whether a checkpoint holds a discriminator."""
        self._require(number)
        return (self.folder / str(number) / JUDGE).is_dir()

    def prune(self, keep: set[int], newest: int) -> None:
        """Delete every checkpoint but the kept ones; those after `newest` were never committed."""
        for number in list(self._manager.all_steps()):
            if number > newest or number not in keep:
                self._manager.delete(number)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        self._manager.close()


def _without_ties(work: Callable[[], Any]) -> None:
    """Do work whose threads do not keep the process from ending.

    Threads are of the kind of the one that starts them. Where a write fails, Orbax' threads that would have
    followed wait ten minutes for it; a save that counts is waited for by `finish_save`.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # told where the work was asked for
            failed.append(error)

    thread = threading.Thread(target=run, name="checkpoint-save", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), params)
