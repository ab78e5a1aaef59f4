"""Run several configs over seeds side by side, keep a row for each run, and write the tables of a page.

python -m launch.study configs/study/sql-*.yaml --seeds 5                 each config with the seeds 0 to 4
python -m launch.study configs/study/sql-*.yaml --seeds 5 --plan          only say which runs that makes
python -m launch.study configs/study/sql-*.yaml --seeds 5 --split test    play the test tasks, once
python -m launch.study configs/study/sql-*.yaml --seeds 5 --sampled       play the dev tasks at temperature 1
python -m launch.study --table docs/study.md                              write the page's tables from rows

The configs of a study have one base, warm start, evaluation, task set and number of rounds, and are called
STUDY-METHOD. Runs are RUNS_DIR/STUDY-METHOD-SEED, their rows stand in docs/study/results/STUDY.jsonl. Runs of
a seed begin with one warm start. What is finished is reused, what was interrupted goes on, so that the same
command goes on after any end.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.configs import read_played_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called

ROWS = Path("docs") / "study" / "results"  # where rows are kept
BASES = Path("bases")  # where the models are kept that studies begin with


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds that a command line names: 5 is 0 to 4, 5:8 is 5 to 7."""
    found = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    if found is None or not range(int(found[1] or 0), int(found[2])):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of seeds such as 5, or 5:8")
    return tuple(range(int(found[1] or 0), int(found[2])))


def positive(text: str) -> int:
    """A number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0")
    return int(text)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.study"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0 when every run has its row, 1 where a row says that its run failed or that its\n"
        "audit is broken, 2 when what was given cannot be used, 143 or 130 after SIGTERM or Ctrl-C: the\n"
        "same command goes on",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CONFIG|key.sub=value",
        help="YAML files or names of shipped configs, and overrides for all of them; with --table, files of "
        f"rows (default: {ROWS}/*.jsonl)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds_of,
        default=seeds_of("5"),
        metavar="N|A:B",
        help="0 to N-1, or A to B-1 (default: 5)",
    )
    parser.add_argument(
        "--jobs", type=positive, default=2, metavar="N", help="runs side by side, a core each (default: 2)"
    )
    parser.add_argument(
        "--all-cores",
        action="store_true",
        help="let every run use all cores, as one on a GPU needs them (with --jobs 1, one at a time)",
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs") / "study", metavar="FOLDER")
    parser.add_argument("--rows", type=Path, metavar="FILE", help=f"default: {ROWS}/STUDY.jsonl")
    parser.add_argument(
        "--plan", action="store_true", help="check everything, say which runs there are, and end"
    )
    parser.add_argument(
        "--split", choices=["test"], help="play the test tasks with the finished runs instead of training"
    )
    parser.add_argument(
        "--sampled", action="store_true", help="play the dev tasks at temperature 1 with the finished runs"
    )
    parser.add_argument(
        "--table", type=Path, metavar="PAGE", help="write the tables of a page from rows, and end"
    )
    args = parser.parse_intermixed_args(argv)
    args.overrides = [word for word in args.words if "=" in word]
    args.files = [word for word in args.words if "=" not in word]
    if args.table is None and not args.files:
        parser.print_usage(sys.stderr)
        raise ConfigError("give the configs of a study, or --table PAGE")
    if args.sampled and args.split is not None:
        raise ConfigError("--sampled: found --split, too, expected one of them")
    if args.table is not None and not args.table.is_file():
        raise ConfigError(f"--table {args.table}: no such file")
    if args.table is not None and args.overrides:
        raise ConfigError(f"--table: found {args.overrides[0]!r}, expected files of rows")
    return args


def main(argv: Sequence[str]) -> int | None:
    """Parse, refuse what cannot be used, then do it; returns the exit code."""
    args = parse(argv)
    if args.table is not None:
        from coevo_jax.commands.actions.study import write_page

        files = [Path(name) for name in args.files] or sorted(ROWS.glob("*.jsonl"))
        return write_page(args.table, files, BASES)
    configs = {name: read_played_config(name, args.overrides) for name in args.files}
    from coevo_jax.commands.actions.study import study

    return study(args, configs, ROWS)
