"""TextWorld as an environment: text games made here, or a folder of them, played in a process of their own.

TextWorld: arXiv 1806.11532. The reward is the score over the most the game gives: points are earned for good,
so an episode that is cut keeps those it has; a lost game earns 0.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coevo_jax.envs.env import SPLITS, StepResult, Task, format_response
from coevo_jax.envs.textworld.games import (
    INDEX,
    GameRecord,
    cache_folder,
    planned_tasks,
    read_index,
    read_record,
)
from coevo_jax.envs.textworld.generate import make_game, make_games
from coevo_jax.envs.textworld.interpreter import Interpreter, check_package
from coevo_jax.envs.textworld.options import TextWorldOptions
from coevo_jax.envs.textworld.session import Session
from coevo_jax.envs.textworld.text import clean, commands_in, not_done, with_commands
from coevo_jax.trajectory import Demonstration, Turn

SYSTEM_PROMPT = """\
Play the text game to its goal, one command a turn, as in
Action: go north
Commands: look, goal, inventory, go X, examine X, open X, close X, unlock X with Y, lock X with Y, take X, \
take X from Y, drop X, put X on Y, insert X into Y, eat X, drink X, cook X with Y, slice X with Y, \
chop X with Y, dice X with Y, prepare meal."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where games lie, and which tasks they make."""

    folder: Path
    splits: Mapping[str, tuple[Task, ...]]
    records: Mapping[str, GameRecord]  # by task id: of a folder with an index; empty where games are made


def make_textworld(options: TextWorldOptions) -> "TextWorldEnv":
    """Make one environment instance; its game process starts at the first `reset`.

    Raises:
      ConfigError: the package `textworld` is missing, or the folder of games is broken.
    """
    check_package()
    if options.games_path is None:
        shelf = Shelf(folder=cache_folder(options), splits=planned_tasks(options), records={})
    else:
        index = Path(options.games_path) / INDEX
        modified = index.stat().st_mtime_ns if index.is_file() else 0
        shelf = _read_once(options.games_path, modified)
    return TextWorldEnv(options, shelf)


@functools.lru_cache(maxsize=4)
def _read_once(folder: str, _modified: int) -> Shelf:
    records = read_index(Path(folder))
    splits = {split: tuple(one.task for one in records if one.split == split) for split in SPLITS}
    return Shelf(folder=Path(folder), splits=splits, records={record.id: record for record in records})


class TextWorldEnv:
    """One game process and the episode it plays. Also offers `prepare_experts` (`PreparesExperts`)."""

    name = "textworld"
    system_prompt = SYSTEM_PROMPT
    deterministic = True

    def __init__(self, options: TextWorldOptions, shelf: Shelf):
        self._options, self._shelf = options, shelf
        self._session = Session()
        self._reward = 0.0

    @property
    def interpreter_pid(self) -> int | None:
        """Process id of the game process, None before the first `reset`."""
        return self._session.pid

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in a fixed, already shuffled order; no game is made for it."""
        return self._shelf.splits[split]

    def max_turns(self, task: Task) -> int:
        """Twice the turns of the solution and 5 more, at most the option `max_turns`."""
        return min(self._options.max_turns, 2 * len(self._record(task).turns) + 5)

    def reset(self, task: Task) -> str:
        """Start the task's game, made first where it was not yet; returns its goal and the first room."""
        record = self._record(task)
        self._reward = 0.0
        position = self._session.start(self._shelf.folder / f"{record.file}.z8")
        return self._shown(position["observation"], position["commands"], first=True)

    def step(self, action: str) -> StepResult:
        """Play one command. The game ends won, or lost with reward 0."""
        position = self._session.play(action)
        if isinstance(position, str):
            return StepResult(observation=position, done=False, reward=self._reward)
        done = position["won"] or position["lost"]
        share = 0.0 if position["lost"] else position["score"] / position["max_score"]
        self._reward = min(1.0, max(0.0, share))
        observation = self._shown(position["observation"], [] if done else position["commands"])
        return StepResult(observation=observation, done=done, reward=self._reward)

    def is_error(self, observation: str) -> bool:
        """The game says why a command that it understood could not be done."""
        return not_done(observation)

    def offered(self, observation: str) -> Sequence[str]:
        """The commands that an answer lists, where the option `show_commands` lets it."""
        return commands_in(observation)

    def reward_at_limit(self) -> float:
        """Share of the points so far: a game never takes them back but by being lost."""
        return self._reward

    def expert(self, task: Task) -> Demonstration | None:
        """The recorded walkthrough, its game made first at need; None where it is longer than `max_turns`."""
        record = self._record(task)
        if len(record.turns) > self._options.max_turns:
            return None
        turns = []
        for number, turn in enumerate(record.turns, start=1):
            commands = () if number == len(record.turns) else turn.commands
            turns.append(
                Turn(
                    response=format_response("", turn.action),
                    action=turn.action,
                    observation=self._shown(turn.observation, commands),
                )
            )
        prompt = self._shown(record.prompt, record.commands, first=True)
        return Demonstration(task_id=task.id, prompt=prompt, turns=tuple(turns), reward=1.0)

    def prepare_experts(self, tasks: Sequence[Task], on_progress: Callable[[int, int], None]) -> None:
        """Make the games that are missing, in `workers` processes; about a second each."""
        if self._options.games_path is None:
            make_games(self._options, tasks, self._shelf.folder, on_progress)

    def close(self) -> None:
        """End the game process, even one that hangs; safe to call twice."""
        self._session.close()

    def _shown(self, feedback: str, commands: Sequence[str], first: bool = False) -> str:
        text, options = clean(feedback), self._options
        chars = len(text) if first else options.observation_chars
        return with_commands(text, commands, chars, options.show_commands)

    def _record(self, task: Task) -> GameRecord:
        if self._options.games_path is not None:
            return self._shelf.records[task.id]
        folder = self._shelf.folder
        known = _records(str(folder)).get(task.id) or read_record(folder, task)
        if known is None:
            maker = Interpreter()
            try:
                known = make_game(maker, self._options, task, folder)
            finally:
                maker.close()
        return _records(str(folder)).setdefault(task.id, known)


@functools.lru_cache(maxsize=4)
def _records(_folder: str) -> dict[str, GameRecord]:
    """Records read so far, by task id, shared by all instances over one folder."""
    return {}
