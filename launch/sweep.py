"""A door: `python -m launch.sweep` runs `coevo_jax.commands.sweep`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.sweep import main

if __name__ == "__main__":
    run_process(main)
