"""Export a stored agent and list the files."""

import argparse
import json

from coevo_jax.phases.agent_folder import MARK_FILE
from coevo_jax.progress import CONSOLE
from coevo_jax.stored.export import export_agent


def export(args: argparse.Namespace) -> None:
    """Export as the command line asks."""
    out = export_agent(args.run, args.out, agent=args.agent, form=args.form, dtype=args.dtype)
    if (out / MARK_FILE).is_file():
        mark = json.loads((out / MARK_FILE).read_text(encoding="utf-8"))["mark"]
        CONSOLE.print(
            f"the agent is evaluated under a mark; put tasks to it as {mark!r} ({MARK_FILE})",
            soft_wrap=True,
            markup=False,
        )
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        CONSOLE.print(f"{path.stat().st_size:>13,} bytes  {path}", soft_wrap=True, highlight=False)
