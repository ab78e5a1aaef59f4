"""A door: `python -m launch.train` runs `coevo_jax.commands.train`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.train import main

if __name__ == "__main__":
    run_process(main)
