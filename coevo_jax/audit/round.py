"""What was played in a round, for rules that look at it."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.order import Phase, expected_phases
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.rendering import Rendering, open_rendering
from coevo_jax.audit.sides import Side
from coevo_jax.audit.whose import tasks_in
from coevo_jax.config.judge import JudgeOptions
from coevo_jax.config.recipe import AskOptions, BranchOptions, ImitationSource, PairSource

COLUMNS = ("tokens", "agent_mask", "prompt", "turns")


class Round:
    """What was played in a phase's round, and the experts; each file is read once."""

    def __init__(self, files: RunFiles, number: int, phase: str) -> None:
        self._files, self.number = files, number
        self.phase, self.seed = phase, files.config.seed  # of the names of draws
        self._played: dict[str, list[Side]] = {}
        phases = [phase for phase in expected_phases(files.config) if phase.kind == "explore"]
        self._marks = {phase.collection: phase.mark for phase in phases}

    @cached_property
    def rendering(self) -> Rendering:
        """What a prompt's tokens are; the system prompt is the environment's."""
        return open_rendering(self._files.folder / "tokenizer", tasks_in(self._files).opened_prompt())

    @cached_property
    def experts(self) -> list[Side]:
        path = self._files.folder / "trajectories/experts.parquet"
        episodes: Iterator[Episode] = read_episodes(path, COLUMNS)
        return [Side(source="expert", episode=e, length=len(e.tokens)) for e in episodes]

    @cached_property
    def expert_of(self) -> dict[str, Side]:
        """The expert of each task, if it wrote anything."""
        return {side.episode.task_id: side for side in self.experts if len(side.episode.run_ends)}

    @cached_property
    def expert_by_task(self) -> dict[str, Episode]:
        """Every task's expert, whatever it wrote."""
        return {side.episode.task_id: side.episode for side in self.experts}

    @cached_property
    def is_error(self) -> Callable[[str], bool]:
        """What tells an error of the run's environment."""
        return tasks_in(self._files).told_errors()

    @cached_property
    def offered(self) -> Callable[[str], Sequence[str]]:
        """What reads the actions that an answer of the run's environment lists."""
        return tasks_in(self._files).read_offers()

    def played(
        self, source: PairSource | ImitationSource | BranchOptions | AskOptions | JudgeOptions
    ) -> list[list[Side]]:
        """The collections that a source names, in its order."""
        return [self._collection(name) for name in source.of]

    def _collection(self, name: str) -> list[Side]:
        if name not in self._played:
            paths = self._files.collection(self.number, name)
            if not paths:
                raise NotCheckable(f"no committed shards of {name} in round {self.number}")
            episodes = (e for path in paths for e in read_episodes(path, COLUMNS))
            mark = self._marks.get(name, "")
            self._played[name] = [
                Side(source=name, episode=e, length=len(e.tokens), mark=mark) for e in episodes
            ]
        return self._played[name]


@lru_cache(maxsize=1)
def round_of(files: RunFiles, phase: Phase) -> Round:
    """What was played in a phase's round."""
    return Round(files, phase.round, phase.name)
