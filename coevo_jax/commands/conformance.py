"""Check an environment: does it keep the rules that training relies on?

python -m launch.conformance intercode_sql max_turns=6    one of the registry
python -m launch.conformance my_env:make_my_env           your own
"""

import argparse
from collections.abc import Sequence

from coevo_jax.config.reading import read_options
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance import CHECKS
from coevo_jax.envs.registry import ENVIRONMENTS, check_options
from coevo_jax.files import as_called


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.conformance"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0 when every check passed, 1 when one failed, 2 when the input cannot be used",
    )
    parser.add_argument(
        "name", help=f"one of {', '.join(ENVIRONMENTS)}, or your own as package.module:make_function"
    )
    parser.add_argument("options", nargs="*", metavar="key=value", help="options of the environment")
    parser.add_argument(
        "--tasks", type=int, default=2, metavar="N", help="tasks played of each split (default: 2)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the tasks and random actions (default: 0)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="after which a call hangs (default: 60)",
    )
    parser.add_argument(
        "--check", nargs="+", default=[], metavar="CHECK", help=f"only these of: {', '.join(CHECKS)}"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    if args.tasks < 1 or args.seed < 0 or args.timeout <= 0:
        raise ConfigError("--tasks: expected at least 1; --seed: at least 0; --timeout: above 0")
    check_options(args.name, read_options(args.options))
    from coevo_jax.commands.actions.conformance import check_environment

    return check_environment(args)
