"""How unlikely each token of a trajectory was to the agent that wrote it, as the page shades it."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from coevo_jax.data.chat.pieces import Decode, token_texts
from coevo_jax.trajectory import Trajectory

LEVELS = 5  # shades of doubt, 1 - probability; below the first a token has none
LEAST_DOUBT = 0.05


def decoder_of(run_dir: Path) -> Decode | None:
    """What turns a run's tokens into text; None where the folder has no tokenizer, or a broken one."""
    try:
        tokenizer = Tokenizer.from_file(str(run_dir / "tokenizer" / "tokenizer.json"))
    except Exception:  # the library knows no other; the page needs no shades
        return None
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False)


def level(logp: float) -> int:
    """The shade of a token's log-probability in nats: 0 for none, LEVELS for the most unlikely."""
    doubt = 1 - math.exp(min(logp, 0.0))
    return 0 if doubt < LEAST_DOUBT else min(LEVELS, 1 + int(LEVELS * doubt))


def turn_shades(trajectory: Trajectory, decode: Decode) -> list[list[int]] | None:
    """The shades of each turn's response: numbers of characters and their levels in turn.

    None where no log-probability is known, as of experts', or where the tokens do not spell the responses.
    """
    if not trajectory.logps.any():
        return None
    written = _written(trajectory.agent_mask)
    if len(written) != len(trajectory.turns):
        return None
    shades = []
    for (start, stop), turn in zip(written, trajectory.turns, strict=True):
        pieces = token_texts(trajectory.tokens[start:stop].tolist(), decode)
        at = "".join(pieces).find(turn.response)
        if at < 0:
            return None
        levels = [
            step
            for piece, logp in zip(pieces, trajectory.logps[start:stop], strict=True)
            for step in [level(float(logp))] * len(piece)
        ]
        shades.append(_runs(levels[at : at + len(turn.response)]))
    return shades


def _written(mask: np.ndarray) -> list[tuple[int, int]]:
    """Where the stretches of an agent's tokens start and stop."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _runs(levels: Sequence[int]) -> list[int]:
    return [number for step, same in groupby(levels) for number in (len(list(same)), step)]
