"""A door: `python -m launch.compile` runs `coevo_jax.commands.compile`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.compile import main

if __name__ == "__main__":
    run_process(main)
