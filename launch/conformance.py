"""A door: `python -m launch.conformance` runs `coevo_jax.commands.conformance`."""

from coevo_jax.commands.cli import run_process
from coevo_jax.commands.conformance import main

if __name__ == "__main__":
    run_process(main)
