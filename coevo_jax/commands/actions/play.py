"""Show an episode in the terminal while it is played."""

import argparse
import math

from rich.text import Text

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.data.chat.pieces import token_texts
from coevo_jax.progress import CONSOLE
from coevo_jax.rollout.lane import Episode
from coevo_jax.stored.play import play_stored

LABEL = 13  # columns of what stands before a text


def play(args: argparse.Namespace) -> None:
    """Play one episode as the command line asks, and show it."""
    shown = 0

    def watch(episode: Episode, chat: ChatFormat) -> None:
        nonlocal shown
        shown = len(episode.turns)
        if not shown:
            _say(f"task {episode.task.id}", episode.prompt)
            return
        _show_turn(shown, episode, chat)
        if episode.turns[-1].observation:
            _say("observation", episode.turns[-1].observation)

    trajectory = play_stored(
        args.run,
        agent=args.agent,
        split=args.split,
        task=args.task,
        temperature=args.temperature,
        seed=args.seed,
        mark=args.mark,
        watch=watch,
    )
    for turn in trajectory.turns[shown:]:  # cut off before the environment saw it
        _say("unanswered", turn.response)
    _say("reward", f"{trajectory.reward:.3f}, {trajectory.ending.value.replace('_', ' ')}")


def _show_turn(number: int, episode: Episode, chat: ChatFormat) -> None:
    """What the agent wrote in its last turn, every token in the colour of its probability."""
    start = episode.turn_start
    pieces = token_texts(episode.tokens[start:], chat.decode_response)
    text = Text()
    for piece, logp in zip(pieces, episode.logps[start:], strict=True):
        text.append(piece, style=shade(logp))
    CONSOLE.print(Text(f"turn {number}".ljust(LABEL), style="bold"), text, soft_wrap=True)


def shade(logp: float) -> str:
    """A background from none (probability 1) to red (0)."""
    doubt = 1 - math.exp(min(logp, 0.0))
    return "" if doubt < 0.05 else f"on rgb({80 + round(120 * doubt)},40,40)"


def _say(label: str, words: str) -> None:
    head = Text(label.ljust(LABEL) if len(label) < LABEL else f"{label}\n", style="bold")
    CONSOLE.print(head, Text(words), soft_wrap=True)
