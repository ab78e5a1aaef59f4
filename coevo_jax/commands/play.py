"""Show an episode as it is played: `python -m launch.play runs/NAME --agent failure --task 3`.

Every token that the agent writes is shaded by how likely it was: red where the agent was unsure.
"""

import argparse
from collections.abc import Sequence

from coevo_jax.commands.configs import add_agent, add_mark, agent_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called
from coevo_jax.run_folder.folder import read_config


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.play"), description=as_called(__doc__ or "")
    )
    add_agent(parser)
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test")
    parser.add_argument(
        "--task", default="0", metavar="TASK", help="number of the task in the split, or its id (default: 0)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) is greedy")
    parser.add_argument("--seed", type=int, help="of what is drawn (default: the run's)")
    add_mark(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    if args.temperature < 0:
        raise ConfigError(f"--temperature: found {args.temperature}, expected at least 0")
    args.agent = agent_of(read_config(args.run), args.agent)
    from coevo_jax.commands.actions.play import play

    play(args)
