"""A door: `python -m launch.scaling` runs `coevo_jax.commands.scaling`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.scaling import main

if __name__ == "__main__":
    run_process(main)
