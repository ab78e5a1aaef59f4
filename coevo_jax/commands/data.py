"""Generate, export, convert, inspect and validate data sets.

python -m launch.data generate intercode_sql --out data/sql seed=1
python -m launch.data generate intercode_sql --players --tasks 0:500 --habit retry=0.5 --out played.jsonl
python -m launch.data experts webshop --tasks 0:300 --to eto-sft --out ex.json
python -m launch.data convert eto.json --to tfds-experts --out data/eto
python -m launch.data inspect hub:AgentGym/AgentTraj-L
python -m launch.data validate ex.json

A set is a file, a folder or hub:owner/name[:config][@split]; its format is one of
  eto-sft, agenttraj, messages, eto-pairs    .json, .jsonl (packed by gzip or not) or .parquet
  trajectories                               .parquet
  tfds-experts, tfds-trajectories            a folder
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.commands.cli import add_habits
from coevo_jax.config.reading import read_options
from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.data.formats import FORMATS
from coevo_jax.envs.env import SPLITS
from coevo_jax.envs.registry import ENVIRONMENTS, EnvSpec, check_options
from coevo_jax.files import as_called


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.data"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0, or 2 when the input cannot be used or holds broken rows",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _generate_arguments(commands)
    _experts_arguments(commands)
    _set_arguments(commands)
    args, rest = parser.parse_known_args(argv)
    options = [word for word in rest if "=" in word and not word.startswith("-")]
    unknown = [word for word in rest if word not in options]
    if unknown or (options and not hasattr(args, "options")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options:
        args.options += options
    return args


def _generate_arguments(commands: Any) -> None:
    names = list(generating())
    generate = commands.add_parser("generate", help="write an environment's generated data into a folder")
    generate.add_argument("name", help=f"environment: {', '.join(names) or 'none generates data'}")
    generate.add_argument("options", nargs="*", metavar="key=value", help="options of the environment")
    generate.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="an empty or new folder; with --players a .jsonl, .json or .parquet file",
    )
    generate.add_argument(
        "--overwrite", action="store_true", help="write into a folder that holds files, or replace a file"
    )
    generate.add_argument(
        "--players",
        action="store_true",
        help=f"write episodes of scripted imperfect players, as messages ({', '.join(playing())})",
    )
    generate.add_argument("--split", choices=SPLITS, help="of the tasks played (default: train)")
    generate.add_argument("--tasks", metavar="START:STOP", help="slice of the split played (default: all)")
    add_habits(generate)


def _experts_arguments(commands: Any) -> None:
    experts = commands.add_parser("experts", help="export an environment's expert solutions")
    experts.add_argument(
        "name", help=f"environment: {', '.join(ENVIRONMENTS)}, or package.module:make_function"
    )
    experts.add_argument("options", nargs="*", metavar="key=value", help="options of the environment")
    experts.add_argument("--split", choices=SPLITS, default="train", help="of the tasks (default: train)")
    experts.add_argument(
        "--tasks", default=":", metavar="START:STOP", help="slice of the split (default: all)"
    )
    _output_arguments(experts)


def _set_arguments(commands: Any) -> None:
    for name, help_text in (
        ("convert", "write sets in another format; several sets become one"),
        ("inspect", "counts, lengths, rewards, families and samples"),
        ("validate", "check every row; exit code 2 and a list of places when some are broken"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("sets", nargs="+", metavar="SET", help="file, folder or hub:owner/name")
        command.add_argument(
            "--from", dest="source_format", metavar="FORMAT", choices=FORMATS, help="default: by the content"
        )
        command.add_argument(
            "--split", metavar="NAME", help="split of a hub or TFDS set (default: train, or the only one)"
        )
        if name == "convert":
            _output_arguments(command)
            command.add_argument("--system-prompt", default="", metavar="TEXT", help="for rows without one")
        if name == "inspect":
            command.add_argument(
                "--samples", type=int, default=2, metavar="N", help="rows to show (default: 2)"
            )
        if name != "validate":
            default = "refuse" if name == "convert" else "skip"
            command.add_argument(
                "--on-error",
                choices=("refuse", "skip"),
                default=default,
                help=f"what a broken row does (default: {default})",
            )


def _output_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--to", required=True, metavar="FORMAT", choices=FORMATS, help=f"one of {', '.join(FORMATS)}"
    )
    command.add_argument("--out", type=Path, required=True, metavar="PATH", help="file, or folder for tfds-*")
    command.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    command.add_argument("--tokenizer", type=Path, metavar="DIR", help="renders text for trajectories")


def generating() -> Mapping[str, EnvSpec]:
    """The environments that can generate data."""
    return {name: spec for name, spec in ENVIRONMENTS.items() if spec.generate_at}


def playing() -> Mapping[str, EnvSpec]:
    """The environments that have scripted players."""
    return {name: spec for name, spec in ENVIRONMENTS.items() if spec.players_at}


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what can be told of a command line before anything is opened.

    Raises:
      ConfigError: no such environment or option of it, or a negative number.
    """
    if args.command == "generate":
        _check_generate(args)
    if args.command in ("generate", "experts"):
        check_options(args.name, read_options(args.options))
    if args.command == "inspect" and args.samples < 0:
        raise ConfigError("--samples: expected at least 0")


def main(argv: Sequence[str]) -> None:
    """Run a command.

    Raises:
      ConfigError: something given cannot be used.
    """
    args = parse(argv)
    check_arguments(args)
    from coevo_jax.commands.actions.data import run

    run(args)


def _check_generate(args: argparse.Namespace) -> None:
    able, what = (playing(), "has no players") if args.players else (generating(), "generates no data")
    if args.name not in able:
        raise ConfigError(f"generate: found {args.name!r}, which {what}{nearest(args.name, list(able))}")
    alone = [f"--{name}" for name in ("split", "tasks") if getattr(args, name) is not None]
    alone += ["--habit"] if args.habits else []
    if alone and not args.players:
        raise ConfigError(f"generate: found {', '.join(alone)}, which would do nothing without --players")
