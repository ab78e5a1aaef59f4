"""Compile every program of a run for a machine, at hand or not, and say whether it fits and what it costs.

python -m launch.compile CONFIG.yaml [--topology v5e:4x4] [key.sub=value ...]
python -m launch.compile --table docs/preflight.md --table README.md configs/paper/*.yaml

Exit code 1: it does not fit into the chips' memory. Exit code 2: it cannot run there at all.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.cli import FAILURE
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.machine.chips import find_machine
from coevo_jax.preflight.check import Preflight, preflight
from coevo_jax.preflight.plan import plan_programs
from coevo_jax.preflight.report import print_preflight, record, sharding_table
from coevo_jax.preflight.table import header_topology, open_page, same_programs, write_table
from coevo_jax.progress import CONSOLE


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.compile", description=__doc__)
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
        "page (again for another page)",
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


def check_one(args: argparse.Namespace) -> bool:
    """Check one config, or list its arrays; whether it fits."""
    config = load_config(args.configs[0], args.overrides)
    machine = find_machine(args.topology)
    if args.print_sharding:
        CONSOLE.print(sharding_table(plan_programs(config, machine)))
        return True
    result = preflight(config, machine, _say, thorough=args.thorough)
    print_preflight(result, CONSOLE)
    if args.json is not None:
        write_whole(args.json, json.dumps(record(result), indent=1) + "\n")
    return result.fits


def check_many(args: argparse.Namespace) -> bool:
    """Check every config for its header's topology; configs with the same programs are compiled once."""
    for page in args.table:
        open_page(page)  # before minutes of compiling, not after
    paths = [Path(path) for path in args.configs]
    configs = [(path, load_config(path, args.overrides), header_topology(path)) for path in paths]
    compiled: list[tuple[Config, str, Preflight]] = []
    rows = []
    for path, config, topology in configs:
        known = [one for other, place, one in compiled if place == topology and same_programs(config, other)]
        result = known[0] if known else _preflight(config, topology, args)
        if not known:
            compiled.append((config, topology, result))
        rows.append((path, result.of(config)))
        CONSOLE.print(f"{path}: {topology} {'fits' if result.fits else 'DOES NOT FIT'}", soft_wrap=True)
    for page in args.table:
        write_table(page, rows)
    return all(result.fits for _, result in rows)


def _preflight(config: Config, topology: str | None, args: argparse.Namespace) -> Preflight:
    return preflight(config, find_machine(topology), _say, thorough=args.thorough)


def _say(words: str) -> None:
    CONSOLE.print(f"compiling {words}", style="dim")


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if not (check_one(args) if not args.table else check_many(args)):
        sys.exit(FAILURE)
