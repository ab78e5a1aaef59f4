"""Compile the programs of configs, and show and write what came of it."""

import argparse
import json
from collections.abc import Sequence

from coevo_jax.commands.configs import config_file
from coevo_jax.config.options import Config
from coevo_jax.files import require_writable, write_whole
from coevo_jax.machine.chips import find_machine
from coevo_jax.preflight.fits import Preflight, preflight
from coevo_jax.preflight.plan import plan_programs
from coevo_jax.preflight.report import print_preflight, record, sharding_table
from coevo_jax.preflight.table import header_topology, open_page, same_programs, write_table
from coevo_jax.progress import CONSOLE


def topologies_of(args: argparse.Namespace) -> list[str]:
    """The topologies of all configs that are checked; none where it is for the devices here.

    Raises:
      ConfigError: a config of a table names none in its header.
    """
    if args.table:
        return [header_topology(config_file(text)) for text in args.configs]
    return [] if args.topology is None else [args.topology]


def check_one(args: argparse.Namespace, config: Config) -> bool:
    """Check one config, or list its arrays; whether it fits."""
    if args.json is not None:
        require_writable(args.json)  # before minutes of compiling, not after
    machine = find_machine(args.topology, args.slices)
    if args.print_sharding:
        CONSOLE.print(sharding_table(plan_programs(config, machine)))
        return True
    result = preflight(config, machine, _say, thorough=args.thorough)
    print_preflight(result, CONSOLE)
    if args.json is not None:
        write_whole(args.json, json.dumps(record(result), indent=1) + "\n")
    return result.fits


def check_many(args: argparse.Namespace, configs: Sequence[Config]) -> bool:
    """Check every config for its header's topology; configs with the same programs are compiled once."""
    for page in args.table:
        open_page(page)  # before minutes of compiling, not after
        require_writable(page)
    paths = [config_file(text) for text in args.configs]
    topologies = topologies_of(args)
    compiled: list[tuple[Config, str, Preflight]] = []
    rows = []
    for path, config, topology in zip(paths, configs, topologies, strict=True):
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
