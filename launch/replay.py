"""A door: `python -m launch.replay` runs `coevo_jax.commands.replay`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.replay import main

if __name__ == "__main__":
    run_process(main)
