"""Options of TextArena's games."""

from typing import Literal, Self

from pydantic import Field, model_validator

from coevo_jax.config.strict import StrictModel


class TextArenaOptions(StrictModel):
    """Which games are played, and the limits of an episode."""

    games: tuple[str, ...] = Field(("GuessTheNumber-v0",), min_length=1)
    """Games by their names in TextArena's registry, such as Mastermind-v0; a task is a game and a seed."""
    players: Literal[1, 2] = 1
    """Players of a game. With 2 the agent is the first, against an opponent that draws, by the task's seed,
    from the moves in brackets that the game shows it."""
    opponent_moves: tuple[str, ...] = ()
    """Moves that the opponent draws from instead; for games that show it none."""
    reward_range: tuple[float, float] | None = None
    """The rewards that count as 0 and 1; null is [0, 1] for one player and [-1, 1] (lost, won) for two."""
    train_tasks: int = Field(400, ge=1)
    """Tasks of the train split, dealt out to the games in turn."""
    dev_tasks: int = Field(40, ge=0)
    """Tasks of the dev split: seeds that train has not."""
    test_tasks: int = Field(60, ge=0)
    """Tasks of the test split: seeds that train and dev have not."""
    seed: int = Field(0, ge=0)
    """Seed of the tasks' order."""
    max_turns: int = Field(30, ge=1)
    """Turns after which an episode is cut with reward 0; most games end before."""
    observation_chars: int = Field(1500, ge=50)
    """Characters that an observation is cut to; the first one, which has the rules, is never cut."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.games)) < len(self.games):
            raise ValueError("every game once")
        if self.reward_range is not None and not self.reward_range[0] < self.reward_range[1]:
            raise ValueError("reward_range as [low, high] with low < high")
        if self.opponent_moves and self.players == 1:
            raise ValueError("no opponent_moves beside players 1 (they would do nothing)")
        return self

    @property
    def scale(self) -> tuple[float, float]:
        """The rewards that count as 0 and 1."""
        return self.reward_range or ((0.0, 1.0) if self.players == 1 else (-1.0, 1.0))
