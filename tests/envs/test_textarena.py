"""TextArena's games: as they come, beside each other, against an opponent, and by every check.

Most of it needs the package (requirements-textarena.txt); `./launch/test.sh --real` installs it.
"""

import importlib.util
import random
import threading

import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance import run_checks
from coevo_jax.envs.registry import make_env
from coevo_jax.envs.textarena import draws
from coevo_jax.envs.textarena.games import MOVES, check_games, moves_of

INSTALLED = importlib.util.find_spec("textarena") is not None
needs_package = pytest.mark.skipif(not INSTALLED, reason="needs the package textarena")
GAMES = (
    *("GuessTheNumber-v0", "Mastermind-v0", "TowerOfHanoi-v0", "FrozenLake-v0", "LightsOut-v0"),
    *("Minesweeper-v0-small", "Blackjack-v0", "2048-v0-easy", "Bandit-v0", "Secretary-v0"),
)


def made(*games, **options):
    return make_env("textarena", {"games": list(games), **options})()


def test_each_thread_draws_from_the_generator_of_its_own_game():
    stand_in, seen = draws._Draws(), {}

    def play(seed):
        with draws.drawing(random.Random(seed)):
            stand_in.seed(seed)
            seen[seed] = [stand_in.randint(0, 10**6) for _ in range(50)]

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, drawn in seen.items():
        own = random.Random(seed)
        assert drawn == [own.randint(0, 10**6) for _ in range(50)]
    random.seed(5)
    outside = stand_in.random()
    random.seed(5)
    assert outside == random.random()  # who plays no game draws from the module
    assert stand_in.Random is random.Random


def test_moves_that_could_be_meant():
    rng = np.random.default_rng([0])
    for name, move in MOVES.items():
        assert move(rng).startswith("[") and moves_of(name) is move
    guess = moves_of("GuessTheNumber-v0")
    assert guess is not None and {guess(rng) for _ in range(400)} == {f"[{n}]" for n in range(1, 21)}
    code = moves_of("Mastermind-v0")
    assert code is not None and all(len(set(code(rng)[1:-1].split())) == 4 for _ in range(50))
    assert moves_of("Sudoku-v0") is None


@pytest.mark.skipif(INSTALLED, reason="the package is there")
def test_without_the_package_one_message_says_how_to_get_it():
    with pytest.raises(
        ConfigError, match=r"package textarena: found none, .* pip install textarena==0\.7\.4"
    ):
        made("GuessTheNumber-v0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": ["a", "a"]}, "every game once"),
        ({"opponent_moves": ["[1]"]}, "no opponent_moves beside players 1"),
        ({"reward_range": [1.0, 0.0]}, "low < high"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        make_env("textarena", options)


@needs_package
def test_a_game_by_its_seed():
    env = made("GuessTheNumber-v0")
    task = env.tasks("train")[0]
    prompt = env.reset(task)
    assert "between 1 and 20" in prompt and "Action:" not in prompt
    seen = {}
    for guess in range(1, 21):
        env.reset(task)
        seen[guess] = env.step(f"[{guess}]")
    [number] = [guess for guess, result in seen.items() if result.done]
    assert seen[number].reward == 1.0 and "Congratulations" in seen[number].observation
    assert seen[1 if number > 1 else 2].observation.startswith("The target number is")
    env.reset(task)
    refused = env.step("no number")
    assert refused.observation.startswith("Invalid action. ") and not refused.done
    lost = env.step("[99]")  # a second one in a row ends the game
    assert lost.done and lost.reward == 0.0
    env.reset(task)
    assert env.step("[" * 100_000).observation == "Invalid action: expected at most 1000 characters."
    assert env.step(str(number)).reward == 1.0  # brackets are put around it, as the game's wrapper does


@needs_package
def test_an_opponent_plays_by_the_tasks_seed():
    env, again = made("TicTacToe-v0", players=2), made("TicTacToe-v0", players=2)
    task = env.tasks("train")[0]
    assert env.reset(task) == again.reset(task)
    for move in ("[4]", "[0]", "[2]"):
        one, other = env.step(move), again.step(move)
        assert one == other
        if one.done:
            break
        assert "[Player 1] [" in one.observation or one.observation.startswith("Invalid action")
    fixed = made("TicTacToe-v0", players=2, opponent_moves=["[8]"])
    fixed.reset(task)
    assert "[Player 1] [8]" in fixed.step("[4]").observation
    ended = fixed.step("[0]")  # its only move is taken now: it loses by it
    assert ended.done and ended.reward == 1.0


@needs_package
def test_an_unknown_game_and_one_that_cannot_begin_are_one_message():
    with pytest.raises(ConfigError, match=r"has no game 'Mastermind-v1'.*did you mean 'Mastermind-v0"):
        made("Mastermind-v1")
    with pytest.raises(ConfigError, match=r"TicTacToe-v0 of textarena .* cannot be begun with 1 player here"):
        made("TicTacToe-v0")
    check_games.cache_clear()


@needs_package
@pytest.mark.parametrize("game", GAMES)
def test_ten_games_pass_every_check(game):
    results = run_checks(make_env("textarena", {"games": [game]}), tasks_per_split=1, call_timeout=60)
    assert not {one.name: one.message for one in results if one.status == "failed"}


@needs_package
@pytest.mark.parametrize("game", ["TicTacToe-v0", "ConnectFour-v0"])
def test_two_player_games_pass_every_check(game):
    options = {"games": [game], "players": 2}
    results = run_checks(make_env("textarena", options), tasks_per_split=1, call_timeout=60)
    assert not {one.name: one.message for one in results if one.status == "failed"}
