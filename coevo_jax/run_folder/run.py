"""The folder of a run: created once, committed phase by phase, reopened after an interruption."""

import resource
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import remove_leftovers
from coevo_jax.hosts.processes import Processes
from coevo_jax.learning.train_state import Agents
from coevo_jax.progress import Stopwatch
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.digests import Hashing
from coevo_jax.run_folder.environment import read_environment
from coevo_jax.run_folder.folder import checked_manifest, create_folder, read_config, run_folder
from coevo_jax.run_folder.intact import intact_words, require_checkpoint
from coevo_jax.run_folder.lock import hold
from coevo_jax.run_folder.manifest import (
    Damaged,
    Manifest,
    PhaseRecord,
    checkpoint_root,
    file_hashes,
    file_sizes,
    from_plain,
    read_manifest,
    to_plain,
    write_manifest,
)
from coevo_jax.run_folder.metrics import MetricsLog
from coevo_jax.run_folder.results import Results, ResultsFile
from coevo_jax.run_folder.save_cost import SaveCost
from coevo_jax.run_folder.stopping import StopRequest
from coevo_jax.run_folder.tensorboard import EventFile
from coevo_jax.run_folder.wandb_log import WandbLog
from coevo_jax.run_folder.weak_models import needed_checkpoints


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A commit whose states are still being written: the manifest to write when they are final."""

    manifest: Manifest
    with_base: bool
    cost: SaveCost
    hashing: Hashing | None = None  # once the states are final


class Run:
    """A run folder held by the processes of this run, with its commit record and its metrics log.

    `manifest` is what has been done; the one on disk is what of it is committed, and may lie one commit back
    while states are written. Process 0 alone writes the record, the log and the results; the others follow it
    from commit to commit.
    """

    def __init__(
        self, config: Config, folder: Path, manifest: Manifest, processes: Processes | None = None
    ) -> None:
        self.processes = processes or Processes()
        self.config = config
        self.folder = folder
        self.manifest = manifest
        self._watch = Stopwatch(manifest.seconds or 0.0)
        self._lock = hold(folder, self.processes)
        try:
            self._open()
        except BaseException:
            if self._lock is not None:
                self._lock.close()
            raise

    def _open(self) -> None:
        folder, manifest, config = self.folder, self.manifest, self.config
        if self.leads:
            remove_leftovers(folder)
        self.checkpoints = Checkpointer(
            checkpoint_root(folder, manifest), owner=True, check=self._require_checkpoint
        )
        # Nothing was committed of those after the newest; older ones stay of a run that was killed pruning.
        newest, kept = -1, set[int]()
        if manifest.checkpoint is not None:
            newest = manifest.checkpoint
            kept = self._kept(manifest) | (set() if manifest.base is None else {manifest.base})
        self.checkpoints.prune(kept, newest)
        self.log = (MetricsLog if self.leads else MetricsLog.discarded)(folder / "metrics.jsonl")
        self.log.truncate(manifest.metrics_offset)
        self._watchers = _watchers(folder, config) if self.leads else []
        self._results = ResultsFile(folder)
        self.log.followers += [watcher.write for watcher in self._watchers]
        self.stop = StopRequest()
        self.traced_steps = range(0)  # optimizer steps that are profiled, by their numbers in the metrics log
        self._begun: _Begun | None = None
        self._unshown: Results | None = None  # results that wait for it
        self._saved: dict[str, float] = {}  # what the newest save cost, until a step's metrics have it
        self._unpruned = False  # a checkpoint has become permanent since the last look at which are kept

    @property
    def leads(self) -> bool:
        """Whether this process writes what a run has one of."""
        return self.processes.leads

    def begin(self, name: str) -> PhaseRecord:
        """Where a phase stands: fresh, or as far as an interrupted run has committed it."""
        return self.manifest.begin(name)

    @property
    def next_checkpoint(self) -> int:
        """The number under which the next commit stores the agents' states."""
        return 0 if self.manifest.checkpoint is None else self.manifest.checkpoint + 1

    def environment(self) -> dict[str, Any]:
        """Versions and devices as they were when the run began."""
        return read_environment(self.folder)

    def commit(
        self,
        record: PhaseRecord,
        *,
        files: list[Path],
        finished: bool,
        agents: Agents | None = None,
        with_base: bool = False,
    ) -> PhaseRecord:
        """Make what was done so far permanent: files and states first, the manifest last.

        States are written and hashed while the caller goes on, and count once they are final (`settle`): a
        process that is killed before loses this commit alone, also where it finishes a phase. Without states
        a commit is permanent when this returns. All processes commit together; what process 0 records counts
        for all, and is returned.

        Args:
          files: as process 0 finds them.
          agents: as they stand now; None where no state has changed since the last commit.
          with_base: the states' checkpoint is to hold what is frozen, too.
        """
        self.settle()
        if self.leads:
            record = replace(record, files=record.files | file_hashes(self.folder, files))
        manifest = replace(
            self.manifest,
            running=record,
            metrics_offset=self.log.offset(),
            metrics_sha256=self.log.digest(),
            peak_memory_bytes=max(self.manifest.peak_memory_bytes, peak_memory()),
            seconds=None if self.manifest.seconds is None else self._watch.seconds,
        )
        if agents is None:
            self.follow(manifest.finish(record) if finished else manifest)
            return self.manifest.running or self.manifest.done[-1]
        number = self.next_checkpoint
        cost = SaveCost()
        with cost.inside():
            self.checkpoints.begin_save(number, agents.states, agents.frozen if with_base else {})
        manifest = replace(manifest, checkpoint=number, base=number if with_base else manifest.base)
        self.follow(manifest.finish(record) if finished else manifest, permanent=False)
        self._begun = _Begun(manifest=self.manifest, with_base=with_base, cost=cost)
        return self.manifest.running or self.manifest.done[-1]

    def keep(self, name: str, files: list[Path]) -> None:
        """List files with a phase's last commit, which stays where it was: states, position and log.

        It is for what a run leaves behind that ends between two commits. All processes call it together.
        """
        self.settle()
        record = self.begin(name)
        if self.leads:
            record = replace(record, files=record.files | file_hashes(self.folder, files))
        self.follow(replace(self.manifest, running=record))

    def follow(self, manifest: Manifest | None = None, *, permanent: bool = True) -> None:
        """Take over the record that process 0 gives; `permanent` lets it write that, too.

        Phases that were finished before are the same in all processes, and stay as they are.
        """
        known = self.manifest.done

        def give() -> Any:
            assert manifest is not None  # process 0 has made it
            if permanent:
                write_manifest(self.folder, manifest)
            assert manifest.done[: len(known)] == known
            return to_plain(replace(manifest, done=manifest.done[len(known) :]))

        given = from_plain(self.processes.once("commit", give))
        self.manifest = replace(given, done=(*known, *given.done))

    def settle(self) -> None:
        """Wait until the last commit is permanent, then delete the checkpoints that are kept no longer."""
        if self._begun is not None:
            self._write_begun()
        if self._unpruned:
            self._prune()

    def settle_if_final(self) -> None:
        """Make the last commit permanent if its states are final and hashed by now; does not wait.

        That is process 0's to do and to decide. Nothing is deleted here: that is for all processes together.
        """
        if self._begun is None or not self.leads or self.checkpoints.saving():
            return
        if self._begun.hashing is None:
            self._begun = self._hashed(self._begun)
        assert self._begun.hashing is not None
        if self._begun.hashing.done():
            self._write_begun()

    def between_blocks(self) -> None:
        """What is to be done now and then while episodes are played: see to the last commit, end if asked.

        Raises:
          Stopped: somebody asked, and this is the only process.
        """
        self.settle_if_final()
        self.stop.end_if_alone_and_asked()

    def _hashed(self, begun: _Begun) -> _Begun:
        """Begin to hash the files of final states."""
        assert begun.manifest.checkpoint is not None
        folder = self.checkpoints.finish_save(begun.manifest.checkpoint)
        return replace(begun, hashing=Hashing(folder))

    def _require_checkpoint(self, number: int) -> None:
        """Called before a checkpoint is read, by all processes: what is read has its digests."""
        self.settle()
        if self.leads:
            require_checkpoint(self.folder, self.manifest, number)

    def _write_begun(self) -> None:
        begun, self._begun = self._begun, None
        assert begun is not None and begun.manifest.checkpoint is not None
        with begun.cost.inside():
            folder = self.checkpoints.finish_save(begun.manifest.checkpoint)
            self.manifest = begun.manifest
            if self.leads:
                self._write_final(begun, folder)
        self._saved = begun.cost.end()
        self._unpruned = True
        if self._unshown is not None:
            self._results.save(self._unshown)
            self._unshown = None

    def _write_final(self, begun: _Begun, folder: Any) -> None:
        """Write the manifest of a commit whose states are final, with the digests of their files."""
        manifest, sizes = begun.manifest, file_sizes(folder)
        base_files = sizes if begun.with_base else manifest.base_files
        hashing = (begun if begun.hashing else self._hashed(begun)).hashing
        assert hashing is not None
        digests = manifest.checkpoint_digests | {str(manifest.checkpoint): hashing.result()}
        kept = self._kept(manifest)
        digests = {number: found for number, found in digests.items() if int(number) in kept}
        self.manifest = replace(
            manifest, checkpoint_files=sizes, base_files=base_files, checkpoint_digests=digests
        )
        write_manifest(self.folder, self.manifest)

    def take_saved(self) -> dict[str, float]:
        """What the newest save cost, for the metrics of the next step: once, and nothing where none ended."""
        saved, self._saved = self._saved, {}
        return saved

    def _prune(self) -> None:
        """Keep the newest permanent checkpoints, that of the warm start, and those that learnings need."""
        newest = self.manifest.checkpoint
        assert newest is not None
        self.checkpoints.prune(self._kept(self.manifest), newest)
        self._unpruned = False

    def _kept(self, manifest: Manifest) -> set[int]:
        """The checkpoints that stay once a record is permanent."""
        newest = manifest.checkpoint
        assert newest is not None
        keep = self.config.checkpoint.keep
        kept = set(range(0 if keep == "all" else newest - keep + 1, newest + 1))
        warm_start = manifest.record("warm_start")
        kept |= {warm_start.records["checkpoint"]} if warm_start else set()
        began = None if manifest.running is None else manifest.running.records.get("began_with")
        kept |= set() if began is None else {began}  # where a fork begins that changes how this is learned
        return kept | needed_checkpoints(self.config, manifest)

    def show(self, results: Results) -> None:
        """Store the results so far, where whoever looks on finds them: never of what is not permanent yet."""
        if self.leads and self._begun is not None:
            self._unshown = results
        elif self.leads:
            self._results.save(results)
        for watcher in self._watchers:
            watcher.show(results)

    def close(self) -> None:
        """Make a commit that has begun permanent, and give the folder free."""
        with ExitStack() as stack:  # each is closed, whatever becomes of those before it
            if self._lock is not None:
                stack.callback(self._lock.close)
            stack.callback(self.checkpoints.close)
            for watcher in self._watchers:
                stack.callback(watcher.close)
            stack.callback(self.log.close)
            self.settle()


def _watchers(folder: Path, config: Config) -> list[EventFile | WandbLog]:
    """What is told of a run's metrics and results, beside its own files."""
    if config.log.wandb is None:
        return [EventFile(folder)]
    return [EventFile(folder), WandbLog(folder, config)]


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def create_run(config: Config, processes: Processes | None = None) -> Run:
    """Make the folder of a new run, whole or not at all. An existing one is never touched.

    Of several processes, number 0 makes it.

    Raises:
      ConfigError: the folder exists, with the same config (resume it) or another (its first difference).
    """
    processes = processes or Processes()
    manifest = processes.once("create the run", lambda: to_plain(create_folder(config)))
    return Run(config, run_folder(config), from_plain(manifest), processes)


def open_run(folder: Path, processes: Processes | None = None) -> Run:
    """Reopen a run at its last commit.

    Raises:
      ConfigError: not a run, its config was edited, or a committed file is missing or changed.
    """
    processes = processes or Processes()
    config = read_config(folder)
    manifest = processes.once("open the run", lambda: to_plain(_intact_manifest(folder)))
    return Run(config, folder, from_plain(manifest), processes)


def _intact_manifest(folder: Path) -> Manifest:
    """The record of a run that is to go on, or what of it is intact."""
    try:
        return checked_manifest(folder)
    except Damaged as error:
        raise ConfigError(f"{error}; {intact_words(folder, read_manifest(folder))}") from None
