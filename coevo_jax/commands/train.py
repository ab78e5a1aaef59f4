"""Train, or go on with an interrupted run.

python -m launch.train CONFIG.yaml [key.sub=value ...]
python -m launch.train --resume runs/NAME
python -m launch.train --auto-resume CONFIG.yaml [key.sub=value ...]
python -m launch.train --fork runs/NAME CONFIG.yaml [key.sub=value ...]

--auto-resume is what launchers use: the same command starts the run and, after a preemption, goes on with it.
--fork begins with another run's warm start, so that methods are compared from the same agents and one warm
start is paid for; nothing that it depends on may differ. What both configs do alike behind it is taken over,
too, up to the newest state that is intact: so a run goes on whose config must change, or which was damaged.
--profile 10:13 with any of them traces the optimizer steps 10, 11 and 12, as metrics.jsonl counts them, into
runs/NAME/profile/PHASE/.

SIGTERM and Ctrl-C end it after the optimizer step or block of tokens under way, with what is done committed,
and the exit code is 143 or 130; a second one ends it at once.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.configs import read_played_config
from coevo_jax.config.help import help_text
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.registry import ENVIRONMENTS
from coevo_jax.files import as_called
from coevo_jax.hosts.distributed import joins_others
from coevo_jax.run_folder.folder import read_config


class _Help(argparse.Action):
    """Print the usage and every option of the config."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.print_usage()
        print(help_text({name: spec.options for name, spec in ENVIRONMENTS.items()}))
        parser.exit()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=as_called("python -m launch.train"), add_help=False)
    parser.add_argument("config", nargs="?", help="YAML file of the run, or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    parser.add_argument("--resume", metavar="RUN", help="folder of an interrupted run")
    parser.add_argument(
        "--auto-resume", action="store_true", help="go on with this config's run where its folder exists"
    )
    parser.add_argument(
        "--fork", metavar="RUN", help="folder of a run that this one begins with, as far as they are alike"
    )
    parser.add_argument(
        "--profile", metavar="FIRST:END", help="trace these optimizer steps, END not included"
    )
    parser.add_argument("-h", "--help", nargs=0, action=_Help)
    args = parser.parse_args(argv)
    if (args.config is None) == (args.resume is None):
        parser.print_usage(sys.stderr)
        raise ConfigError("give either a config file or --resume RUN")
    if args.auto_resume and args.resume:
        raise ConfigError("--auto-resume finds the run by its config: give a config file, not --resume RUN")
    if args.fork and args.resume:
        raise ConfigError("--fork starts a run: give a config file, not --resume RUN")
    args.profile = traced_steps(args.profile)
    return args


def traced_steps(words: str | None) -> range:
    """The optimizer steps that a slice like "10:13" names, END not included; none where none are given.

    Raises:
      ConfigError: not two numbers, counted from 1, with the first below the second.
    """
    if words is None:
        return range(0)
    found = re.fullmatch(r"(\d+):(\d+)", words)
    steps = range(int(found[1]), int(found[2])) if found else range(0)
    if not steps or steps[0] < 1:
        raise ConfigError(
            f"--profile: found '{words}', expected FIRST:END with 1 <= FIRST < END, such as 10:13 for the "
            "optimizer steps 10, 11 and 12 of metrics.jsonl"
        )
    return steps


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    if not joins_others():  # several are told of a refusal together, once they have found each other
        read_played_config(args.config, args.overrides) if args.config else read_config(Path(args.resume))
    from coevo_jax.commands.actions.train import train_together

    train_together(args)
