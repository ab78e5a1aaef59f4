"""Play stored trajectories of a run again, and compare every answer of the environment (docs/runs.md).

python -m launch.replay runs/quickstart                      64 trajectories, spread over all that are stored
python -m launch.replay runs/quickstart --task clinic_0/12    every trajectory of a task
python -m launch.replay runs/quickstart --round 1 --kind explore --episodes all --processes

What differs is named: the turn, what is stored, and what the environment says now. The run is left as
it is. Exits with 1 where something differs or the environment breaks, with 2 where nothing can be played.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.audit import number_or_all
from coevo_jax.commands.configs import agent_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called
from coevo_jax.run_folder.folder import read_config

EPISODES = 64
KINDS = ("explore", "branch", "evaluate", "expert")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.replay"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--task",
        dest="tasks",
        action="append",
        default=[],
        metavar="ID",
        help="only this task's; may be given several times, and then each trajectory has a line",
    )
    parser.add_argument(
        "--round",
        dest="rounds",
        action="append",
        default=[],
        type=int,
        metavar="N",
        help="only this round's; 0 is the warm start; may be given several times",
    )
    parser.add_argument(
        "--agent",
        dest="agents",
        action="append",
        default=[],
        metavar="NAME",
        help="only this agent's, by the recipe's name, or expert; may be given several times",
    )
    parser.add_argument(
        "--kind",
        dest="kinds",
        action="append",
        default=[],
        choices=KINDS,
        help="only those of such phases, or the experts'; may be given several times",
    )
    parser.add_argument(
        "--episodes",
        type=number_or_all,
        metavar="N|all",
        default=argparse.SUPPRESS,
        help=f"how many, spread over all that are meant (default: {EPISODES}; with --task, all)",
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--processes",
        dest="processes",
        action="store_const",
        const=True,
        help="each environment in a process of its own",
    )
    ways.add_argument(
        "--threads",
        dest="processes",
        action="store_const",
        const=False,
        help="all environments in this process (default: as the run's env.processes says)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of lines")
    args = parser.parse_args(argv)
    if "episodes" not in args:
        args.episodes = None if args.tasks else EPISODES
    return args


def main(argv: Sequence[str]) -> int:
    """Parse, refuse what cannot be used, then do it; returns the command's exit code."""
    args = parse(argv)
    if args.episodes is not None and args.episodes < 1:
        raise ConfigError("--episodes: found 0, expected at least 1 or all")
    config = read_config(args.run)
    args.agents = [name if name == "expert" else agent_of(config, name) for name in args.agents]
    from coevo_jax.commands.actions.replay import replay

    return replay(args)
