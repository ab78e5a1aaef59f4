"""A door: `python -m launch.study` runs `coevo_jax.commands.study`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.study import main

if __name__ == "__main__":
    run_process(main)
