"""Run a config over preference losses, betas and seeds, and tabulate them.

python -m launch.sweep configs/quickstart.yaml --losses sigmoid ipo "sigmoid=0.8,sft=0.2" --seeds 0 1 2
python -m launch.sweep my.yaml rounds=1 --losses my_losses:mine --betas 0.1 0.5 --table sweep.md sweep.json
python -m launch.sweep --list

A loss is a name, a mixture NAME=WEIGHT,NAME=WEIGHT, or your own as package.module:function. Every run is a
folder NAME-AGENT-LOSS-betaBETA-seedSEED in runs_dir: a finished one is reused, an interrupted one resumed.
Runs of a seed share the warm start and the first exploration.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.configs import read_played_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called

SUFFIXES = (".md", ".json")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.sweep"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0 when every run finished or diverged, 2 when what was given cannot be used, 143\n"
        "or 130 after SIGTERM or Ctrl-C: the same command goes on",
    )
    parser.add_argument("config", nargs="?", help="YAML file of the run, or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="as for train")
    parser.add_argument("--losses", nargs="+", default=[], metavar="LOSS")
    parser.add_argument(
        "--betas", nargs="+", type=float, default=[], metavar="BETA", help="default: the config's, by round"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="SEED", help="default: the config's"
    )
    parser.add_argument(
        "--agent",
        metavar="NAME",
        help="whose loss it is, by the recipe's name, or all (default: the first that it names)",
    )
    parser.add_argument(
        "--table", nargs="+", type=Path, default=[], metavar="FILE", help="write the table: .md or .json"
    )
    parser.add_argument("--list", action="store_true", help="show the losses and their options")
    args = parser.parse_args(argv)
    if not args.list and (args.config is None or not args.losses):
        parser.print_usage(sys.stderr)
        raise ConfigError("give a config file and --losses, or --list")
    for path in args.table:
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"--table {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
        if not path.parent.is_dir():
            raise ConfigError(f"--table {path}: the folder {path.parent} does not exist")
    return args


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    config = None if args.list else read_played_config(args.config, args.overrides)
    from coevo_jax.commands.actions.sweep import list_losses, sweep

    if config is None:
        list_losses()
    else:
        sweep(args, config, argv)
