"""Evaluate an agent of a run: `python -m launch.evaluate runs/NAME --agent target --split test`."""

import argparse
from collections.abc import Sequence

from coevo_jax.commands.configs import add_agent, add_mark, agent_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called
from coevo_jax.run_folder.folder import read_config


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.evaluate"), description=as_called(__doc__ or "")
    )
    add_agent(parser)
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test")
    parser.add_argument(
        "--tasks", default=":", metavar="START:STOP", help="slice of the split (default: all)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) is greedy")
    parser.add_argument("--samples", type=int, default=1, help="episodes per task (default: 1)")
    add_mark(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    if args.samples < 1 or args.temperature < 0:
        raise ConfigError("--samples: expected at least 1; --temperature: expected at least 0")
    args.agent = agent_of(read_config(args.run), args.agent)
    from coevo_jax.commands.actions.evaluate import evaluate

    evaluate(args)
