"""`python -m tests.letters_train …`: launch.train with the toy environment in the registry."""

from coevo_jax.envs.registry import ENVIRONMENTS
from launch.cli import run_command
from launch.train import main
from tests.tiny import LETTERS

if __name__ == "__main__":
    ENVIRONMENTS["letters"] = LETTERS
    run_command(main)
