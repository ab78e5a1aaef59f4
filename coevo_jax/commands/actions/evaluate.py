"""Play a stored agent and print how it did."""

import argparse

from coevo_jax.progress import CONSOLE
from coevo_jax.report.terminal import summary_table
from coevo_jax.stored.evaluate import evaluate_stored


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as the command line asks."""
    summary, path = evaluate_stored(
        args.run,
        agent=args.agent,
        split=args.split,
        tasks=args.tasks,
        temperature=args.temperature,
        samples=args.samples,
        mark=args.mark,
    )
    CONSOLE.print(summary_table(summary, title=f"{args.run.name}: {args.agent} agent, split {args.split}"))
    CONSOLE.print(f"written to {path}", soft_wrap=True)
