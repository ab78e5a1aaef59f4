#!/usr/bin/env bash
# TextArena 0.7.4's games draw from Python's one global generator, which reset(seed) seeds for all of them.
#
# Behaviour seen: a game of 2048 with seed 7 and twelve fixed moves ends on the same board every time it is played
# alone. Played in turns with a second game of its own object and another seed, the same seed and moves end on
# another board, and nothing is said: each game's new tiles come out of the other's draws.
#
# Why it matters here: roll-outs hold many games side by side, and a preference pair compares two playings of one
# seed. The environment textarena gives every instance a generator of its own (coevo_jax/envs/textarena/draws.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet textarena==0.7.4
"$folder/venv/bin/python" - <<'CHECK'
from importlib.metadata import version

import textarena

MOVES = ["[left]", "[up]", "[right]", "[down]"] * 3


def begun(seed):
    game = textarena.make("2048-v0-raw")
    game.reset(num_players=1, seed=seed)
    return game


def board(game):
    return game.state.game_state["board"]


def alone():
    game = begun(7)
    for move in MOVES:
        game.step(action=move)
    return board(game)


def beside_another():
    game = begun(7)
    other = begun(8)
    for move in MOVES:
        game.step(action=move)
        other.step(action=move)
    return board(game)


first, again, beside = alone(), alone(), beside_another()
print("version                      ", version("textarena"))
print("seed 7 alone, twice the same ", first == again)
print("seed 7 alone                 ", first)
print("seed 7 beside seed 8         ", beside)
assert first == again
assert first != beside
CHECK
