"""`python -m tests.letters_train …`: launch.train with the toy environment in the registry."""

from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main
from coevo_jax.envs.registry import ENVIRONMENTS
from tests.tiny import LETTERS

if __name__ == "__main__":
    ENVIRONMENTS["letters"] = LETTERS
    run_command(main)
