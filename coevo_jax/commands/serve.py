"""Serve an agent of a run over an OpenAI-compatible API: `python -m launch.serve runs/NAME --agent target`.

Environments of others that call the model play it so (docs/serving.md). SIGTERM or Ctrl-C ends it: texts
under way are finished, and the exit code is 0.
"""

import argparse
from collections.abc import Sequence

from coevo_jax.commands.configs import add_agent, add_mark, agent_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import as_called
from coevo_jax.run_folder.folder import read_config

HOST, PORT, WAITING = "127.0.0.1", 8000, 256
MOST_PORT = 65535


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.serve"),
        description=as_called(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_agent(parser)
    parser.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen on; there are no keys (default: {HOST}, this machine)",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"port to listen on, 0 for a free one (default: {PORT})"
    )
    parser.add_argument("--name", help="of the model, for clients (default: the run's name and the agent's)")
    parser.add_argument(
        "--slots", type=int, metavar="N", help="texts written side by side (default: the run's rollout.slots)"
    )
    parser.add_argument(
        "--waiting",
        type=int,
        default=WAITING,
        metavar="N",
        help=f"texts that may wait for a slot; more are refused (default: {WAITING})",
    )
    add_mark(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    if not 0 <= args.port <= MOST_PORT:
        raise ConfigError(f"--port: found {args.port}, expected 0 to {MOST_PORT}")
    if args.waiting < 0 or (args.slots is not None and args.slots < 1):
        raise ConfigError("--slots: expected at least 1; --waiting: expected at least 0")
    if args.name is not None and not args.name.strip():
        raise ConfigError("--name: found an empty name")
    args.agent = agent_of(read_config(args.run), args.agent)
    from coevo_jax.commands.actions.serve import serve

    serve(args)
