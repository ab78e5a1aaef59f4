"""A door: `python -m launch.export` runs `coevo_jax.commands.export`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.export import main

if __name__ == "__main__":
    run_process(main)
