"""Check the paper's recipe over chips and model sizes, and write the tables of docs/scaling.md.

python -m launch.scaling docs/scaling.md

Needs requirements-tpu.txt, no TPU, and about an hour of two cores. Figures are kept beside the page, in
scaling.json, after every cell: the same command goes on where it stopped, and where nothing is left to
compile it only writes the tables. `--anew` forgets the figures.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.files import as_called


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.scaling"), description=as_called(__doc__ or "")
    )
    parser.add_argument("page", type=Path, metavar="FILE.md")
    parser.add_argument("--anew", action="store_true", help="measure every cell again")
    args = parser.parse_args(argv)
    from coevo_jax.commands.actions.scaling import write_tables

    write_tables(args.page, anew=args.anew)
