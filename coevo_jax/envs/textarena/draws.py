"""The randomness of TextArena's games, of each instance its own.

The games draw from Python's global generator, which `reset` seeds: two that play side by side would draw from
each other's. Their modules get a stand-in for `random` that draws from the generator of who is playing.
"""

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PLAYING = threading.local()


class _Draws:
    """The module `random`, whose functions draw from the generator of the game that this thread plays."""

    def __getattr__(self, name: str) -> Any:
        own = getattr(_PLAYING, "generator", None)
        return getattr(own if own is not None and hasattr(own, name) else random, name)


_DRAWS = _Draws()


@contextmanager
def drawing(generator: random.Random) -> Iterator[None]:
    """Let TextArena's games draw from a generator, in this thread."""
    before, _PLAYING.generator = getattr(_PLAYING, "generator", None), generator
    try:
        yield
    finally:
        _PLAYING.generator = before


def take_over() -> None:
    """Give the stand-in to all of TextArena's modules that are imported by now."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "textarena" and getattr(module, "random", None) is random:
            module.random = _DRAWS  # pyright: ignore[reportAttributeAccessIssue]
