"""Play stored trajectories of a run again in its environment, and compare: what `launch.replay` does."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError, closest
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs import answers
from coevo_jax.envs.env import SPLITS, Env, EnvFault, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.process import isolated
from coevo_jax.methods.marks import marked
from coevo_jax.phases.world import EXPERTS_FILE, open_env
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.folder import CONFIG_FILE
from coevo_jax.run_folder.manifest import Manifest, read_manifest
from coevo_jax.trajectory import SOLVED_REWARD, UNPLAYED, Ending, Trajectory

KINDS = ("explore", "branch", "evaluate", "expert")
EVALUATIONS = "evaluations"  # what launch.evaluate wrote beside the run's own phases


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which trajectories are meant; what is empty leaves all in."""

    tasks: frozenset[str] = frozenset()
    rounds: frozenset[int] = frozenset()
    agents: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    most: int | None = None  # so many, spread over all that are meant

    def has(self, found: "Stored") -> bool:
        pairs = (
            (self.tasks, found.trajectory.task_id),
            (self.rounds, found.round),
            (self.agents, found.trajectory.agent),
            (self.kinds, found.kind),
        )
        return all(not wanted or value in wanted for wanted, value in pairs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A trajectory of a run, and where it stands."""

    where: str  # phase, or file
    kind: str  # one of KINDS
    round: int | None  # None of an evaluation after the run
    trajectory: Trajectory

    @property
    def name(self) -> str:
        return f"{self.where}, task {self.trajectory.task_id}, sample {self.trajectory.sample}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first thing that was not the same."""

    turn: int | None  # from 1; None is before the first or behind the last one
    what: str
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Replayed:
    """What became of a trajectory that was played again."""

    stored: Stored
    difference: Difference | None = None
    fault: str | None = None  # of the environment, where it broke

    @property
    def same(self) -> bool:
        return self.difference is None and self.fault is None


def play_again(env: Env, task: Task, trajectory: Trajectory, most: int) -> Difference | None:
    """Play a trajectory's actions from its task's start; the first difference, None where all is the same.

    Observations are compared as they are, the reward exactly, and that the episode ends where it ended.
    Turns in which nothing to play was found never reached the environment, and do not now.

    Args:
      most: characters of an answer that are read, as in the run.
    """
    prompt = marked(answers.reset(env, task, most), trajectory.mark)
    if prompt != trajectory.prompt:
        return Difference(turn=None, what="prompt", expected=trajectory.prompt, found=prompt)
    ended = trajectory.ending in (Ending.SOLVED, Ending.FAILED)
    for number, turn in enumerate(trajectory.turns, start=1):
        if not turn.action:
            continue
        answer = answers.step(env, turn.action, most)
        if answer.observation != turn.observation:
            expected, found = turn.observation, answer.observation
            return Difference(turn=number, what="observation", expected=expected, found=found)
        ends = ended and number == len(trajectory.turns)
        if answer.done != ends:
            return Difference(turn=number, what="end", expected=_ends(ends), found=_ends(answer.done))
        if ends:
            return _rewarded(trajectory, answer.reward)
    if ended:
        return Difference(turn=None, what="end", expected=_ends(True), found=_ends(False))
    limit = env.max_turns(task)
    if trajectory.ending is Ending.TURN_LIMIT and not trajectory.branch and limit != len(trajectory.turns):
        found = str(limit)
        return Difference(turn=None, what="most turns", expected=str(len(trajectory.turns)), found=found)
    return _rewarded(trajectory, answers.reward_at_limit(env))


def _ends(done: bool) -> str:
    return "the episode ends" if done else "the episode goes on"


def _rewarded(trajectory: Trajectory, reward: float) -> Difference | None:
    if reward != trajectory.reward:
        return Difference(turn=None, what="reward", expected=repr(trajectory.reward), found=repr(reward))
    said = trajectory.ending is Ending.SOLVED
    if trajectory.ending in (Ending.SOLVED, Ending.FAILED) and said != (reward >= SOLVED_REWARD):
        solved = Ending.SOLVED if reward >= SOLVED_REWARD else Ending.FAILED
        return Difference(turn=None, what="ending", expected=str(trajectory.ending), found=str(solved))
    return None


def stored_trajectories(folder: Path, manifest: Manifest, config: Config) -> Iterator[Stored]:
    """Every episode that the run has committed, and those of evaluations after it.

    Raises:
      ConfigError: a file cannot be read.
    """
    if (folder / EXPERTS_FILE).is_file():
        for trajectory in read_trajectories([folder / EXPERTS_FILE]):
            yield Stored(where="experts", kind="expert", round=0, trajectory=trajectory)
    for phase in schedule(config):
        if phase.kind in KINDS and manifest.record(phase.name) is not None:
            for trajectory in read_collection(folder, manifest, phase, config.model.vocab_size):
                yield Stored(where=phase.name, kind=phase.kind, round=phase.round, trajectory=trajectory)
    for path in sorted((folder / EVALUATIONS).glob("*.parquet")):
        mark = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("mark", "")
        for trajectory in read_trajectories([path]):
            where = f"{EVALUATIONS}/{path.name}"
            yield Stored(where=where, kind="evaluate", round=None, trajectory=replace(trajectory, mark=mark))


def chosen(found: Sequence[Stored], choice: Choice, folder: Path) -> list[Stored]:
    """Those that are meant and were played to an end; spread evenly where there are more than `most`.

    Raises:
      ConfigError: there is none, or none of a task that is named; it says what there is.
    """
    tasks = sorted({one.trajectory.task_id for one in found})
    for task in sorted(choice.tasks - set(tasks)):
        raise ConfigError(f"{folder}: holds no trajectory of task {task!r}{closest(task, tasks)}")
    meant = [one for one in found if choice.has(one)]
    played = [one for one in meant if one.trajectory.ending not in UNPLAYED]
    if not played:
        raise ConfigError(f"{folder}: {_why_none(found, meant)}")
    if choice.most is None or len(played) <= choice.most:
        return played
    return [played[place * len(played) // choice.most] for place in range(choice.most)]


def _why_none(found: Sequence[Stored], meant: Sequence[Stored]) -> str:
    if meant:
        return f"of the {len(meant)} trajectories that are meant, none was played to an end"
    rounds = sorted({one.round for one in found if one.round is not None})
    agents, kinds = ({one.trajectory.agent for one in found}, {one.kind for one in found})
    held = f"rounds {rounds}, agents {', '.join(sorted(agents))} and kinds {', '.join(sorted(kinds))}"
    return f"holds no such trajectory; there are {held}" if found else "holds no trajectory yet"


@dataclass(frozen=True, kw_only=True)
class Replaying:
    """What is played again, and in what."""

    episodes: list[Stored]
    stored: int  # trajectories that the run holds
    environment: str
    deterministic: bool  # as the environment says of itself
    make: Callable[[], Env]
    tasks: dict[str, Task]
    config: Config
    processes: bool


def open_replay(folder: Path, choice: Choice, *, processes: bool | None = None) -> Replaying:
    """Find what is to be played again; nothing of the run is changed, then or later.

    Args:
      processes: whether each environment gets a process of its own; None does as the run did.

    Raises:
      ConfigError: not a run, an environment that cannot be made, or no such trajectory.
    """
    manifest = read_manifest(folder)
    config = load_resolved(folder / CONFIG_FILE)
    found = list(stored_trajectories(folder, manifest, config))
    episodes = chosen(found, choice, folder)
    make = open_env(config)
    env = make()
    try:
        tasks = {task.id: task for split in SPLITS for task in env.tasks(split)}
        name, deterministic = env.name, env.deterministic
    finally:
        env.close()
    return Replaying(
        episodes=episodes,
        stored=len(found),
        environment=name,
        deterministic=deterministic,
        make=make,
        tasks=tasks,
        config=config,
        processes=config.env.processes if processes is None else processes,
    )


def replay_all(replaying: Replaying) -> Iterator[Replayed]:
    """Play every episode again, as many side by side as the run had workers; in order of the episodes."""
    env = replaying.config.env
    make = isolated(replaying.make, env.process_memory_mib) if replaying.processes else replaying.make
    waiting = list(enumerate(replaying.episodes))[::-1]
    under_way: dict[int, int] = {}  # slot -> place of its episode
    done: dict[int, Replayed] = {}
    told = 0
    with EnvPool(make, workers=env.workers, step_timeout=env.step_timeout) as pool:
        while told < len(replaying.episodes):
            for slot in range(env.workers):
                if slot not in under_way and waiting:
                    place, stored = waiting.pop()
                    _submit(pool, slot, replaying, stored)
                    under_way[slot] = place
            for slot, outcome in pool.ready(list(under_way), wait=True).items():
                place = under_way.pop(slot)
                done[place] = _replayed(replaying.episodes[place], outcome)
            while told in done:
                yield done.pop(told)
                told += 1


def _submit(pool: EnvPool, slot: int, replaying: Replaying, stored: Stored) -> None:
    trajectory = stored.trajectory
    task = replaying.tasks.get(trajectory.task_id)
    if task is None:
        gone = Difference(turn=None, what="task", expected=trajectory.task_id, found="no task of this id")
        pool.submit(slot, lambda env: gone)
        return
    most = answers.most_characters(replaying.config.rollout.max_tokens)
    pool.submit(slot, lambda env: play_again(env, task, trajectory, most), steps=2 + len(trajectory.turns))


def _replayed(stored: Stored, outcome: Difference | EnvFault | None) -> Replayed:
    if isinstance(outcome, EnvFault):
        return Replayed(stored=stored, fault=str(outcome))
    return Replayed(stored=stored, difference=outcome)
