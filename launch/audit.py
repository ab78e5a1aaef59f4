"""A door: `python -m launch.audit` runs `coevo_jax.commands.audit`."""

from coevo_jax.commands.audit import main
from coevo_jax.commands.cli import run_process

if __name__ == "__main__":
    run_process(main)
