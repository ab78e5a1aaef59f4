#!/usr/bin/env bash
# TextArena 0.7.4's default observation of a game goes on, after reset(), behind all that earlier games said.
#
# Behaviour seen: `textarena.make` wraps single-player games so that an observation is the whole game so far. A
# reset with the same seed begins a new game, but not that text: the first observation of the second game begins
# with everything of the first, its prompt, moves and outcome, and each game makes it longer by as much. A game
# that is made anew, or one made as "GuessTheNumber-v0-raw", does not do so.
#
# Why it matters here: a loop over episodes that makes a game once gives an agent prompts that grow without bound,
# and that tell what was hidden in the games before. It also explains why the bare games are slow beside the
# environment textarena in docs/environments.md. That environment plays the raw games and takes what is new of
# each turn (coevo_jax/envs/textarena/games.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet textarena==0.7.4
"$folder/venv/bin/python" - <<'CHECK'
from importlib.metadata import version

import textarena

NAME = "GuessTheNumber-v0"


def first_observation(game):
    game.reset(num_players=1, seed=3)
    _, observation = game.get_observation()
    return observation


def first_observations(games):
    """Of one game after the other, with one move in each."""
    found = []
    for game in games:
        found.append(first_observation(game))
        game.step(action="[5]")
        game.get_observation()
    return found


one = textarena.make(NAME)
kept = first_observations([one] * 4)
anew = first_observations(textarena.make(NAME) for _ in range(4))
print("version                                ", version("textarena"))
print("first observations of one object, chars", [len(text) for text in kept])
print("of objects made anew                   ", [len(text) for text in anew])
print("the second begins with the first       ", kept[1].startswith(kept[0]))
assert len(set(anew)) == 1 and kept[0] == anew[0]
assert all(later.startswith(text) and len(later) > len(text) for text, later in zip(kept, kept[1:]))
CHECK
