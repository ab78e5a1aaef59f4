"""A door: `python -m launch.base` runs `coevo_jax.commands.base`."""

from coevo_jax.commands.base import main
from coevo_jax.commands.cli import run_process

if __name__ == "__main__":
    run_process(main)
