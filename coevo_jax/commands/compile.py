"""Compile every program of a run for a machine, at hand or not, and say whether it fits and what it costs.

python -m launch.compile CONFIG.yaml [--topology v5e:4x4] [key.sub=value ...]
python -m launch.compile --table docs/preflight.md --table README.md configs/paper/*.yaml

Exit code 1: it does not fit into the chips' memory. Exit code 2: it cannot run there at all.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.codes import FAILURE
from coevo_jax.commands.configs import read_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.compile"), description=as_called(__doc__ or "")
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG.yaml")
    parser.add_argument(
        "--topology",
        metavar="CHIP:SHAPE",
        help="machine to compile for, such as v5e:4x4, v5p:2x4x4 or h100:8; default: the devices here",
    )
    parser.add_argument("--print-sharding", action="store_true", help="list every array, and compile nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file, too")
    parser.add_argument(
        "--table",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.md",
        help="check many configs, each for the topology that its header names, and write their table into a "
        "page, where other configs' rows stay (again for another page)",
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="let the compiler work as hard as in a run: minutes a program, memory within a few percent",
    )
    args = parser.parse_intermixed_args(argv)
    args.overrides = [text for text in args.configs if "=" in text]
    args.configs = [text for text in args.configs if "=" not in text]
    if not args.table and len(args.configs) != 1:
        raise ConfigError(f"found {len(args.configs)} config files, expected one (several need --table FILE)")
    return args


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    configs = [read_config(text, args.overrides) for text in args.configs]
    from coevo_jax.commands.actions.compile import check_many, check_one

    if not (check_many(args, configs) if args.table else check_one(args, configs[0])):
        sys.exit(FAILURE)
