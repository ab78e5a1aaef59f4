"""A door: `python -m launch.play` runs `coevo_jax.commands.play`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.play import main

if __name__ == "__main__":
    run_process(main)
