"""Make a base: a small model that stands in for a pretrained one, from episodes of scripted players.

python -m launch.base configs/study/base-sql.yaml --out bases/sql
python -m launch.base configs/study/base-sql.yaml --out bases/sql --page docs/bases.md

The players play train tasks over databases of another seed into the file of warm_start.data, the config's run
imitates it, its agent is exported, and a table says what the base and the players can do on the tasks that
the config evaluates. The same command goes on with a run that was interrupted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.cli import add_habits
from coevo_jax.commands.configs import read_played_config
from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.envs.registry import ENVIRONMENTS
from coevo_jax.files import as_called

PLAYERS_SEED = 1000


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.base"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="YAML file of the run: rounds 0, and warm_start.data a .jsonl file")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder of the base")
    parser.add_argument(
        "--seed",
        type=int,
        default=PLAYERS_SEED,
        metavar="N",
        help=f"env.options.seed of what the players play, not the config's own (default: {PLAYERS_SEED})",
    )
    add_habits(parser)
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="Markdown page whose table:FOLDER becomes the table"
    )
    return parser.parse_intermixed_args(argv)


def check(config: Config, seed: int) -> None:
    """Refuse a config that makes no base.

    Raises:
      ConfigError: it plays rounds, imitates no file of a known size, or has no players, or the players would
        play the tasks that the base is to be studied on.
    """
    name, warm = config.env.name, config.warm_start
    able = [one for one, spec in ENVIRONMENTS.items() if spec.players_at]
    if name not in able:
        raise ConfigError(f"env.name: found {name!r}, which has no players{nearest(name, able)}")
    if config.rounds:
        raise ConfigError(f"rounds: found {config.rounds}, expected 0: a base is a warm start")
    if warm.data is None or not warm.data.endswith(".jsonl"):
        raise ConfigError(f"warm_start.data: found {warm.data!r}, expected a .jsonl file for the players")
    start, stop = slice_bounds(warm.tasks)
    if start not in (None, 0) or not stop:
        raise ConfigError(f"warm_start.tasks: found {warm.tasks!r}, expected 0:N for N episodes of players")
    if seed < 0 or seed == config.env.options.get("seed", 0):
        raise ConfigError(f"--seed: found {seed}, expected at least 0 and another than env.options.seed")


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    config = read_played_config(args.config, args.overrides)
    check(config, args.seed)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ConfigError(f"--out {args.out}: exists already and is not an empty folder")
    if args.page is not None and not args.page.is_file():
        raise ConfigError(f"--page {args.page}: no such file")
    from coevo_jax.commands.actions.base import make_base

    make_base(args, config)
