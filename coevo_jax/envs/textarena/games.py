"""TextArena's games: whether they can be played here, and how their moves look."""

import contextlib
import importlib
import importlib.metadata
import io
import random
import re
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.envs.textarena.draws import drawing, take_over

PACKAGE, VERSION = "textarena", "0.7.4"
RAW = "-raw"  # behind a name: without the wrappers, which repeat the whole game at every turn
IN_BRACKETS = re.compile(r"\[[^\[\]\n]{1,40}\]")
_MAKING = threading.Lock()  # importing a game's module, and giving it its draws


@lru_cache(maxsize=8)
def check_games(games: Sequence[str], players: int) -> None:
    """Check that all games can be made and begun here; done once per process.

    Raises:
      ConfigError: the package is missing, there is no such game, or it cannot be begun.
    """
    try:
        found = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"env textarena: package {PACKAGE}: found none, expected {VERSION}; install it with: "
            f"pip install {PACKAGE}=={VERSION}"
        ) from None
    registry = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
    names = [name for name in registry if not name.endswith((RAW, "-train"))]
    for game in games:
        if game not in names:
            raise ConfigError(
                f"env.options.games: textarena {found} has no game {game!r}{nearest(game, names)}"
            )
        try:
            made = make_game(game)
            with drawing(random.Random(0)), contextlib.redirect_stdout(io.StringIO()):
                made.reset(num_players=players, seed=0)
                made.get_observation()
        except Exception as error:
            raise ConfigError(
                f"env.options.games: {game} of textarena {found} cannot be begun with {players} "
                f"{'player' if players == 1 else 'players'} here: {type(error).__name__}: {error!s:.200}"
            ) from None


def make_game(game: str) -> Any:
    """A game without its wrappers, which draws from the generator of who plays it."""
    textarena = importlib.import_module(PACKAGE)
    with _MAKING, drawing(random.Random(0)), contextlib.redirect_stdout(io.StringIO()):
        made = textarena.make(f"{game}{RAW}")
        take_over()
    return made


def brackets_moves(game: str) -> bool:
    """Whether the game's own wrappers put a move without brackets into some."""
    registry = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
    wrappers = registry[game].default_wrappers or ()
    return any(wrapper.__name__ == "ActionFormattingWrapper" for wrapper in wrappers)


def _words(*words: str) -> Callable[[np.random.Generator], str]:
    return lambda rng: f"[{words[rng.integers(len(words))]}]"


def _numbers(*bounds: tuple[int, int]) -> Callable[[np.random.Generator], str]:
    """Numbers between bounds, both included."""
    return lambda rng: f"[{' '.join(str(rng.integers(low, high + 1)) for low, high in bounds)}]"


def _distinct(count: int, low: int, high: int) -> Callable[[np.random.Generator], str]:
    return lambda rng: f"[{' '.join(map(str, rng.choice(np.arange(low, high + 1), count, replace=False)))}]"


_WAYS = _words("up", "down", "left", "right")
_PEGS = _words(*(f"{one} {other}" for one in "ABC" for other in "ABC" if one != other))
MOVES: dict[str, Callable[[np.random.Generator], str]] = {
    "2048": _WAYS,
    "Bandit": _words("red", "blue", "green", "yellow", "purple"),
    "Blackjack": _words("Hit", "Stand"),
    "ConnectFour": _numbers((0, 6)),
    "FifteenPuzzle": _WAYS,
    "FrozenLake": _WAYS,
    "GuessTheNumber": _numbers((1, 20)),
    "GuessTheNumber-v0-hardcore": _numbers((1, 50)),
    "LightsOut": _numbers((0, 4), (0, 4)),
    "Mastermind": _distinct(4, 1, 6),
    "Mastermind-v0-hard": _distinct(4, 1, 8),
    "Minesweeper": _numbers((0, 7), (0, 7)),
    "Minesweeper-v0-small": _numbers((0, 4), (0, 4)),
    "Nim": _numbers((0, 2), (1, 3)),
    "PegJump": _numbers((1, 15), (1, 15)),
    "Secretary": _words("accept", "continue"),
    "Sokoban": _WAYS,
    "ThreeCardMonte": _numbers((0, 2)),
    "TicTacToe": _numbers((0, 8)),
    "TowerOfHanoi": _PEGS,
}
"""Moves that could be meant, by a game's name or its family's; of others, what their first message shows."""


def moves_of(game: str) -> Callable[[np.random.Generator], str] | None:
    """What draws a move of a game; None where nobody wrote it down."""
    return MOVES.get(game) or MOVES.get(game.partition("-v")[0])
