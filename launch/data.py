"""A door: `python -m launch.data` runs `coevo_jax.commands.data`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.data import main

if __name__ == "__main__":
    run_process(main)
