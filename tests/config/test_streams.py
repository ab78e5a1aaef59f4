"""Streams of randomness: one for each name and numbers, and no generator that is made otherwise."""

import ast
from itertools import product
from pathlib import Path

import numpy as np

from coevo_jax.config.streams import stream

PACKAGE = Path(__file__).resolve().parent.parent.parent / "coevo_jax"


def test_numpys_own_seeds_collide_where_streams_do_not():
    same = [np.random.default_rng(seed).integers(2**62) for seed in ([7], [7, 0])]
    assert same[0] == same[1]
    assert stream("a", 7).integers(2**62) != stream("a", 7, 0).integers(2**62)


def test_no_two_streams_coincide():
    values = (0, 1, 2, 10, 2**32, 2**32 + 1, 2**64, 10**30)
    numbers = [(), *product(values), *product(values, values), *product(values[:4], values[:4], values[:4])]
    names = ("steps", "epoch", "steps ", "step", "")
    drawn = {(name, *own): stream(name, *own).integers(2**62) for name in names for own in numbers}
    assert len(set(drawn.values())) == len(drawn)


def test_a_stream_begins_again_the_same():
    assert (stream("epoch", 3, 1).permutation(9) == stream("epoch", 3, 1).permutation(9)).all()


# Who may make a generator: the streams' own module; the witness, which derives them again; and Spider's
# split, which stays as it was first drawn, since results on real tasks are compared over years.
MAKES_GENERATORS = {"config/streams.py", "audit/statistics.py", "envs/intercode_sql/spider.py"}


def test_every_generator_is_a_named_stream():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() in MAKES_GENERATORS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert not ast.unparse(node.func).endswith("default_rng"), f"{path}:{node.lineno}"
