"""What a checkpoint's save costs with and without the digests of its files: python -m benchmarks.saving

Saves of one state, in turn with digests and without. Two things are timed:

    whole        a save alone, from its begin until it would count, and CPU seconds of the process
    a commit     between two steps, or one that ends a phase: both are written and hashed while the caller
                 goes on. The seconds in which the thread that trains does not, from the commit until it is
                 permanent, while steps go on; and that thread's CPU seconds in them

Printed are the medians of each kind, and the median of the ratios of pairs, with digests to without, with
what 95 of 100 bootstrap samples of the pairs have for it. Where other work runs on the machine, wall seconds
tell of that, too; the thread's CPU seconds hardly do. The CPU seconds of a save are those of all threads but
those that train, as a run's metrics log has them.

    --mebibytes 128   size of the state
    --saves 40        of each kind
    --folder PATH     where to write (default: the temporary folder)
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import coevo_jax.run_folder.run as run_module
from benchmarks.soak import create_small
from coevo_jax.learning.train_state import Agents, TrainState
from coevo_jax.run_folder.checkpoint import Checkpointer
from coevo_jax.run_folder.digests import Digests, Hashing
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run

LEAVES = 16
SAMPLES = 2000  # of the bootstrap
WIDTH, STEPS = 512, 8  # of the products that stand for a step

Cost = dict[str, float]  # seconds


class NoHashing:
    """Stands for `Hashing` where files have no digests."""

    def __init__(self, _: object) -> None:
        return

    def done(self) -> bool:
        return True

    def result(self) -> Digests:
        return {}


def make_state(mebibytes: int) -> TrainState:
    """A state of random numbers."""
    count = mebibytes * (1 << 20) // 4 // LEAVES
    keys = jax.random.split(jax.random.key(0), LEAVES)
    params = {f"leaf-{n:02d}": jax.random.normal(key, (count,)) for n, key in enumerate(keys)}
    return TrainState(step=jnp.int32(0), params=params, opt_state={})


def save(checkpoints: Checkpointer, number: int, state: TrainState, hashed: bool) -> Cost:
    """Wall and CPU seconds of one save."""
    wall, cpu = time.monotonic(), time.process_time()
    checkpoints.begin_save(number, {"target": state}, {})
    folder = checkpoints.finish_save(number)
    if hashed:
        Hashing(folder).result()
    return {"wall": time.monotonic() - wall, "CPU of the process": time.process_time() - cpu}


@jax.jit
def step(x: jax.Array) -> jax.Array:
    for _ in range(STEPS):
        x = jnp.tanh(x @ x / WIDTH)
    return x


def commit(run: Run, number: int, state: TrainState) -> Cost:
    """What a commit costs until it is permanent, and for how long it keeps the thread from training."""
    agents, wall, own = Agents(states={"target": state}), 0.0, 0.0

    def timed(work: Callable[[], object]) -> None:
        nonlocal wall, own
        began, spent = time.monotonic(), time.thread_time()
        work()
        wall, own = wall + time.monotonic() - began, own + time.thread_time() - spent

    record = PhaseRecord(name=f"phase-{number}")
    timed(lambda: run.commit(record, files=[], agents=agents, finished=True))
    x = jnp.ones((WIDTH, WIDTH))
    while run._begun is not None:
        x = step(x).block_until_ready()
        timed(run.settle_if_final)
    timed(run.settle)
    saved = run.take_saved().get("checkpoint/cpu_seconds", 0.0)
    return {"wall": wall, "CPU of the thread": own, "CPU of the save": saved}


def alternate(count: int, measure: Callable[[int, bool], Cost]) -> dict[bool, list[Cost]]:
    """So many measurements of each kind, in turn, behind one that starts threads."""
    found: dict[bool, list[Cost]] = {True: [], False: []}
    measure(0, True)
    for number in range(1, 2 * count + 1):
        hashed = number % 4 in (1, 2)  # with, with, without, without: neither always comes first
        found[hashed].append(measure(number, hashed))
    return found


def tell(name: str, found: dict[bool, list[Cost]]) -> None:
    """Print medians and the ratios of pairs."""
    for unit in found[True][0]:
        own = {hashed: [one[unit] for one in times] for hashed, times in found.items()}
        median = {hashed: statistics.median(times) for hashed, times in own.items()}
        words = f"{name}, {unit}: with {median[True]:.3f} s, without {median[False]:.3f} s"
        if min(own[False]) > 0:
            ratios = np.array(own[True]) / np.array(own[False])
            drawn = np.random.default_rng(0).choice(ratios, (SAMPLES, len(ratios)))
            low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
            words += f", ratio {np.median(ratios):.3f} ({low:.3f} to {high:.3f})"
        print(words, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=128)
    parser.add_argument("--saves", type=int, default=40)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(argv)
    state = jax.block_until_ready(make_state(args.mebibytes))
    print(f"{args.mebibytes} MiB, {args.saves} saves of each kind")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        checkpoints = Checkpointer(Path(folder) / "checkpoints", owner=True)

        def alone(number: int, hashed: bool) -> Cost:
            found = save(checkpoints, number, state, hashed)
            checkpoints.prune({number}, number)
            return found

        tell("whole", alternate(args.saves, alone))
        checkpoints.close()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = create_small(Path(folder), rounds=1)

        def in_run(number: int, hashed: bool) -> Cost:
            with mock.patch.object(run_module, "Hashing", Hashing if hashed else NoHashing):
                return commit(run, number, state)

        try:
            tell("a commit", alternate(args.saves, in_run))
        finally:
            run.close()


if __name__ == "__main__":
    main()
