"""TextArena's games as an environment: messages as they come, moves in brackets, one reward at the end."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.envs.env import EnvFault, StepResult, Task
from coevo_jax.envs.observed import cut
from coevo_jax.envs.rewards import RewardCount
from coevo_jax.envs.seeds import seed_of, seed_tasks
from coevo_jax.envs.textarena.draws import drawing
from coevo_jax.envs.textarena.games import IN_BRACKETS, brackets_moves, check_games, make_game, moves_of
from coevo_jax.envs.textarena.options import TextArenaOptions
from coevo_jax.trajectory import Demonstration

AGENT = 0  # the agent's seat
INVALID_MOVE = "attempted an invalid move"  # in what a game says of one
LONGEST_MOVE = 1000  # characters; some games' patterns take minutes over 100,000
MOST_OPPONENT_MOVES = 50  # in a row, before the game counts as broken
SYSTEM_PROMPT = "Play the game: one move a turn, in square brackets, as in\nAction: [move]"


def make_textarena(options: TextArenaOptions) -> "TextArenaEnv":
    """Make one instance.

    Raises:
      ConfigError: the package is missing, or a game is unknown or cannot be begun.
    """
    check_games(options.games, options.players)
    return TextArenaEnv(options)


class TextArenaEnv:
    """One game, made anew for every episode: some keep what an earlier one left. Offers `tries`."""

    name = "textarena"
    system_prompt = SYSTEM_PROMPT
    deterministic = True

    def __init__(self, options: TextArenaOptions):
        self._options = options
        self._game: Any = None  # of the running episode
        self._brackets = True
        self._generator, self._opponent = random.Random(), stream("textarena opponent", 0)

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in shuffled order."""
        options = self._options
        counts = (options.train_tasks, options.dev_tasks, options.test_tasks)
        return seed_tasks(options.games, counts, split, options.seed)

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut."""
        return self._options.max_turns

    def reset(self, task: Task) -> str:
        """Start a game with the task's seed; returns its rules and first state."""
        name, seed = task.family, seed_of(task)
        self._game, game = None, make_game(name)
        self._brackets = brackets_moves(name)
        self._generator, self._opponent = random.Random(seed), stream("textarena opponent", seed)
        with drawing(self._generator):
            game.reset(num_players=self._options.players, seed=seed)
        self._game = game
        said, done = self._until_agent()
        if done:
            raise EnvFault(f"{name} with seed {seed} is over before the first move")
        return "\n".join(said) or name

    def step(self, action: str) -> StepResult:
        """Make a move, and let the opponent answer it.

        Raises:
          RuntimeError: no episode has begun, or the last one is over.
        """
        if self._game is None:
            raise RuntimeError("step outside an episode: call reset first")
        if len(action) > LONGEST_MOVE:
            observation = f"Invalid action: expected at most {LONGEST_MOVE} characters."
            return StepResult(observation=observation, done=False, reward=0.0)
        done = self._move(action)
        said: Sequence[str] = ()
        if not done:
            said, done = self._until_agent()
        if not done:
            text = "\n".join(said)
            refused = any(INVALID_MOVE in line for line in said)
            observation = f"Invalid action. {text}" if refused else text
            return StepResult(
                observation=cut(observation, self._options.observation_chars), done=False, reward=0.0
            )
        rewards, info = self._game.close()
        self._game = None
        count = RewardCount("last", self._options.scale)
        count.add((rewards or {}).get(AGENT))
        told = [*said, str((info or {}).get(AGENT, {}).get("reason") or "")]
        observation = cut("\n".join(filter(None, told)), self._options.observation_chars)
        return StepResult(observation=observation, done=True, reward=count.value)

    def reward_at_limit(self) -> float:
        """A game that is cut has no outcome and earns 0."""
        return 0.0

    def expert(self, task: Task) -> Demonstration | None:
        """The games bring no experts."""
        return None

    def tries(self, task: Task, rng: np.random.Generator) -> str:
        """A move that could be meant; of a game whose moves nobody wrote down, one that its rules show."""
        draw = moves_of(task.family)
        if draw is not None:
            return draw(rng)
        scratch = TextArenaEnv(self._options)
        shown = IN_BRACKETS.findall(scratch.reset(task)) or ["[1]"]
        return shown[rng.integers(len(shown))]

    def close(self) -> None:
        """End the episode; safe to call twice."""
        self._game = None

    def _move(self, action: str) -> bool:
        """Make a move of whose turn it is; whether the game is over."""
        text = action if not self._brackets or "[" in action or "]" in action else f"[{action}]"
        with drawing(self._generator):
            done, _ = self._game.step(action=text)
        return bool(done)

    def _until_agent(self) -> tuple[list[str], bool]:
        """What the agent was told until its turn, which opponents' moves come before; whether all is over."""
        said: list[str] = []
        for _ in range(MOST_OPPONENT_MOVES):
            with drawing(self._generator):
                seat, messages = self._game.get_observation()
            if seat == AGENT:
                return said + list(_told(messages)), False
            if self._move(self._answer(messages)):
                with drawing(self._generator):
                    said += _told(self._game.state.observations.get(AGENT, ()))
                return said, True
        raise EnvFault(f"the opponent moved {MOST_OPPONENT_MOVES} times in a row")

    def _answer(self, messages: Iterable[Any]) -> str:
        """The opponent's move, of those that the newest message which shows some does show."""
        moves: Sequence[str] = self._options.opponent_moves
        if not moves:
            shown = [IN_BRACKETS.findall(text) for _, text, _ in messages]
            moves = next((own for own in reversed(shown) if own), ["[0]"])
        return moves[self._opponent.integers(len(moves))]


def _told(messages: Iterable[Any]) -> Iterable[str]:
    """The messages of a game to the agent, without its own moves."""
    for sender, text, kind in messages:
        if sender == AGENT and kind.name == "PLAYER_ACTION":
            continue
        line = str(text).strip()
        if line:
            yield f"[Player {sender}] {line}" if sender > AGENT else line
