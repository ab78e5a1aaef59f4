"""What a checkpoint's save costs with and without the digests of its files: python -m benchmarks.saving

Saves of one state, in turn with digests and without, each timed from its begin until it would count; wall
seconds, and CPU seconds of the process, in which nothing else goes on. Printed is the median of each, and of
the differences of pairs.

    --mebibytes 256   size of the state
    --saves 10        of each kind
    --folder PATH     where to write (default: the temporary folder)
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from coevo_jax.learning.train_state import TrainState
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.digests import Hashing

LEAVES = 16


def make_state(mebibytes: int) -> TrainState:
    """A state of random numbers."""
    count = mebibytes * (1 << 20) // 4 // LEAVES
    keys = jax.random.split(jax.random.key(0), LEAVES)
    params = {f"leaf-{n:02d}": jax.random.normal(key, (count,)) for n, key in enumerate(keys)}
    return TrainState(step=jnp.int32(0), params=params, opt_state={})


def save(checkpoints: Checkpointer, number: int, state: TrainState, hashed: bool) -> tuple[float, float]:
    """Wall and CPU seconds of one save."""
    wall, cpu = time.monotonic(), time.process_time()
    checkpoints.begin_save(number, {"target": state}, {})
    folder = checkpoints.finish_save(number)
    if hashed:
        Hashing(folder).result()
    return time.monotonic() - wall, time.process_time() - cpu


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(argv)
    state = jax.block_until_ready(make_state(args.mebibytes))
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        checkpoints = Checkpointer(Path(folder) / "checkpoints", owner=True)
        save(checkpoints, 0, state, True)  # the first one starts threads
        for number in range(1, 2 * args.saves + 1):
            hashed = number % 4 in (1, 2)  # with, with, without, without: neither always comes first
            found[hashed].append(save(checkpoints, number, state, hashed))
            checkpoints.prune({number}, number)
        checkpoints.close()
    print(f"{args.mebibytes} MiB, {args.saves} saves of each kind")
    for place, name in enumerate(("wall", "CPU")):
        own = {hashed: [one[place] for one in times] for hashed, times in found.items()}
        median = {hashed: statistics.median(times) for hashed, times in own.items()}
        more = statistics.median(a - b for a, b in zip(own[True], own[False], strict=True))
        print(f"{name}: with {median[True]:.3f} s, without {median[False]:.3f} s, paired {more:+.3f} s")


if __name__ == "__main__":
    main()
