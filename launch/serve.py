"""A door: `python -m launch.serve` runs `coevo_jax.commands.serve`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.serve import main

if __name__ == "__main__":
    run_process(main)
