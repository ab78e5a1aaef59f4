"""A door: `python -m launch.evaluate` runs `coevo_jax.commands.evaluate`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.evaluate import main

if __name__ == "__main__":
    run_process(main)
