"""The program `coevo` of an installed package: `coevo train quickstart` is `python -m launch.train` there."""

import importlib
import sys
from collections.abc import Sequence

from coevo_jax import __version__
from coevo_jax.commands.cli import run_process
from coevo_jax.config.strict import ConfigError, nearest

# A subcommand is the module of its name beside this one.
SUBCOMMANDS = {
    "train": "train by a config, or go on with an interrupted run",
    "evaluate": "play an agent of a run",
    "play": "show an episode of an agent as it is played",
    "serve": "serve an agent of a run over an OpenAI-compatible API",
    "replay": "play stored trajectories again and compare",
    "report": "show what one run or several did",
    "compile": "say whether a config fits into a machine, and what it costs there",
    "export": "write an agent in Hugging Face format",
    "sweep": "run a config over losses, betas and seeds",
    "study": "run configs over seeds side by side, and keep their rows",
    "base": "make a small model that stands in for a pretrained one",
    "data": "generate, export, convert, inspect and validate data sets",
    "conformance": "check an environment",
    "audit": "check what a run claims",
    "scaling": "measure the paper's recipe over chips and sizes",
}


def overview() -> str:
    """What `coevo --help` prints."""
    lines = [f"  {name:<13}{words}" for name, words in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: coevo COMMAND ...",
            "",
            "Co-evolving LLM agents in JAX.",
            "",
            "commands:",
            *lines,
            "",
            "coevo COMMAND --help says more; coevo --version names the version.",
        ]
    )


def main(argv: Sequence[str]) -> int | None:
    """Run the subcommand that the first word names; returns its exit code.

    Raises:
      ConfigError: no such subcommand, or what it cannot use.
    """
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("-h", "--help"):
        print(overview())
        return None
    if name == "--version":
        print(f"coevo_jax {__version__}")
        return None
    if name not in SUBCOMMANDS:
        raise ConfigError(f"coevo: found the command {name!r}{nearest(name, list(SUBCOMMANDS))}")
    return importlib.import_module(f"coevo_jax.commands.{name}").main(rest)


def run() -> None:
    """Run the program; a user's own modules are found from the current folder, as with `python -m`."""
    sys.path.insert(0, "")
    run_process(main)
