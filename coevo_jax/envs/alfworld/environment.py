"""ALFWorld as an environment: the household tasks of its text games, run by TextWorld's planning engine.

ALFWorld: arXiv 2010.03768. The reward is 1 for a solved task and 0 otherwise, also at the limit: nothing less
than the goal counts. The games are a download of the user's; see `games`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from coevo_jax.config.streams import stream
from coevo_jax.envs.alfworld.experts import ExpertRow, default_experts_path, prepare, read_experts
from coevo_jax.envs.alfworld.games import Game, check_planner, data_folder, read_games
from coevo_jax.envs.alfworld.options import AlfWorldOptions
from coevo_jax.envs.env import SPLITS, StepResult, Task, format_response
from coevo_jax.envs.textworld.interpreter import check_package
from coevo_jax.envs.textworld.session import Session
from coevo_jax.envs.textworld.text import clean, commands_in, with_commands
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Turn

SYSTEM_PROMPT = """\
Solve the household task, one action a turn, as in
Action: go to desk 1
Actions: look, inventory, go to X, open X, close X, take X from Y, move X to Y, examine X, use X, \
heat X with Y, cool X with Y, clean X with Y, slice X with Y, help.
An action that cannot be done changes nothing."""

NOTHING = "Nothing happens."
GREETING = "-= Welcome to TextWorld, ALFRED! =-"


def make_alfworld(options: AlfWorldOptions) -> "AlfWorldEnv":
    """Make one environment instance; its game process starts at the first `reset`.

    Raises:
      ConfigError: a package or the folder of games is missing.
    """
    folder = data_folder(options.data_path)
    check_package()
    check_planner()
    return AlfWorldEnv(options, folder, read_games(folder))


class AlfWorldEnv:
    """One game process and the episode it plays. Also offers `prepare_experts` (`PreparesExperts`)."""

    name = "alfworld"
    system_prompt = SYSTEM_PROMPT
    deterministic = True

    def __init__(self, options: AlfWorldOptions, folder: Path, games: Mapping[str, Game]):
        self._options, self._games = options, games
        self._path = Path(options.experts_path) if options.experts_path else default_experts_path(folder)
        self._session = Session()

    @property
    def interpreter_pid(self) -> int | None:
        """Process id of the game process, None before the first `reset`."""
        return self._session.pid

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in shuffled order."""
        options, place = self._options, SPLITS.index(split)
        limit = (options.train_tasks, options.dev_tasks, options.test_tasks)[place]
        tasks = [
            game.task
            for game in self._games.values()
            if game.task.split == split and game.task.family in options.families
        ]
        order = stream("alfworld order", options.seed, place).permutation(len(tasks))
        return [tasks[index] for index in order[:limit]]

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut."""
        return self._options.max_turns

    def reset(self, task: Task) -> str:
        """Start the task's game; returns the room and the task in words. Planning takes a second or more."""
        position = self._session.start(self._games[task.id].path)
        return self._shown(position["observation"], position["commands"], first=True)

    def step(self, action: str) -> StepResult:
        """Play one action; one that cannot be done now is answered by "Nothing happens."."""
        position = self._session.play(action.lower())
        if isinstance(position, str):
            return StepResult(observation=position, done=False, reward=0.0)
        done = position["won"]
        observation = self._shown(position["observation"], [] if done else position["commands"])
        if observation.startswith(NOTHING) and action.split()[0].lower() not in position["verbs"]:
            observation = f"Invalid action. {observation}"
        return StepResult(observation=observation, done=done, reward=SOLVED_REWARD if done else 0.0)

    def is_error(self, observation: str) -> bool:
        """Nothing happens where an action cannot be done."""
        return observation.startswith(NOTHING)

    def offered(self, observation: str) -> Sequence[str]:
        """The commands that an answer lists, where the option `show_commands` lets it."""
        return commands_in(observation)

    def reward_at_limit(self) -> float:
        """An episode that is cut has not reached its goal and earns 0."""
        return 0.0

    def expert(self, task: Task) -> Demonstration | None:
        """Expert from the stored file; None where `prepare_experts` has not run or found no solution."""
        row = read_experts(self._path).get(task.id)
        if row is None or not row.turns or row.digest != self._games[task.id].digest:
            return None
        if len(row.turns) > self._options.max_turns:
            return None
        return self._demonstration(row)

    def prepare_experts(self, tasks: Sequence[Task], on_progress: Callable[[int, int], None]) -> None:
        """Find and store the experts the file lacks: the game's own walkthrough, or else the planner's."""
        games = [self._games[task.id] for task in dict.fromkeys(tasks)]
        prepare(games, self._path, self._options.workers, on_progress)

    def close(self) -> None:
        """End the game process, even one that hangs; safe to call twice."""
        self._session.close()

    def _demonstration(self, row: ExpertRow) -> Demonstration:
        turns = []
        for number, turn in enumerate(row.turns, start=1):
            commands = () if number == len(row.turns) else turn.commands
            turns.append(
                Turn(
                    response=format_response("", turn.action),
                    action=turn.action,
                    observation=self._shown(turn.observation, commands),
                )
            )
        prompt = self._shown(row.prompt, row.commands, first=True)
        return Demonstration(task_id=row.task_id, prompt=prompt, turns=tuple(turns), reward=SOLVED_REWARD)

    def _shown(self, feedback: str, commands: Sequence[str], first: bool = False) -> str:
        text, options = clean(feedback).removeprefix(GREETING).strip(), self._options
        chars = len(text) if first else options.observation_chars
        return with_commands(text, commands, chars, options.show_commands)
