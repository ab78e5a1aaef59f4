"""A door: `python -m launch.report` runs `coevo_jax.commands.report`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.report import main

if __name__ == "__main__":
    run_process(main)
