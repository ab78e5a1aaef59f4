"""Export an agent of a run in Hugging Face format: `python -m launch.export runs/NAME --out FOLDER`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.commands.configs import add_agent, agent_of
from coevo_jax.files import as_called
from coevo_jax.run_folder.folder import read_config


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=as_called("python -m launch.export"), description=as_called(__doc__ or "")
    )
    add_agent(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder to write to")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--merged",
        dest="form",
        action="store_const",
        const="merged",
        help="one model with all parameters, adapters merged (default)",
    )
    form.add_argument(
        "--adapter",
        dest="form",
        action="store_const",
        const="adapter",
        help="a PEFT adapter; its base is the checkpoint the run began with, or a subfolder base",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of a whole model's weights: float32 keeps every bit (default), bfloat16 halves the files",
    )
    parser.set_defaults(form="merged")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Parse, refuse what cannot be used, then do it."""
    args = parse(argv)
    args.agent = agent_of(read_config(args.run), args.agent)
    from coevo_jax.commands.actions.export import export

    export(args)
