"""Inject the faults that the command line of `benchmarks.faults` asks for, and write the table of them."""

import itertools
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Read by jax when it is imported; processes inherit them, and with them the bits.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_force_host_platform_device_count=1",
)

from benchmarks.faults import live, parse, stored
from benchmarks.faults.kills import kill_often
from benchmarks.faults.outcomes import Injected, append_rows, outcome_table, read_rows
from benchmarks.faults.scene import Whole, letters, make_whole
from coevo_jax.report.markdown import replace_table
from coevo_jax.run_folder.environment import cores, cpu

Injection = Callable[[Whole, random.Random, Path], list[Injected]]


def _stored(fault: str) -> Injection:
    def damage(whole: Whole, rng: random.Random, scratch: Path) -> list[Injected]:
        found = stored.inject(whole, fault, rng, scratch)
        return [] if found is None else [found]

    return damage


def _filled(fault: str) -> Injection:
    def fill(whole: Whole, rng: random.Random, scratch: Path) -> list[Injected]:
        found = live.fill_disk(whole, fault, rng, scratch)
        return [] if found is None else [found]

    return fill


def injections() -> tuple[Injection, ...]:
    """What is done to a method one after the other."""
    files = [_stored(fault) for fault in stored.FAULTS]
    more = [_stored(fault) for fault in stored.DAMAGES]
    return (
        lambda whole, rng, scratch: live.break_environment(whole.method, rng, scratch, apart=False),
        *(_filled(fault) for fault in (live.FULL, live.TMPFS, live.FORBIDDEN)),
        lambda whole, rng, scratch: [live.poison(whole, rng, scratch)],
        *files,
        *more,
        lambda whole, rng, scratch: live.break_environment(whole.method, rng, scratch, apart=True),
    )


def inject_all(
    names: Sequence[str], in_process: int, kills: int, seed: int, folder: Path
) -> Iterator[list[Injected]]:
    """Injections into every method in turn, until there are so many; then the kills, spread over them all."""
    rng = random.Random(f"faults {seed}")
    wholes: dict[str, Whole] = {}
    places = (folder / f"{number:04d}" for number in itertools.count())

    def whole(name: str) -> Whole:
        if name not in wholes:
            wholes[name] = make_whole(name, folder / "whole" / name)
        return wholes[name]

    order = rng.sample(list(names), len(names))
    # A method begins another place in the list than the one before it: short forms meet different faults.
    ways = injections()
    turns = (
        (name, ways[(index + turn) % len(ways)]) for turn in range(10**6) for index, name in enumerate(order)
    )
    done = 0
    while done < in_process:
        name, way = next(turns)
        rows = way(whole(name), rng, next(places))
        done += len(rows)
        yield rows
    for index, name in enumerate(order if kills else ()):
        own = kills * (index + 1) // len(order) - kills * index // len(order)
        if own:
            yield kill_often(whole(name), own, rng, next(places))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    rows = read_rows(args.rows) if args.rows else []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, letters():
        for found in inject_all(args.methods, args.in_process, args.kills, args.seed, Path(scratch)):
            rows += found
            if args.rows:
                append_rows(args.rows, found)
            for row in found:
                words = "" if row.good else f": {row.words}"
                print(f"{row.method}: {row.fault} ({row.where}): {row.outcome}{words}", flush=True)
    wrong = [row for row in rows if not row.good]
    kinds = [sum(row.how == how for row in rows) for how in ("in process", "process")]
    text = (
        f"{outcome_table(rows)}\n\n{kinds[0]} faults injected in process and {kinds[1]} processes killed, "
        f"in runs of {len({row.method for row in rows})} methods; {len(wrong)} went another way "
        f"than they should. Made on {cpu()}, {cores()} cores."
    )
    print(f"\n{text}\n{time.monotonic() - begun:.0f} s: {shlex.join(sys.argv[1:])}")
    if args.write:
        replace_table("faults", text, args.write)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
