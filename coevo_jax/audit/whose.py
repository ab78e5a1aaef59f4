"""Whose the trajectories are, that all are there, and that tasks are those of the config."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from etils import epath
from etils.epath import backend

from coevo_jax.audit.check import Check, NotCheckable, differs, judge
from coevo_jax.audit.order import Phase, asked_of, expected_phases, finished
from coevo_jax.audit.reading import BROKEN, ENDINGS, SHARD, Episode, RunFiles, read_episodes, rows_of, written
from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import Config, of_round
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Env, error_test, offer_test
from coevo_jax.envs.registry import make_env

CHUNK = 1 << 20
SPLITS = ("train", "dev", "test")


def whose_checks(files: RunFiles, tasks: "Tasks") -> Iterator[Check]:
    """Files, phases, tasks and each collection of trajectories."""
    yield judge("whose/files", file_problems(files), lambda: f"{len(files.files)} committed files")
    yield judge(
        "whose/phases", phase_problems(files), lambda: f"{len(files.records)} phases in the recipe's order"
    )
    yield judge("whose/checkpoints", chain_problems(files), lambda: "each phase began where the last ended")
    yield judge("whose/splits", tasks.split_problems(), tasks.words)
    yield judge(
        "whose/experts", expert_problems(files, tasks), lambda: "experts of the configured tasks alone"
    )
    for phase in finished(files, "explore", "evaluate"):
        counts: dict[str, int] = {}
        problems = collection_problems(files, phase, tasks, counts)
        yield judge(f"whose/{phase.name}", problems, lambda counts=counts: _played_words(counts))


def _played_words(counts: dict[str, int]) -> str:
    return f"{counts['episodes']} episodes of {counts['tasks']} tasks in {counts['shards']} shards"


def file_problems(files: RunFiles) -> Iterator[str]:
    """Every committed file is there with its digest, the log is long enough, the newest states are whole."""
    for name, digest in files.files.items():
        path = files.folder / name
        if not path.is_file():
            yield f"{name}: missing, expected sha256 {digest[:12]}…"
        else:
            yield from differs(f"{name}: sha256", f"{_digest(path)[:12]}…", f"{digest[:12]}…")
    config = _digest(files.folder / "config.yaml")
    yield from differs("config.yaml: sha256", config, files.manifest["config_sha256"])
    if (expected := files.manifest.get("sha256")) is not None:
        rest = {key: value for key, value in files.manifest.items() if key != "sha256"}
        found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        yield from differs("manifest.json: sha256 of the rest", found, expected)
    log = files.folder / "metrics.jsonl"
    size, offset = log.stat().st_size if log.is_file() else 0, files.manifest["metrics_offset"]
    if size < offset:
        yield f"metrics.jsonl: found {size} bytes, expected at least {offset}"
    elif (expected := files.manifest.get("metrics_sha256")) is not None:
        found = hashlib.sha256(log.read_bytes()[:offset]).hexdigest() if log.is_file() else None
        yield from differs("metrics.jsonl: sha256", found, expected)
    for number, digests in files.manifest.get("checkpoint_digests", {}).items():
        folder = checkpoint_folder(files, int(number))
        if not folder.exists():  # it may have been deleted since
            continue
        if "://" in str(folder):
            yield from _bucket_problems(folder, digests)
            continue
        for name, digest in digests.items():
            path = Path(folder / name)
            found = _digest(path) if path.is_file() else None
            yield from differs(f"{path}: sha256", found, digest)
    for number, sizes in (("checkpoint", "checkpoint_files"), ("base", "base_files")):
        folder = checkpoint_folder(files, files.manifest[number])
        for name, length in files.manifest[sizes].items():
            found = (folder / name).stat().length if (folder / name).exists() else None
            yield from differs(f"{folder / name}: bytes", found, length)


def checkpoint_folder(files: RunFiles, number: int | None) -> epath.Path:
    """Where a checkpoint lies: in the run's folder, on another disk or on a bucket."""
    root = files.manifest["checkpoints"]
    return (epath.Path(root) if "://" in root else epath.Path(files.folder.absolute()) / root) / str(number)


def _bucket_problems(folder: epath.Path, digests: dict[str, str]) -> Iterator[str]:
    """Objects of which the bucket says another checksum than it said when they were committed."""
    for name, digest in digests.items():
        path = str(folder / name)
        files: Any = backend.fsspec_backend.fs(path)
        files.invalidate_cache()
        found = f"crc32c:{files.info(path)['crc32c']}" if files.exists(path) else None
        yield from differs(f"{path}: checksum", found, digest)


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def phase_problems(files: RunFiles) -> Iterator[str]:
    """The finished phases are the first of those that the config asks for."""
    expected = [phase.name for phase in expected_phases(files.config)]
    found = [record["name"] for record in files.manifest["done"]]
    for place, name in enumerate(found):
        yield from differs(f"phase {place + 1}", name, expected[place] if place < len(expected) else None)
    if files.manifest["running"] is None and 0 < len(found) < len(expected):
        raise NotCheckable(f"{len(found)} of {len(expected)} phases are finished; these are as expected")


def chain_problems(files: RunFiles) -> Iterator[str]:
    """A phase that plays or learns begins with the newest states that learning before it left."""
    newest = None
    for name, record in files.records.items():
        records, kind = record["records"], name.rpartition("/")[2].partition("_")[0]
        if kind in ("explore", "branch", "ask", "evaluate", "judge", "learn"):
            key = "began_with" if kind in ("judge", "learn") else "checkpoint"
            if key not in records:
                raise NotCheckable(f"{name} records no {key}: made by an earlier version")
            yield from differs(f"{name}: {key}", records[key], newest)
        if kind in ("warm", "judge", "learn") and "checkpoint" in records:
            if newest is not None and not records["checkpoint"] > newest:
                yield f"{name}: checkpoint: found {records['checkpoint']}, expected one after {newest}"
            newest = records["checkpoint"]


@lru_cache(maxsize=1)
def tasks_in(files: RunFiles) -> "Tasks":
    """The task lists of a run's environment, which is opened once."""
    return Tasks(files.config)


class Tasks:
    """The environment's own task lists, and the slices of them that a config names."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.lists: dict[str, list[str]] = {}
        self.system_prompt = ""
        self.is_error: Callable[[str], bool] | None = None  # None where the environment cannot be opened
        self._offered: Callable[[str], Sequence[str]] = lambda observation: ()
        self._why = ""
        try:
            env: Env = make_env(config.env.name, config.env.options)()
            try:
                self.lists = {split: [task.id for task in env.tasks(split)] for split in SPLITS}
                self.system_prompt = env.system_prompt
                self.is_error = error_test(env)
                self._offered = offer_test(env)
            finally:
                env.close()
        except (ConfigError, ImportError, OSError) as error:
            self._why = f"the environment {config.env.name} cannot be opened here: {error}"

    def of(self, split: str, where: str) -> list[str]:
        """The tasks of a slice.

        Raises:
          NotCheckable: the environment cannot be opened.
        """
        if self._why:
            raise NotCheckable(self._why)
        start, stop = slice_bounds(where)
        return self.lists[split][start:stop]

    def of_phase(self, phase: Phase) -> list[str]:
        if phase.kind == "evaluate":
            return self.of(self._config.evaluate.split, self._config.evaluate.tasks)
        return self.of("train", of_round(self._config.explore.tasks, phase.round))

    def told_errors(self) -> Callable[[str], bool]:
        """What tells an error of the environment from its other answers.

        Raises:
          NotCheckable: the environment cannot be opened.
        """
        if self.is_error is None:
            raise NotCheckable(self._why)
        return self.is_error

    def read_offers(self) -> Callable[[str], Sequence[str]]:
        """What reads the actions that an answer of the environment lists.

        Raises:
          NotCheckable: the environment cannot be opened.
        """
        if self._why:
            raise NotCheckable(self._why)
        return self._offered

    def opened_prompt(self) -> str:
        """The environment's system prompt.

        Raises:
          NotCheckable: the environment cannot be opened.
        """
        if self._why:
            raise NotCheckable(self._why)
        return self.system_prompt

    def split_problems(self) -> Iterator[str]:
        """No task stands in two splits, or twice in one."""
        self.of("train", ":")
        for split, ids in self.lists.items():
            if len(set(ids)) < len(ids):
                yield f"{split}: found {len(ids) - len(set(ids))} tasks that stand in it twice, expected none"
        for one, other in combinations(SPLITS, 2):
            shared = sorted(set(self.lists[one]) & set(self.lists[other]))
            if shared:
                yield f"{one} and {other}: found {shared[0]} in both ({len(shared)} tasks), expected none"

        config = self._config
        if config.model.path is None and config.warm_start.data is None and config.rounds:
            imitated = set(self.of("train", config.warm_start.tasks))
            again = [
                task for where in config.explore.tasks for task in self.of("train", where) if task in imitated
            ]
            if again:
                yield f"explore.tasks: found {again[0]}, which is imitated, expected tasks not seen yet"

    def words(self) -> str:
        return ", ".join(f"{split} {len(ids)}" for split, ids in self.lists.items()) + " tasks, disjoint"


def expert_problems(files: RunFiles, tasks: Tasks) -> Iterator[str]:
    """Experts are of the imitated and explored tasks, one each, by the expert, solved as rewards say."""
    config = files.config
    wanted = [] if config.warm_start.data is not None else tasks.of("train", config.warm_start.tasks)
    for where in config.explore.tasks if config.rounds else ():
        wanted = [*wanted, *tasks.of("train", where)]
    known, seen = set(wanted), set()
    for path, agent in (("trajectories/experts.parquet", "expert"), ("trajectories/imported.parquet", None)):
        if path not in files.files:
            continue
        for row, episode in enumerate(read_episodes(files.folder / path)):
            where = f"{path}: row {row}: {episode.name}"
            yield from episode_problems(where, episode)
            if agent is not None:
                yield from differs(f"{where}: agent", episode.agent, agent)
                if episode.task_id not in known:
                    yield f"{where}: found another task's expert, expected one of those imitated or explored"
                if episode.task_id in seen:
                    yield f"{where}: found a second expert of the task, expected one"
                seen.add(episode.task_id)
            if episode.ending not in ("solved", "failed"):
                yield f"{where}: ending: found {episode.ending}, expected an expert's, solved or failed"


def collection_problems(files: RunFiles, phase: Phase, tasks: Tasks, counts: dict[str, int]) -> Iterator[str]:
    """All blocks are there, by the phase's agent alone, every task and sample once, in the config's order.

    Under a budget the blocks behind the one with which the agents have written enough are empty.
    """
    paths = files.collection(phase.round, phase.collection)
    yield from shard_problems(paths, f"{phase.collection} of round {phase.round}")
    ids = tasks.of_phase(phase)
    counts |= {"shards": len(paths), "tasks": len(ids), "episodes": 0}
    asked = asked_of(files.config, phase, "explored_tokens") if phase.kind == "explore" else None
    size = block_size(files, phase, paths)
    blocks = expected_blocks(files.config, phase, ids, size, by_sample=asked is not None)
    yield from differs(f"{phase.name}: shards", len(paths), len(blocks))
    tokens = 0
    for path, block in zip(paths, blocks, strict=False):
        expected = block if asked is None or tokens < asked else []
        found = 0
        for row, episode in enumerate(read_episodes(path)):
            where = f"{path.relative_to(files.folder)}: row {row}: {episode.name}"
            yield from differs(f"{where}: agent", episode.agent, phase.agent)
            one = (episode.task_id, episode.sample)
            wanted = expected[row] if row < len(expected) else None
            yield from differs(f"{where}: task and sample", one, wanted)
            yield from episode_problems(where, episode)
            found = row + 1
        yield from differs(f"{path.relative_to(files.folder)}: episodes", found, len(expected))
        counts["episodes"] += found
        tokens += 0 if asked is None else written(path)


def block_size(files: RunFiles, phase: Phase, paths: Sequence[Path]) -> int:
    """How many tasks are played between two commits."""
    if phase.adapting is not None:
        return 1  # it learns after every episode
    if phase.name in files.taken_over and phase.kind == "evaluate" and paths:
        return max(1, rows_of(paths[0]))  # the other run's blocks may be of another size
    return files.config.explore.block_tasks


def expected_blocks(
    config: Config, phase: Phase, ids: Sequence[str], size: int, by_sample: bool
) -> list[list[tuple[str, int]]]:
    """The tasks and samples of each block: all samples of some tasks, or one sample of them at a time."""
    samples = range(config.explore.samples if phase.kind == "explore" else 1)
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    if by_sample:
        return [[(task, sample) for task in part] for sample in samples for part in parts]
    return [[(task, sample) for task in part for sample in samples] for part in parts]


def shard_problems(paths: Sequence[Path], name: str) -> Iterator[str]:
    """The shards of a collection are every one of one set."""
    shards: list[Any] = [SHARD.fullmatch(path.name) for path in paths]
    indices, ends = [int(one["index"]) for one in shards], {int(one["count"]) for one in shards}
    total = max(ends, default=0)
    if not paths or len(ends) != 1 or indices != list(range(total)):
        yield f"{name}: found the shards {indices} of {sorted(ends)}, expected every one of one set"


def episode_problems(where: str, episode: Episode) -> Iterator[str]:
    """Reward and ending agree: solved is reward 1, a fault earns nothing, rewards lie in [0, 1]."""
    if episode.ending not in ENDINGS:
        yield f"{where}: ending: found {episode.ending}, expected one of {', '.join(ENDINGS)}"
    if not 0 <= episode.reward <= 1:
        yield f"{where}: reward: found {episode.reward}, expected a number in [0, 1]"
    if (episode.ending == "solved") != (episode.reward >= 1 and episode.ending in ("solved", "failed")):
        found = f"{episode.ending} with reward {episode.reward}"
        yield f"{where}: ending: found {found}, expected solved at reward 1 alone"
    if episode.ending in BROKEN and episode.reward != 0:
        yield f"{where}: reward: found {episode.reward} of a {episode.ending} episode, expected 0"
