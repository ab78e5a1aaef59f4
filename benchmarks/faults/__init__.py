"""Inject faults into small runs of every method, and say what became of each.

python -m benchmarks.faults                                   the whole: 300 in process, 60 kills
python -m benchmarks.faults --in-process 20 --kills 2 --methods eto grpo --seed 3
python -m benchmarks.faults --rows faults.jsonl --write docs/trust.md    the table also into a page

With --rows, what was injected is kept in a file, one JSON object a line: a whole can be made in portions, of
other seeds or methods, and --in-process 0 --kills 0 only makes the table. Exits with 1 where anything went
another way than it should: a traceback, a refusal that names nothing, other bits, something lost, a faulty
episode that is learned from.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.files import shipped


def methods() -> tuple[str, ...]:
    """Every recipe that is shipped."""
    return tuple(sorted(path.stem for path in shipped("recipes").glob("*.yaml")))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--in-process", type=int, default=300, metavar="N", help="at least so many faults")
    parser.add_argument("--kills", type=int, default=60, metavar="N", help="processes killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(methods()), choices=methods(), metavar="NAME")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep what was injected, and add to it")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table into a page, too")
    return parser.parse_args(argv)
