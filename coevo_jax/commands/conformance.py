"""Check an environment: does it keep the rules that training relies on?

python -m launch.conformance intercode_sql max_turns=6    one of the registry
python -m launch.conformance my_env:make_my_env           your own
"""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coevo_jax.config.reading import read_options
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance import CHECKS, CheckResult, run_checks
from coevo_jax.envs.registry import ENVIRONMENTS, make_env
from coevo_jax.progress import CONSOLE

USER_ERROR = 2
FAILED = 1
STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m launch.conformance",
        description=__doc__,
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


def conformance_table(name: str, results: Sequence[CheckResult]) -> Table:
    """One row per check: what it verifies, what became of it, what was seen."""
    table = Table(title=f"Conformance of {name}", title_justify="left", show_lines=False)
    for column in ("check", "verifies", "result", "seen"):
        table.add_column(column, overflow="fold")
    for result in results:
        status = Text(result.status, style=STYLES[result.status])
        table.add_row(result.name, Text(result.sentence), status, Text(result.message))
    return table


def main(argv: Sequence[str], console: Console = CONSOLE) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    if args.tasks < 1 or args.seed < 0 or args.timeout <= 0:
        raise ConfigError("--tasks: expected at least 1; --seed: at least 0; --timeout: above 0")
    make = make_env(args.name, read_options(args.options))
    with console.status("") as status:
        results = run_checks(
            make,
            tasks_per_split=args.tasks,
            seed=args.seed,
            call_timeout=args.timeout,
            only=args.check,
            on_result=lambda result: status.update(f"{result.name}: {result.status}"),
        )
    console.print(conformance_table(args.name, results))
    counts = {status: sum(result.status == status for result in results) for status in STYLES}
    words = ", ".join(f"{number} {status}" for status, number in counts.items())
    console.print(f"{words}, {sum(result.seconds for result in results):.1f} s")
    return FAILED if counts["failed"] else 0
