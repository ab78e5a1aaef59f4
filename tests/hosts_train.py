"""`python -m tests.hosts_train …`: launch.train with the toy environment; a lost process is missed soon."""

from coevo_jax import processes
from coevo_jax.envs.registry import ENVIRONMENTS
from launch.cli import run_command
from launch.train import main
from tests.tiny import LETTERS

if __name__ == "__main__":
    ENVIRONMENTS["letters"] = LETTERS
    processes.LOST_AFTER, processes.BEAT = 10.0, 0.5
    run_command(main)
