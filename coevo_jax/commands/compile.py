"""Compile every program of a run for a machine, at hand or not, and say whether it fits and what it costs.

python -m launch.compile CONFIG.yaml [--topology v5e:4x4] [key.sub=value ...]
python -m launch.compile --table docs/preflight.md --table README.md configs/paper/*.yaml

Exit code 1: it does not fit into the chips' memory. Exit code 2: it cannot run there at all.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.codes import FAILURE, SIGNALLED
from coevo_jax.commands.configs import read_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called

CHILD = "COEVO_COMPILES"  # set for the process in which a GPU's compiler works
COMMAND = "from coevo_jax.commands import cli, compile; cli.run_command(compile.main)"


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
    parser.add_argument(
        "--slices",
        type=int,
        default=1,
        metavar="N",
        help="so many slices of a TPU, joined by the network; mesh.data goes over them (default 1)",
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
    if args.table and args.slices != 1:
        raise ConfigError(
            "--slices: a table's machines are those of the configs' headers; expected it without"
        )
    if not args.table and len(args.configs) != 1:
        raise ConfigError(f"found {len(args.configs)} config files, expected one (several need --table FILE)")
    return args


def main(argv: Sequence[str]) -> int | None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    configs = [read_config(text, args.overrides) for text in args.configs]
    from coevo_jax.commands.actions.compile import check_many, check_one, topologies_of
    from coevo_jax.machine.chips import is_gpu
    from coevo_jax.machine.gpus import has_gpu_compiler

    if any(map(is_gpu, topologies_of(args))) and has_gpu_compiler() and CHILD not in os.environ:
        return _in_a_child(argv)
    if not (check_many(args, configs) if args.table else check_one(args, configs[0])):
        sys.exit(FAILURE)
    return None


def _in_a_child(argv: Sequence[str]) -> int:
    """Do it in a process of its own, which a GPU's compiler can end where another one raises.

    Raises:
      ConfigError: it has ended it.
    """
    child = subprocess.run([sys.executable, "-c", COMMAND, *argv], env=os.environ | {CHILD: "1"}, check=False)
    if child.returncode < 0 and child.returncode not in (-signal.SIGINT, -signal.SIGTERM):
        raise ConfigError(
            f"the GPU's compiler ended its process ({signal.Signals(-child.returncode).name}) at the program "
            "named last: it cannot be compiled for this card; try another topology, or a model without flash "
            "(model.attention=dense)"
        )
    return child.returncode if child.returncode >= 0 else SIGNALLED - child.returncode
