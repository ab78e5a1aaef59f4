"""Export a stored agent and list the files."""

import argparse

from coevo_jax.progress import CONSOLE
from coevo_jax.stored.export import export_agent


def export(args: argparse.Namespace) -> None:
    """Export as the command line asks."""
    out = export_agent(args.run, args.out, agent=args.agent, form=args.form, dtype=args.dtype)
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        CONSOLE.print(f"{path.stat().st_size:>13,} bytes  {path}", soft_wrap=True, highlight=False)
