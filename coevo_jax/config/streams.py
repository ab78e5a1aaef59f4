"""Named streams of the host's randomness.

NumPy takes `default_rng([1])` and `default_rng([1, 0])` for the same generator, and splits a number above 32
bits into two: seeds of unequal length collide. A stream's seed is a hash of its name and its numbers.
"""

import hashlib
import json

import numpy as np


def stream(name: str, *numbers: int) -> np.random.Generator:
    """The generator of a name and numbers such as a seed and an epoch; another for any other of them."""
    words = json.dumps([name, *map(int, numbers)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest()))
